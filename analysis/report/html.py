"""The report: one HTML file that opens from disk without a network, and the figures beside it."""

import base64
import gzip
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from equigrid.analysis.answer.next_steps import NOTHING_FITTED, next_step, next_steps
from equigrid.analysis.conclusions.equivalence import Analysis, CurveResult
from equigrid.analysis.conclusions.phrasing import (
    exchange_sentence,
    extra_sentence,
    first_sentence,
    unique,
    verdict,
)
from equigrid.analysis.conclusions.pools import pool_warnings
from equigrid.analysis.figures.accuracy import save
from equigrid.analysis.report.figures import (
    answer_figures,
    measure_figures,
    paper_figures,
    report_figures,
    sheet_figures,
)
from equigrid.analysis.report.paper_reading import INTRO, paper_paragraph
from equigrid.analysis.report.tables import paper_tables, report_tables

_TEMPLATES = Path(__file__).parent / "templates"
EXTRAS = (
    "title", "spec", "recipe", "class_names", "versions", "summary", "runs", "failures", "costs",
    "generators", "quality", "domain", "zero_shot", "sheets", "neighbours",
)  # fmt: skip
_COUNT = re.compile(r'<meta name="equigrid-results" content="(\d{1,12})">')
_PICTURE_PX = 1600  # the widest that the report carries


def write_report(
    table: pd.DataFrame, analysis: Analysis, directory: Path | str, *, extras: dict
) -> Path:
    """Write report.html and the figures (PNG, SVG, PDF) into a local directory; the path of
    report.html.

    extras, all optional: title, spec: text. recipe: the name of the grid's own, with which others
    are compared. class_names: by label. versions: name -> version. summary: mapping, what the last
    run did, or None. runs: list of mappings. failures: list of mappings with id, kind, cell, error.
    costs: list of mappings, or a mapping from kind to such a list. generators: list of mappings,
    one per generator: its name, and how it samples. quality: list of mappings, one per pool, see
    `report_tables.quality_rows`. domain: list of mappings, one per domain classifier, see
    `equigrid.analysis.figures.domain`, with `tsne` in some. zero_shot: list of mappings, one per
    trial, see `equigrid.analysis.figures.zero_shot`. sheets: mapping with classes and sets of
    sample images, see `report_figures.sheet_figures`. neighbours: pool -> PNG bytes of its samples
    above their nearest training images.

    A report that is there with more results is kept beside it, see `richer`. Raises ValueError for
    any other key.
    """
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        raise ValueError(f"extras has {unknown}; known are {list(EXTRAS)}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    n_results = int((table["status"] == "ok").sum()) if "status" in table else len(table)
    answers = list(answer_figures(analysis))
    drawn = [
        *report_figures(table, analysis, extras.get("class_names")),
        *measure_figures(analysis, extras),
    ]
    of_paper = list(paper_figures(analysis))

    def entries(found: Iterable[tuple[str, str, Figure, list[dict]]]) -> list[dict]:
        return [_figure_entry(name, words, figure, directory) for name, words, figure, _ in found]

    sheets = [
        *_sheet_entries(extras.get("sheets", {}), directory),
        *_neighbour_entries(extras.get("neighbours", {})),
    ]
    everything = [*(one for one in answers if one), *drawn, *of_paper]
    panels = {name: panels for name, _, _, panels in everything if panels}
    tables = list(report_tables(table, analysis, extras))
    paper = list(paper_tables(analysis))
    sections = [
        ("answer", "The answer"),
        *((t["id"], t["title"]) for t in tables[:1]),
        ("figures", "Figures"),
        *((t["id"], t["title"]) for t in tables[1:]),
    ]
    sections += [("sheets", "Sample images")] * bool(sheets)
    sections += [("paper", "The paper's reading"), ("settings", "Settings and versions")]
    html = _template().render(
        title=extras.get("title") or _title(table),
        results=n_results,
        subtitle=f"{analysis.n_rows:,} result rows, {analysis.n_failed:,} of them failed attempts.",
        css=Markup((_TEMPLATES / "report.css").read_text()),
        sections=sections,
        problems=[*analysis.problems, *pool_warnings(extras.get("quality", []))],
        curves=[
            _curve_entry(curve, entries([one])[0] if one else None)
            for curve, one in zip(analysis.curves, answers)
        ],
        nothing=NOTHING_FITTED,
        first=tables[:1],
        figures=entries(drawn),
        tables=tables[1:],
        sheets=sheets,
        paper={
            "intro": INTRO,
            "curves": [_paper_entry(curve) for curve in analysis.curves],
            "figures": entries(of_paper),
            "tables": paper,
        },
        blocks=_blocks(analysis, extras),
        panels=_script_safe(json.dumps(panels, allow_nan=False)),
        plotly=_packed_plotly() if panels else "",
        script=Markup((_TEMPLATES / "report.js").read_text()),
    )
    _keep_richer(directory, n_results)
    path, aside = directory / "report.html", directory / ".report.html"
    aside.write_text(html.lstrip(), encoding="utf-8")  # the macros leave empty lines first
    return aside.replace(path)


def richer(directory: Path | str, n_results: int) -> Path | None:
    """Where the report in a directory is kept when one of so many results replaces it: None if
    there is none, or if it has no more than that.
    """
    path = Path(directory) / "report.html"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = _COUNT.search(file.read(2000))
    except FileNotFoundError:
        return None
    before = int(found[1]) if found else 1  # of an earlier version: anything is more than nothing
    return path.with_name(f"report-{before}-results.html") if before > n_results else None


def _keep_richer(directory: Path, n_results: int) -> None:
    if kept := richer(directory, n_results):
        (directory / "report.html").replace(kept)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html")


def _title(table: pd.DataFrame) -> str:
    grids = sorted(set(table["grid"].dropna())) if len(table) else []
    return "How many synthetic images is a real one worth? " + (
        ", ".join(grids) or "No results yet"
    )


def _figure_entry(name: str, caption: str, figure: Figure, directory: Path) -> dict:
    png, *_ = save(figure, directory, name)
    return {"id": name, "caption": caption, "uri": _uri("png", _smaller(png))}


def _sheet_entries(sheets: dict, directory: Path) -> Iterable[dict]:
    for name, caption, figure in sheet_figures(sheets):
        png, *_ = save(figure, directory, name)
        yield {"id": name, "caption": caption, "uri": _uri("jpeg", _photograph(png.read_bytes()))}


def _neighbour_entries(neighbours: dict[str, bytes]) -> Iterable[dict]:
    for i, (pool, png) in enumerate(neighbours.items()):
        caption = f"{pool}: samples, each above the training image that it is nearest to."
        yield {"id": f"neighbours-{i}", "caption": caption, "uri": _uri("jpeg", _photograph(png))}


def _photograph(png: bytes) -> bytes:
    """As a JPEG of at most _PICTURE_PX width: photographs take a quarter of the PNG's room."""
    with Image.open(io.BytesIO(png)) as image:
        picture = image.convert("RGB")
    picture.thumbnail((_PICTURE_PX, picture.height))
    buffer = io.BytesIO()
    picture.save(buffer, format="jpeg", quality=85, optimize=True)
    return buffer.getvalue()


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


def _packed_plotly() -> str:
    """plotly's script, gzip and base64: 4.8 MB become 1.9."""
    from plotly.offline import get_plotlyjs  # only a report with panels needs it

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _script_safe(text: str) -> Markup:
    """JSON that cannot end the script element it is written into."""
    return Markup(text.replace("<", "\\u003c"))


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _curve_entry(curve: CurveResult, figure: dict | None) -> dict:
    worth = curve.worth
    entry: dict = {"name": str(curve.key), "status": "undetermined", "bases": [], "figure": figure,
                   "warnings": [], "notes": [], "nothing": ""}  # fmt: skip
    if worth is None or not worth.bases:
        why = "; ".join(worth.reasons) if worth else "there are no synthetic images in the results"
        return {**entry, "nothing": f"Undetermined: {why}. {' '.join(next_steps(worth))}"}
    bases = []
    for base in worth.bases:
        found = verdict(base)
        more = [first_sentence(base, worth.generator),
                extra_sentence(base.extra, base.n_base, worth.generator)]  # fmt: skip
        bases.append({"kind": found.kind, "text": found.text, "next": next_step(worth, base),
                      "exchange": exchange_sentence(base, worth.generator),
                      "more": more})  # fmt: skip
    notes = [
        f"base {base.n_base:,.0f}: {note}"
        for base in worth.bases
        for note in (base.main.notes if base.main else ())
        if note not in worth.notes
    ]
    missing = []
    if curve.missing:
        missing.append(f"{len(curve.missing)} cells are incomplete, first: {curve.missing[0]}")
    return {**entry, "status": worth.status, "bases": bases, "figure": figure,
            "warnings": [*worth.warnings, *missing],
            "notes": unique([*worth.notes, *notes])}  # fmt: skip


def _paper_entry(curve: CurveResult) -> dict:
    return {"name": str(curve.key), "status": curve.status, "sentences": paper_paragraph(curve),
            "notes": curve.notes}  # fmt: skip


def _blocks(analysis: Analysis, extras: dict) -> list[tuple[str, str]]:
    blocks = [("Settings of the analysis", analysis.settings.model_dump_json(indent=2))]
    if extras.get("spec"):
        blocks.append(("Grid specification", extras["spec"]))
    if extras.get("summary"):
        blocks.append(("The last run", json.dumps(extras["summary"], indent=2, default=str)))
    if extras.get("versions"):
        blocks.append(("Versions", json.dumps(extras["versions"], indent=2, default=str)))
    return blocks
