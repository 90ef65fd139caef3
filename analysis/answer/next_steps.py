"""What to do where an answer is undetermined: the trainings that narrow it most, or what is
missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from equigrid.analysis.answer.next_trials import Costs, rank
from equigrid.analysis.conclusions.amounts import AT_LEAST, MATCHED, UNDETERMINED, Amount, images
from equigrid.analysis.conclusions.phrasing import GENERATE, LABEL, OPEN, REPEAT, verdict
from equigrid.analysis.conclusions.worth import BaseWorth, SyntheticWorth
from equigrid.analysis.data.trials import COPIES
from equigrid.analysis.fitting.effective_samples import Fit

_WORTH_SAYING = 0.02  # of the variance that one step removes


@dataclass(frozen=True)
class Spending:
    """What things took so far, in device-seconds: `trials`, one more training of a classifier and
    one more generator; by generator, `training` it and `sampling` one of its images.
    """

    trials: Costs | None = None
    training: Mapping[str, float] = field(default_factory=dict)
    sampling: Mapping[str, float] = field(default_factory=dict)

    def of_images(self, generator: str, n: float) -> float | None:
        """Training the generator once, and n of its images; None where that was not measured."""
        per_image = self.sampling.get(generator)
        if per_image is None:
            return None
        return self.training.get(generator, 0.0) + n * per_image


NOTHING_FITTED = (
    "Do this next: train the base alone, with real images added and with synthetic images added, "
    "at one base size at least, with three subset seeds."
)


def what_next(worth: SyntheticWorth, base: BaseWorth, spending: Spending) -> str:
    """What to do at a base size and what that costs, settled or not: one sentence or two; '' where
    there is nothing to say.
    """
    one, found = base.main, verdict(base)
    if one is None or found.kind == OPEN:
        return next_step(worth, base, spending=spending)
    real = f"{one.n_real:,.0f}"
    if found.kind == LABEL:
        known = f" Beyond {images(one.low)} nothing is known." if one.kind == AT_LEAST else ""
        return f"Next: label {real} more images, or find a better generator.{known}"
    if found.kind == REPEAT:
        return "Next: train longer on the base, or repeat its images: that costs no new images."
    assert found.kind == GENERATE
    n = one.value if one.kind == MATCHED and one.value is not None else one.high
    assert n is not None, "a matched amount has an end"
    took = spending.of_images(worth.generator, n)
    time = "" if took is None else f" (about {_duration(took)} of device time here)"
    cheaper = f"{one.n_real / n:.2g}"
    return (
        f"Next: make {images(n)} images of {worth.generator}{time}. They are cheaper than {real} "
        f"labelled ones where one costs less than {cheaper} of a label."
    )


def _duration(seconds: float) -> str:
    """`40 s`, `5 min`, `3.2 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def next_step(
    worth: SyntheticWorth | None,
    base: BaseWorth,
    asked: Amount | None = None,
    spending: Spending | None = None,
) -> str:
    """One sentence on what would settle the verdict at a base size; '' where it is settled.

    spending: to rank what narrows it by its cost, and to say that.
    """
    one = asked or base.main
    if worth is None or worth.fit is None or one is None:
        return NOTHING_FITTED
    if verdict(base, one).kind != OPEN:
        return ""
    missing = _missing(worth, base)
    if missing:
        return f"Do this next: {missing}."
    if one.kind == UNDETERMINED or base.extra.determined:
        return _narrowing(worth, base, one, spending.trials if spending else None)
    amount = f"{base.extra.amount * base.n_base:,.0f}"
    return (
        f"Do this next: more subset seeds of the cells with {amount} images of {worth.generator} "
        f"and with {amount} copies."
    )


def next_steps(worth: SyntheticWorth | None) -> list[str]:
    """Of all base sizes that are undetermined, without repetitions."""
    if worth is None or not worth.bases:
        return [NOTHING_FITTED]
    found = (next_step(worth, base) for base in worth.bases)
    return [text for text in dict.fromkeys(found) if text]


def _missing(worth: SyntheticWorth, base: BaseWorth) -> str:
    assert worth.fit is not None
    layout, b = worth.fit.layout, worth.base_index(base.n_base)
    if b is None or layout.base_cell(b) is None:
        return f"train the base of {base.n_base:,.0f} alone"
    if not len(layout.pure(b, worth.source)):
        return f"train with images of {worth.generator} added at a base of {base.n_base:,.0f}"
    if not any(len(layout.pure(k, -1)) for k in range(len(layout.n_base))):
        return "train with real images added (a block's `real`)"
    if COPIES not in layout.sources or not len(layout.pure(b, layout.sources.index(COPIES))):
        return "train with copies of the base added (`copies: [1]` in a block of the spec)"
    return ""


def _narrowing(
    worth: SyntheticWorth, base: BaseWorth, one: Amount, costs: Costs | None = None
) -> str:
    fit, b = worth.fit, worth.base_index(base.n_base)
    assert fit is not None
    assert b is not None
    found = rank(fit, b, worth.source, one.n_real / one.n_base, costs, most=1)
    if found and 1 - (found[0].sd_after / found[0].sd_now) ** 2 >= _WORTH_SAYING:
        step = found[0]
        removed = 1 - (step.sd_after / step.sd_now) ** 2
        time = f"; about {_duration(step.step.cost)} of device time" if costs else ""
        return f"Do this next: {step.text} (removes about {removed:.0%} of the variance{time})."
    return _beyond(fit, b, worth, one)


def _beyond(fit: Fit, b: int, worth: SyntheticWorth, one: Amount) -> str:
    """Where no repetition helps: the answer lies outside what was measured."""
    layout, n = fit.layout, one.n_base
    real = layout.pure(b, -1)
    if not len(real) or layout.real[real].max() * n < one.n_real * (1 - 1e-6):
        return (
            f"Do this next: train with {one.n_real:,.0f} real images added at a base of {n:,.0f}."
        )
    most = layout.amount[layout.pure(b, worth.source), worth.source].max() * n
    return (
        f"Do this next: train with more than {most:,.0f} images of {worth.generator} at a base of "
        f"{n:,.0f}: repeating what there is narrows this little."
    )
