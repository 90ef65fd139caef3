"""Verdicts in plain sentences: what to do at each base size, and what an image is worth there."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from equigrid.analysis.conclusions.amounts import (
    AT_LEAST,
    FEWER,
    MATCHED,
    NEVER,
    Amount,
    Exchange,
    ExtraWorth,
    Worth,
    images,
)
from equigrid.analysis.conclusions.worth import BaseWorth, SyntheticWorth

LABEL, GENERATE, REPEAT, OPEN = "label more", "generate", "repeat the base", "undetermined"


@dataclass(frozen=True)
class Verdict:
    """What to do at one base size. kind: LABEL, GENERATE, REPEAT or OPEN; text: one sentence."""

    n_base: float
    kind: str
    text: str

    def to_json(self) -> dict:
        """Plain values."""
        return dict(self.__dict__)


def verdict(base: BaseWorth, asked: Amount | None = None) -> Verdict:
    """At one base size, about `asked` (default: `base.main`, about as many real images as the base
    has).
    """
    one = asked or base.main
    if one is None:
        return Verdict(base.n_base, OPEN, f"Undetermined at a base of {base.n_base:,.0f}.")
    kind, text = _sentence(one, base.extra)
    return Verdict(base.n_base, kind, text)


def verdicts(worth: SyntheticWorth) -> tuple[Verdict, ...]:
    """One per base size."""
    return tuple(verdict(base) for base in worth.bases)


# The sentence of each case. The report's page fills them in too, for questions of its readers.
SENTENCES: dict[str, tuple[str, str]] = {
    "never": (LABEL, "Label more: at a base of {n_base}, no amount of {name} replaces {real}."),
    "at least": (
        LABEL,
        "Label more: at a base of {n_base}, it takes at least {low} images of {name} to do what "
        "{real} do ({times} for one); whether any number does is open.",
    ),
    # Where less than one for one already is a lower end, nothing speaks against generating.
    "at least, few": (
        OPEN,
        "Undetermined at a base of {n_base}: it takes at least {low} images of {name} to do what "
        "{real} do, and perhaps any number more.",
    ),
    "undetermined": (OPEN, "Undetermined at a base of {n_base}: {reasons}."),
    "copies open": (
        OPEN,
        "Undetermined at a base of {n_base}: {many} of {name} do what {real} do{known}, but "
        "{copies}.",
    ),
    "repeat": (
        REPEAT,
        "Repeat the base: at a base of {n_base}, {many} of {name} do what {real} do{known}, but as "
        "many copies of the base do more.",
    ),
    "generate": (
        GENERATE,
        "Generate: at a base of {n_base}, {many} of {name} do what {real} do{known}.",
    ),
}
PARTS = {
    "real": "{n_real} more real images",
    "matched": "{value} images",
    "fewer": "fewer than {high} images",
    "known": " (known within ×{factor}: {low} to {high}{beyond})",
    "beyond": ", extrapolated",
    "unmeasured": (
        "No answer at a base of {n_base}: it was not measured (measured: {listed}), and how the "
        "amounts change from base to base is not known well enough to say."
    ),
}


def fill(template: str, words: Mapping[str, str]) -> str:
    """Each {name} by its word, once: what a word holds is not looked at again."""
    return re.sub(r"\{(\w+)\}", lambda found: words[found[1]], template)


def _sentence(one: Amount, extra: ExtraWorth) -> tuple[str, str]:
    kind, template = SENTENCES[_case(one, extra)]
    words = {
        "n_base": f"{one.n_base:,.0f}", "name": one.source,
        "real": fill(PARTS["real"], {"n_real": f"{one.n_real:,.0f}"}),
        "low": images(one.low), "times": f"{one.low / one.n_real:.2g}",
        "many": _how_many(one), "known": _known(one), "copies": copies_open(extra),
        "reasons": "; ".join(one.reasons),
    }  # fmt: skip
    return kind, fill(template, words)


def _case(one: Amount, extra: ExtraWorth) -> str:
    if one.kind == NEVER:
        return "never"
    if one.kind == AT_LEAST:
        return "at least" if one.low >= one.n_real else "at least, few"
    if one.kind not in (MATCHED, FEWER):
        return "undetermined"
    return case_by_copies(extra)


def case_by_copies(extra: ExtraWorth) -> str:
    """The case where an amount does it: whether as many copies of the base would do it too."""
    if not extra.determined:
        return "copies open"
    return "repeat" if extra.positive < 0.5 else "generate"


def copies_open(extra: ExtraWorth) -> str:
    """Why it is not known whether copies would do it too."""
    if extra.extra.value is None:
        why = "; ".join(extra.reasons)
        return f"whether more steps on the base would do it too is not known: {why}"
    return "whether as many copies of the base would do it too is open"


def _how_many(one: Amount) -> str:
    if one.kind == FEWER:
        return fill(PARTS["fewer"], {"high": images(one.high)})
    return fill(PARTS["matched"], {"value": images(one.value)})


def _known(one: Amount) -> str:
    if one.kind != MATCHED or one.factor is None:
        return ""
    beyond = PARTS["beyond"] if one.extrapolated else ""
    words = {"factor": f"{one.factor:.2g}", "low": images(one.low), "high": images(one.high)}
    return fill(PARTS["known"], {**words, "beyond": beyond})


def exchange_sentence(base: BaseWorth, generator: str) -> str:
    """The sentence people came for: 'one real image is worth k synthetic ones here'."""
    found: Exchange = base.exchange
    n = f"{base.n_base:,.0f}"
    return (
        f"At a base of {n}, one real image is worth {_rate(found.first)} of {generator} "
        f"over the first {n} real ones added, and {_rate(found.following)} over the next {n}."
    )


def first_sentence(base: BaseWorth, generator: str) -> str:
    """The other way round: real images that one synthetic image is worth."""
    n = f"{base.n_base:,.0f}"
    value = base.first
    if value.value is None:
        return f"The first {n} images of {generator} are worth more real ones than can be told."
    return (
        f"Each of the first {n} images of {generator} is worth {_end(value.value)} real ones "
        f"({_end(value.low)} to {_end(value.high)})."
    )


def extra_sentence(extra: ExtraWorth, n_base: float, generator: str) -> str:
    """What the images bring beyond copies of the base."""
    if extra.extra.value is None:
        return f"Beyond copies of the base: not known: {'; '.join(extra.reasons)}."
    count = f"{images(extra.amount * n_base)} images of {generator}"
    value, low, high = (
        None if end is None else end * n_base
        for end in (extra.extra.value, extra.extra.low, extra.extra.high)
    )
    sign = "" if extra.determined else "; its sign is open"
    return (
        f"Beyond as many copies of the base, {count} bring what {_signed(value)} real images do "
        f"({_signed(low)} to {_signed(high)}{sign})."
    )


def _signed(value: float | None) -> str:
    if value is None:
        return "∞"
    return f"−{images(-value)}" if value < 0 else images(value)


def _rate(value: Worth) -> str:
    if value.value is None:
        low = "" if value.low is None else f" (at least {value.low:.2g})"
        return f"more images than can be told{low}"
    noun = "image" if _end(value.value) == "1" else "images"
    return f"{_end(value.value)} {noun} ({_end(value.low)} to {_end(value.high)})"


def _end(value: float | None) -> str:
    return "no limit" if value is None else f"{value:.2g}" if abs(value) < 100 else f"{value:,.0f}"


def sentence(worth: SyntheticWorth | None, name: str) -> str:
    """One sentence for a terminal: the verdicts of all base sizes that have one."""
    if worth is None or not worth.bases:
        why = "there are no trainings with synthetic images" if worth is None else None
        return f"{name}: undetermined: {why or '; '.join(worth.reasons if worth else ())}"
    found = verdicts(worth)
    known = [one for one in found if one.kind != OPEN] or found[:1]
    return f"{name}: {' '.join(one.text for one in known)}"


def unique(lines: Iterable[str]) -> list[str]:
    """Without repetitions, in order."""
    return list(dict.fromkeys(lines))
