"""What a notebook shows: small tables in HTML, and one output that changes in place."""

from collections.abc import Iterable
from html import escape
from typing import Any

from equigrid.grid.text import redacted


def table(headers: Iterable[object], rows: Iterable[Iterable[object]], caption: str = "") -> str:
    """An HTML table; every cell is text and is escaped. The first column is words, the others are
    numbers.
    """
    head = "".join(_cell("th", text, column) for column, text in enumerate(headers))
    body = "".join(
        f"<tr>{''.join(_cell('td', text, column) for column, text in enumerate(row))}</tr>"
        for row in rows
    )
    title = f"<caption><b>{escape(caption)}</b></caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(tag: str, text: object, column: int) -> str:
    side = "right" if column else "left"
    return f'<{tag} style="text-align:{side}">{escape(redacted(str(text)))}</{tag}>'


def paragraph(text: object, *, bold: bool = False) -> str:
    """Text as one paragraph, escaped."""
    inner = escape(redacted(str(text)))
    return f"<p><b>{inner}</b></p>" if bold else f"<p>{inner}</p>"


def listed(lines: Iterable[object]) -> str:
    """Lines as a list; nothing where there are none."""
    items = "".join(f"<li>{escape(redacted(str(line)))}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


class Board:
    """One output of the running cell, replaced each time something is shown."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, html: str) -> None:
        """html: what stands there from now on."""
        # IPython is there wherever a notebook asks.
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))
