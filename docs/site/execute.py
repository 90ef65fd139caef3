"""Runs the notebooks, each in a new folder, and keeps their outputs in them: after a change of a
notebook, or of what it shows.

    python docs/site/execute.py [NAME.ipynb …]

The folder of the run is left out of what is kept: paths are relative to it.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "examples"


def execute(path: Path) -> None:
    """Runs a notebook from its first cell to its last, and writes it with the outputs. Raises what
    a cell raises.
    """
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(
            book, timeout=3_600, kernel_name="python3", resources=where, record_timing=False
        ).execute()
    path.write_text(nbformat.writes(book).replace(f"{folder}/", "") + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.name for path in FOLDER.glob("*.ipynb")):
        execute(FOLDER / name)
