"""The page that watches a grid: the report's first screen, fitted anew as rows land, below how far
the grid is. What serves it, and knows the grid, is the caller's.
"""

import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equigrid.analysis.conclusions.equivalence import Analysis
from equigrid.analysis.report.first_screen import first_screen
from equigrid.analysis.report.html import packed_plotly, script, stylesheet, template


def live_page(title: str, store: str) -> tuple[str, str]:
    """The page, and the policy that it must be served with: nothing runs in it but its own
    script, which its nonce names.
    """
    nonce = secrets.token_urlsafe(16)
    html = template("live.html").render(
        title=title,
        store=store,
        nonce=nonce,
        css=stylesheet(),
        plotly=packed_plotly(),
        script=script("ask.js", "report.js", "live.js"),
    )
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; "
        "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return html, policy


def live_answer(analysis: Analysis, extras: Mapping[str, Any]) -> dict:
    """What the page shows in place of its answer: `html`, `panels` and `table`."""
    with tempfile.TemporaryDirectory(prefix="equigrid-watch-") as folder:
        screen = first_screen(analysis, extras, Path(folder), ("png",))
    html = template("first_screen.html").render(screen=screen)
    return {"html": html, "panels": screen.panels, "table": screen.table}
