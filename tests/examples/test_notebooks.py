"""The notebooks run from their first cell to their last, in a fresh folder, and end in an answer."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

# What is trained less than the site's visitors see: each cell runs all the same.
SHORTER = {
    "quickstart.ipynb": {
        '"recipe": "digits"': '"recipe": {"extends": "digits", "steps": 40}',
        '"kind": "edm", "preset": "digits"': '"kind": "edm", "preset": "digits", "training": {"total_nimg": 3200}',
        '"gpus": 0': '"gpus": 0, "slots": 1',
    },
    "own_dataset.ipynb": {
        "grid = eg.load(mine)": """
mine["recipe"] = {"extends": "digits", "steps": 40}
mine["execution"] = {**mine.get("execution", {}), "slots": 1}
mine["generators"]["edm"]["training"] = {"total_nimg": 3200}
grid = eg.load(mine)"""
    },
}
FOLDER = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def executed(name: str, folder: Path) -> NotebookNode:
    """The notebook with the outputs of a run of shorter trainings; raises what a cell raises."""
    book = nbformat.read(FOLDER / name, as_version=4)
    for whole, less in SHORTER[name].items():
        (cell,) = (cell for cell in book.cells if whole in cell.source)
        cell.source = cell.source.replace(whole, less)
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(book, timeout=900, kernel_name="python3", resources=where).execute()
    return book


def shown(book: NotebookNode, source: str, kind: str = "text/html") -> str:
    """What the first cell whose source holds these words shows."""
    cell = next(cell for cell in book.cells if cell.cell_type == "code" and source in cell.source)
    return "".join(out["data"].get(kind, "") for out in cell.outputs if "data" in out)


def warnings_of(book: NotebookNode) -> str:
    return "".join(
        out["text"]
        for cell in book.cells
        for out in cell.get("outputs", ())
        if out.output_type == "stream" and out.name == "stderr"
    )


def test_both_are_there():
    assert NOTEBOOKS == ["own_dataset.ipynb", "quickstart.ipynb"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_valid_and_holds_no_path_of_a_machine(name):
    book = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(book)
    text = nbformat.writes(book)
    assert not re.search(r"/(?:home|root|tmp|work|Users|opt)/", text)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_the_outputs_of_one_run_which_the_site_shows(name):
    """From its first cell to its last; and no warning, nor a line of progress by itself."""
    assert (FOLDER / name).stat().st_size < 400_000
    book = nbformat.read(FOLDER / name, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert not warnings_of(book)
    assert all(out.output_type != "error" for cell in code for out in cell.outputs)


@pytest.mark.long
def test_the_quickstart_ends_in_an_answer_and_a_report(tmp_path):
    book = executed("quickstart.ipynb", tmp_path)
    # Which answer it is, trainings so short do not settle.
    answer = re.sub("<[^>]+>", " ", shown(book, "n_real=30)"))
    assert re.search(
        r"at a base of 30\b.*\bopen\b|\bopen\b.*30 more real.* at a base of 30\b", answer
    )
    assert "real images" in shown(book, "cost_real=0.05")
    assert shown(book, "plt.plot", "image/png") and shown(book, "imshow", "image/png")
    page = tmp_path / "equigrid-out" / "quickstart" / "report.html"
    assert "at a base of 30" in page.read_text()
    assert not warnings_of(book)


@pytest.mark.long
def test_ones_own_images_end_in_a_decision(tmp_path):
    book = executed("own_dataset.ipynb", tmp_path)
    assert "patient" in shown(book, "eg.init")  # the pattern of the group is written
    assert "real images" in shown(book, "cost_real=0.50")
    decision = shown(book, "answer.kind", "text/plain")
    assert re.match(r"'(Generate|Label more|Not known yet)", decision)
    assert (tmp_path / "equigrid-out" / "photos" / "report.html").is_file()
    assert not warnings_of(book)
