"""The report's first screen: verdicts, the one figure that shows them, what to do next, and what a
reader's own question is answered from. The page that watches a grid shows it too.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from equigrid.analysis.answer.next_steps import NOTHING_FITTED, Spending, next_steps, what_next
from equigrid.analysis.answer.page_table import page_table
from equigrid.analysis.conclusions import chosen
from equigrid.analysis.conclusions.equivalence import Analysis, CurveResult
from equigrid.analysis.conclusions.phrasing import (
    OPEN,
    exchange_sentence,
    extra_sentence,
    first_sentence,
    unique,
    verdict,
)
from equigrid.analysis.conclusions.pools import pool_warnings
from equigrid.analysis.figures.accuracy import FORMATS, save
from equigrid.analysis.figures.style import is_empty
from equigrid.analysis.report.figures import answer_figures
from equigrid.analysis.schema import SETTING_WORDS

CSS_PX_PER_INCH = 96  # a figure's type is of one size wherever the page has room for it
_STRIP_IMAGES, _STRIP_PX, _GAP_PX = 10, 36, 3
_WIDE_INCHES = 5.0  # wider figures have a row of the page for themselves

_GENERATORS = {
    "closed": "closed-set generator", "open": "open-set generator", "adapted": "adapted generator",
}  # fmt: skip


@dataclass(frozen=True)
class FirstScreen:
    """What the template shows, as plain values.

    chosen: what images of chosen classes do, a sentence each. panels: of the interactive figures,
    by their ids. table: what questions are answered from.
    """

    cards: list[dict]
    problems: list[str]
    failures: str
    figures: list[dict]
    panels: dict[str, list[dict]]
    asks: dict | None
    table: dict
    rivals: list[str] = field(default_factory=list)
    nothing: str = field(default=NOTHING_FITTED)
    chosen: list[str] = field(default_factory=list)


def first_screen(
    analysis: Analysis,
    extras: Mapping[str, Any],
    directory: Path,
    formats: tuple[str, ...] = FORMATS,
) -> FirstScreen:
    """Draws into `directory`, in these formats. extras: see
    `equigrid.analysis.report.html.write_report`.
    """
    figures, panels = [], {}
    for name, caption, figure, own in answer_figures(analysis):
        if entry := figure_entry(name, caption, figure, directory, formats):
            figures.append(entry)
            panels[name] = own
    spending = _spending(extras.get("spending", {}))
    sets = extras.get("sheets", {}).get("sets", [])
    return FirstScreen(
        cards=[_card(curve, spending, sets, bool(analysis.chosen)) for curve in analysis.curves],
        problems=[
            *analysis.problems,
            *pool_warnings(extras.get("quality", [])),
            *extras.get("warnings", []),
        ],
        failures=_failures(extras.get("failures", [])),
        figures=figures,
        panels=panels,
        asks=_asks(analysis),
        table=page_table(analysis),
        chosen=chosen.sentences(analysis.chosen, extras.get("class_names")),
        rivals=[verdict.text for one in analysis.rivals for verdict in one.verdicts],
    )


def figure_entry(
    name: str, caption: str, figure: Figure, directory: Path, formats: tuple[str, ...] = FORMATS
) -> dict | None:
    """What the template shows of a figure, which is written beside the report; None where there is
    nothing to draw.
    """
    if is_empty(figure):
        return None
    inches = figure.get_size_inches()
    png, *_ = save(figure, directory, name, formats)
    width, height = (round(CSS_PX_PER_INCH * side) for side in inches)
    return {"id": name, "caption": caption, "uri": uri("png", _smaller(png)), "width": width,
            "height": height, "wide": bool(inches[0] > _WIDE_INCHES)}  # fmt: skip


def _smaller(path: Path) -> bytes:
    """The stand-in inside the report, at half the resolution of the file beside it and 256
    colours.
    """
    with Image.open(path) as image:
        small = image.convert("RGB").resize(
            (image.width // 2, image.height // 2), Image.Resampling.LANCZOS
        )
    buffer = io.BytesIO()
    small.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        buffer, format="png", optimize=True
    )
    return buffer.getvalue()


def uri(kind: str, data: bytes) -> str:
    """An image inside the page."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _spending(known: Mapping[str, Any]) -> Spending:
    return Spending(known.get("trials"), known.get("training", {}), known.get("sampling", {}))


def _failures(failures: Sequence[Mapping]) -> str:
    if not failures:
        return ""
    jobs = f"{len(failures):,} job{'s' if len(failures) > 1 else ''} failed"
    return f"{jobs}, so cells are missing; see Failures below. The first: {failures[0]['error']}"


def _asks(analysis: Analysis) -> dict | None:
    """The question that the page begins with, and the base sizes that were measured; None where
    nothing can be answered.
    """
    bases = [base for curve in analysis.curves if curve.worth for base in curve.worth.bases]
    asked = [base for base in bases if base.main is not None]
    if not asked:
        return None
    known = [base for base in asked if verdict(base).kind != OPEN]
    first = (known or asked)[0]
    assert first.main is not None
    sizes = sorted({round(base.n_base) for base in bases})
    return {"n_base": round(first.n_base), "n_real": round(first.main.n_real), "sizes": sizes}


# Cards --------------------------------------------------------------------------------------------


def _card(
    curve: CurveResult, spending: Spending, sets: Sequence[Mapping], by_class: bool = False
) -> dict:
    """What is said of one generator. by_class: whether there are amounts by class."""
    worth, key = curve.worth, curve.key
    words = SETTING_WORDS.get(curve.setting, curve.setting) if curve.setting else None
    setting = f", {words}" if words else ""
    if curve.pretrained:
        of = f"{_GENERATORS.get(curve.setting, curve.setting)}, " if curve.setting else ""
        setting = f", {of}pre-trained classifier: open set"
    card: dict[str, Any] = {
        "title": key.generator or "no generator", "status": "undetermined", "bases": [],
        "about": f"{key.dataset}, {key.classifier}, recipe {key.recipe}{setting}",
        "warnings": [], "notes": [], "nothing": "", "strip": _strip(key.generator, sets),
    }  # fmt: skip
    if worth is None or not worth.bases:
        nothing = chosen.NO_BALANCED if by_class else "there are no synthetic images in the results"
        why = "; ".join(worth.reasons) if worth else nothing
        return {**card, "nothing": f"Undetermined: {why}. {' '.join(next_steps(worth))}"}
    bases = []
    for base in worth.bases:
        found = verdict(base)
        more = [
            exchange_sentence(base, worth.generator),
            first_sentence(base, worth.generator),
            extra_sentence(base.extra, base.n_base, worth.generator),
        ]
        bases.append({"kind": found.kind.replace(" ", "-"), "text": found.text, "more": more,
                      "next": what_next(worth, base, spending)})  # fmt: skip
    notes = [
        f"base {base.n_base:,.0f}: {note}"
        for base in worth.bases
        for note in (base.main.notes if base.main else ())
        if note not in worth.notes
    ]
    missing = []
    if curve.missing:
        missing.append(f"{len(curve.missing)} cells are incomplete, first: {curve.missing[0]}")
    return {**card, "status": worth.status, "bases": bases,
            "warnings": [*worth.warnings, *missing],
            "notes": unique([*worth.notes, *notes])}  # fmt: skip


def _strip(generator: str, sets: Sequence[Mapping]) -> dict | None:
    """A row of real images above one of the generator's own, of its largest base: what it makes is
    seen beside what is said of it.
    """
    real = [one for one in sets if one["generator"] is None]
    own = [one for one in sets if generator and one["generator"] == generator]
    if not real or not own:
        return None
    largest = max(own, key=lambda one: one["base"] or 0)
    rows = [_first_of_each(one) for one in (real[0], largest)]
    if rows[0].shape[2:] != rows[1].shape[2:]:
        return None
    count = min(len(rows[0]), len(rows[1]))
    step = _STRIP_PX + _GAP_PX
    canvas = Image.new("RGBA", (count * step - _GAP_PX, 2 * step - _GAP_PX))
    for y, row in enumerate(rows):
        for x, pixels in enumerate(row[:count]):
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            scaled = image.resize((_STRIP_PX, _STRIP_PX), Image.Resampling.NEAREST)
            canvas.paste(scaled.convert("RGBA"), (x * step, y * step))
    buffer = io.BytesIO()
    canvas.save(buffer, "png", optimize=True)
    base = f", trained on {largest['base']:,} of them" if largest["base"] else ""
    return {
        "uri": uri("png", buffer.getvalue()), "width": canvas.width, "height": canvas.height,
        "caption": f"Above: real images. Below: {generator}{base}, one of each class.",
    }  # fmt: skip


def _first_of_each(one: Mapping) -> np.ndarray:
    """(K, H, W, C) uint8: the first image of each class, of the first few."""
    labels = one["labels"]
    firsts = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)]
    return one["images"][firsts[:_STRIP_IMAGES]]
