"""The notebooks run from their first cell to their last, as a reader runs them, and are kept without
outputs.
"""

import os
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["own_dataset", "quickstart"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            compile(cell.source, path.name, "exec")
            assert cell.outputs == []
            assert cell.execution_count is None
    assert all(len(line) <= 102 for line in path.read_text().splitlines())


def results_of(cell: dict) -> str:
    """What a cell shows beside progress, as plain text."""
    shown = [output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join([*shown, *(o.get("text", "") for o in cell.outputs)])


@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path, monkeypatch):
    """About a minute each on two quiet cores; each starts a Ray of its own."""
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("EQUIGRID_STORE", raising=False)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()  # raises what a cell raises
    cells = {cell.source: results_of(cell) for cell in notebook.cells if cell.cell_type == "code"}
    name = load_name(cells)
    answer = next(text for source, text in cells.items() if "answer = run.answer" in source)
    assert f"at a base of {100 if name == 'quickstart' else 150}" in answer
    report = tmp_path / "equigrid-out" / name / "report.html"
    assert report.stat().st_size > 10_000
    assert report.name in cells["run.report()"]
    (run,) = (cell for cell in notebook.cells if cell.source.startswith("run = eg.run"))
    (shown,) = (o.data["text/html"] for o in run.outputs if o.output_type == "execute_result")
    assert "14 of 14 cells have a result" in shown


def load_name(cells: dict[str, str]) -> str:
    (grid,) = (source for source in cells if "grid = eg.load(" in source)
    return "quickstart" if '"quickstart"' in grid else "mine"
