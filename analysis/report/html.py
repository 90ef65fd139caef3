"""The report: one HTML file that opens from disk without a network, and the figures beside it."""

import base64
import errno
import gzip
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup
from PIL import Image

from equigrid.analysis.conclusions.equivalence import Analysis, CurveResult
from equigrid.analysis.figures.accuracy import save
from equigrid.analysis.figures.style import named
from equigrid.analysis.report.figures import (
    measure_figures,
    paper_figures,
    report_figures,
    sheet_figures,
)
from equigrid.analysis.report.first_screen import figure_entry, first_screen, uri
from equigrid.analysis.report.paper_reading import INTRO, paper_paragraph
from equigrid.analysis.report.tables import paper_tables, report_tables

_TEMPLATES = Path(__file__).parent / "templates"
EXTRAS = (
    "title", "spec", "recipe", "class_names", "versions", "runs", "failures", "costs", "spending",
    "generators", "quality", "domain", "zero_shot", "sheets", "neighbours",
    "warnings",
)  # fmt: skip
_COUNT = re.compile(r'<meta name="equigrid-(results|pictures|measures)" content="(\d{1,12})">')
_PICTURE_PX = 1600  # the widest that the report carries


class Holds(NamedTuple):
    """How much a report tells: results; pictures of images; measures of pools and of tests beside
    the grid's own.
    """

    results: int
    pictures: int = 0
    measures: int = 0


def write_report(
    table: pd.DataFrame,
    analysis: Analysis,
    directory: Path | str,
    *,
    extras: dict,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write report.html and the figures (PNG, SVG, PDF) into a local directory; the path of
    report.html.

    extras, all optional: title, spec: text. recipe: the name of the grid's own, with which others
    are compared. class_names: by label. versions: name -> version. runs: list of mappings.
    failures: list of mappings with id, kind, cell, error. costs: list of mappings, or a mapping
    from kind to such a list. spending: the fields of
    `equigrid.analysis.answer.next_steps.Spending` that are known. generators: list of mappings,
    one per generator: its name, and how it samples. quality: list of mappings, one per pool, see
    `report_tables.quality_rows`. domain: list of mappings, one per domain classifier, see
    `equigrid.analysis.figures.domain`, with `tsne` in some. zero_shot: list of mappings, one per
    trial, see `equigrid.analysis.figures.zero_shot`. sheets: mapping with classes and sets of
    sample images, see `report_figures.sheet_figures`. neighbours: pool -> PNG bytes of its samples
    above their nearest training images. warnings: lines of text.

    A report that is there with more of anything is kept in a folder beside it, with its figures,
    and `tell` gets a line on that. Raises ValueError for any other key; OSError, and then what was
    there is as it was.
    """
    unknown = sorted(set(extras) - set(EXTRAS))
    if unknown:
        raise ValueError(f"extras has {unknown}; known are {list(EXTRAS)}")
    directory = Path(directory)
    aside = directory / f".report-{secrets.token_hex(4)}"
    try:
        aside.mkdir(parents=True)
        holds = _write(table, analysis, aside, extras)
        if kept := _richer(directory, holds):
            place, why = kept
            _move(aside, directory, place)
            tell(f"the report that was there has more {why}: it is kept in {place}")
        else:
            _move(aside, directory, None)
    except OSError as error:
        told = str(error.filename or directory).replace(str(aside), str(directory))
        raise OSError(error.errno, error.strerror, told) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return directory / "report.html"


def _move(aside: Path, directory: Path, kept: Path | None) -> None:
    """All files from `aside` to a directory, the report last; those in whose place they come to
    `kept`, if they are.
    """
    files = sorted(aside.iterdir(), key=lambda path: path.name == "report.html")
    for path in files:
        if (place := directory / path.name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(place))
    if kept:
        kept.mkdir()
        for path in reversed(files):  # figures without a report say less than a report without them
            if (before := directory / path.name).is_file():
                before.replace(kept / path.name)
    for path in files:
        path.replace(directory / path.name)


def _write(table: pd.DataFrame, analysis: Analysis, directory: Path, extras: dict) -> Holds:
    """Figures and report.html, into an empty directory; how much the report tells."""
    n_results = int((table["status"] == "ok").sum()) if "status" in table else len(table)
    screen = first_screen(analysis, extras, directory)
    panels = dict(screen.panels)

    def entries(found: Iterable[tuple]) -> list[dict]:
        shown = []
        for name, words, figure, own in found:
            if entry := figure_entry(name, words, figure, directory):
                shown.append(entry)
                panels.update({name: own} if own else {})
        return shown

    drawn = entries(report_figures(table, analysis, extras.get("class_names")))
    drawn += entries(measure_figures(analysis, extras))
    of_paper = entries(paper_figures(analysis))
    sheets = list(_sheets(extras, directory))
    tables = list(report_tables(table, analysis, extras))
    measures = sum(len(extras.get(name, ())) for name in ("quality", "domain", "zero_shot"))
    holds = Holds(n_results, len(sheets), measures)
    sections = [("answer", "The answer")]
    sections += [("ask", "Your own question")] * bool(screen.asks)
    sections += [("figures", "Figures")] * bool(drawn) + [("sheets", "Sample images")] * bool(
        sheets
    )
    sections += [("failures", "Failures")] * bool(extras.get("failures"))
    sections += [("details", "Details"), ("paper", "The paper's reading")]
    html = template("report.html").render(
        title=extras.get("title") or _title(table),
        holds=holds,
        subtitle=f"{analysis.n_rows:,} result rows, {analysis.n_failed:,} of them failed attempts.",
        css=stylesheet(),
        sections=sections,
        screen=screen,
        first=tables[:1],
        figures=drawn,
        tables=tables[1:],
        sheets=sheets,
        paper={
            "intro": INTRO,
            "curves": [_paper_entry(curve) for curve in analysis.curves],
            "figures": of_paper,
            "tables": list(paper_tables(analysis)),
        },
        blocks=_blocks(analysis, extras),
        panels=script_safe(panels),
        amounts=script_safe(screen.table),
        plotly=packed_plotly() if panels else "",
        script=script("ask.js", "report.js", "start.js"),
    )
    path = directory / "report.html"
    try:
        path.write_text(html.lstrip(), encoding="utf-8")  # the macros leave empty lines first
    except OSError as error:
        raise named(error, path) from error
    return holds


def _richer(directory: Path, holds: Holds) -> tuple[Path, str] | None:
    """The folder in which the report in a directory is kept where one that holds so much takes its
    place, and of what it has more; None if there is none, or if it has no more of anything.
    """
    path = directory / "report.html"
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = {name: int(number) for name, number in _COUNT.findall(file.read(2000))}
    except FileNotFoundError:
        return None
    # Of an earlier version: anything is more than nothing.
    before = Holds(**{"results": 1, **found})
    more = [name for name, own in holds._asdict().items() if getattr(before, name) > own]
    if not more:
        return None
    name, number = f"report-{before.results}-results", 2
    kept = directory / name
    while kept.exists():
        kept, number = directory / f"{name}-{number}", number + 1
    return kept, more[0]


def template(name: str) -> jinja2.Template:
    """One of the page's; whatever it is given is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def stylesheet() -> Markup:
    """Of every page."""
    return Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8"))


def script(*names: str) -> Markup:
    """Our own scripts, one after the other."""
    return Markup("\n".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in names))


def _title(table: pd.DataFrame) -> str:
    grids = sorted(set(table["grid"].dropna())) if len(table) else []
    return "How many synthetic images is a real one worth? " + (
        ", ".join(grids) or "No results yet"
    )


def _sheets(extras: dict, directory: Path) -> Iterable[dict]:
    """Of each generator its samples, and beside them those that lie nearest to training images."""
    pools = {row["pool"]: row.get("generator") for row in extras.get("quality", [])}
    left = dict(extras.get("neighbours", {}))
    for name, caption, figure, generator in sheet_figures(extras.get("sheets", {})):
        png, *_ = save(figure, directory, name)
        picture = uri("jpeg", _photograph(png.read_bytes()))
        yield {"id": name, "caption": caption, "uri": picture}
        for pool in [pool for pool in left if generator and pools.get(pool) == generator]:
            yield _neighbours(pool, left.pop(pool), list(extras["neighbours"]).index(pool))
    for i, (pool, png_bytes) in enumerate(extras.get("neighbours", {}).items()):
        if pool in left:
            yield _neighbours(pool, png_bytes, i)


def _neighbours(pool: str, png: bytes, number: int) -> dict:
    caption = f"{pool}: samples, each above the training image that it is nearest to."
    return {"id": f"neighbours-{number}", "caption": caption,
            "uri": uri("jpeg", _photograph(png))}  # fmt: skip


def _photograph(png: bytes) -> bytes:
    """As a JPEG of at most _PICTURE_PX width: photographs take a quarter of the PNG's room."""
    with Image.open(io.BytesIO(png)) as image:
        picture = image.convert("RGB")
    picture.thumbnail((_PICTURE_PX, picture.height))
    buffer = io.BytesIO()
    picture.save(buffer, format="jpeg", quality=85, optimize=True)
    return buffer.getvalue()


@cache
def packed_plotly() -> str:
    """plotly's script, gzip and base64: 4.8 MB become 1.9."""
    from plotly.offline import get_plotlyjs  # only a report with panels needs it

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def script_safe(content: object) -> Markup:
    """JSON that cannot end the script element it is written into."""
    return Markup(json.dumps(content, allow_nan=False).replace("<", "\\u003c"))


def _paper_entry(curve: CurveResult) -> dict:
    return {"name": str(curve.key), "status": curve.status, "sentences": paper_paragraph(curve),
            "notes": curve.notes}  # fmt: skip


def _blocks(analysis: Analysis, extras: dict) -> list[tuple[str, str]]:
    blocks = [("Settings of the analysis", analysis.settings.model_dump_json(indent=2))]
    if extras.get("spec"):
        blocks.append(("Grid specification", extras["spec"]))
    if extras.get("versions"):
        blocks.append(("Versions", json.dumps(extras["versions"], indent=2, default=str)))
    return blocks
