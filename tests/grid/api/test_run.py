"""A grid through Python with a real Ray of its own: the same table as the driver's."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import equigrid as eg

PAGE = Path(__file__).parents[3] / "docs/python.md"
SCRIPT = """
import json, sys
import equigrid as eg

spec, store, out = sys.argv[1:]
grid = eg.load(spec)
before = eg.plan(grid, store)
run = eg.run(grid, store, dashboard=False)
assert "torch" not in sys.modules, "trainings are in the slots"
import ray
assert not ray.is_initialized(), "its Ray ends with the run"
run.results().to_parquet("results.parquet")
again = eg.run(grid, store)
found = {
    "todo": before.todo, "done": dict(run.summary.jobs), "again": dict(again.summary.jobs),
    "complete": run.complete, "html": run._repr_html_(), "failures": len(run.failures()),
    "answer": run.answer(n_base=60, n_real=60).to_json(), "fit": run.fit().to_json(),
    "report": str(run.report(out)),
    "pool": [list(part.shape) for part in run.pool("edm", n_base=60).arrays()],
}
json.dump(found, open("found.json", "w"))
"""
# What training and measuring say, not when and how fast.
SAME = ["arm", "n_base", "n_real_added", "n_syn", "n_copies", "generator", "seed", "trial_id",
        "top1", "top5", "per_class", "confusion", "loss", "steps", "shards"]  # fmt: skip


def outcomes(frame: pd.DataFrame) -> list:
    """The rows, as JSON so that nested values compare."""
    return json.loads(frame[SAME].to_json(orient="records", double_precision=15))


@pytest.mark.long
def test_a_run_from_python_is_that_of_the_driver(finished_mini, mini, write_spec, start, tmp_path):
    """The driver's own table is what the command line's runs are compared with, too."""
    spec, mine, theirs = write_spec(mini), str(tmp_path / "mine"), finished_mini[0].uri
    arguments = [sys.executable, "-c", SCRIPT, str(spec), mine, str(tmp_path / "out")]
    done = subprocess.run(
        arguments, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())

    frame = pd.read_parquet(tmp_path / "results.parquet")
    assert list(frame.columns) == list(eg.COLUMNS)
    assert len(frame) == 20
    assert frame["top1"].between(5, 100).all()
    assert outcomes(frame) == outcomes(eg.results("mini", theirs))
    slotted = {kind: n for kind, n in found["todo"].items() if kind != "ingest"}
    assert found["done"] == slotted  # what the plan said is what was done
    assert found["again"] == {}
    assert found["complete"]
    assert found["failures"] == 0
    assert "20 of 20 cells have a result" in found["html"]
    assert "trial" in done.stderr  # progress
    assert found["answer"]["amount"]["n_real"] == 60
    assert (tmp_path / "out" / "report.html").is_file()
    assert found["report"] == str(tmp_path / "out" / "report.html")
    assert found["pool"][0][1:] == [8, 8, 1]

    fitted = start("fit", "mini", "--store", mine, "--json")
    assert fitted.finish() == 0, fitted.text
    assert json.loads(fitted.out_path.read_text()) == found["fit"]


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_cells_that_failed_are_told_and_do_not_raise(ray_here, mini, tmp_path, plant):
    plant(
        "import equigrid.classifiers.training.loop as loop\n"
        "def failing(*a, **k):\n    raise ZeroDivisionError('planted')\n"
        "loop.train_together = failing\n"
    )
    mini["blocks"] = [{"n_base": [60], "real": [1]}]
    run = eg.run(mini, tmp_path / "store", quiet=True)
    assert not run.complete
    assert set(run.failures()["error"]) == {"ZeroDivisionError: planted"}
    assert set(run.results()["status"]) == {"failed"}
    assert "planted" in run._repr_html_()


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_a_connection_that_is_there_is_used_and_stays(ray_here, mini, tmp_path, capfd):
    import ray

    mini["blocks"] = [{"n_base": [60]}]
    run = eg.run(mini, tmp_path / "store", quiet=True)
    assert run.complete
    assert ray.is_initialized()
    assert capfd.readouterr().err == ""
    mini["blocks"] = [{"n_base": [60, 120]}]
    with pytest.raises(eg.UserError, match="connected to Ray already"):
        eg.run(mini, tmp_path / "store", address="auto", quiet=True)


@pytest.mark.long
def test_the_first_snippet_of_the_page_runs(finished_mini, mini, write_spec, tmp_path, monkeypatch):
    """In the folder of a grid that has run: that `run` runs one, the test above shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EQUIGRID_STORE", raising=False)
    shutil.copytree(finished_mini[0].uri, "equigrid-store")
    write_spec(mini, "mine.yaml")
    text = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)[0]
    names: dict = {"__name__": "snippet"}
    exec(compile(text, "docs/python.md", "exec"), names)
    assert len(names["frame"]) == 20
    assert names["answer"].generator == "edm"
    assert names["path"] == Path("equigrid-out/mini/report.html")
    assert names["path"].is_file()
    assert names["image"].shape == (8, 8, 1)
    assert len(names["images"]) == len(names["labels"]) == len(names["pool"])


@pytest.mark.long
def test_a_question_is_run_in_rounds(ray_here, mini, tmp_path):
    asked = eg.Question(n_base=60, n_real=60, within=1.5)
    run = eg.run(mini, tmp_path / "store", until=asked, max_gpu_hours=0, quiet=True)
    assert (run.asked.stopped, run.asked.known, run.asked.rounds) == (
        "the budget is spent", False, 1,
    )  # fmt: skip
    assert run.asked.trainings == 18  # each place once, under two subset seeds
    assert run.summary.budget_reached
