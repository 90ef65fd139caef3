"""benchmarks/gpu.py runs whole where there is no GPU, goes on where it ended, and tells what failed."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
PLAIN = ("usual loop", "tuned loop")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("gpu")


def line(phase: str, what: str, **facts) -> dict:
    where = {"device": "NVIDIA X", "date": "2026-01-01", "torch": "2.15"}
    return {"phase": phase, "what": what, **facts, **where}


def test_the_table_has_the_newest_of_each_figure_beside_the_plain_ones(script):
    found = [
        line("plain", "usual loop", images_per_s=1_000.0),
        line("classifiers", "graph", error="RuntimeError: no"),
        line("classifiers", "graph", images_per_s=5_000.0),
        line("classifiers", "graph", images_per_s=7_500.0),
        line("packed", "2 processes of 1 branches", skipped="3 s left, 50 s wanted"),
        line("edm", "EDM training, float32 eager", training=10.0, at_once=64),
        line("edm", "EDM training, equigrid", training=25.0, at_once=512),
        line("edm", "EDM sampling, float32 eager", images_per_s=4.0),
        line("edm", "EDM sampling, equigrid", images_per_s=20.0),
        line("trials", "base", top1=[50.0, 52.0], images_per_s=1.0, images_are="real"),
    ]
    table = script.table(found).splitlines()
    where = "NVIDIA X, 2026-01-01, 2.15"
    assert f"| classifiers | graph | 7500 images/s | 7.50 | {where} |" in table
    assert f"| edm | EDM training, equigrid | 25 images/s, 512 at once | 2.50 | {where} |" in table
    assert f"| edm | EDM sampling, equigrid | 20 images/s | 5.00 | {where} |" in table
    assert f"| trials | base | top-1 51.00 ± 1.41 of 2 (real images) |  | {where} |" in table
    assert "| packed | 2 processes of 1 branches | 3 s left, 50 s wanted | | |" in table
    assert sum("| graph |" in row for row in table) == 1


def test_a_figure_is_written_at_once_taken_once_and_tried_again_where_it_failed(script, tmp_path):
    figures = script.Figures(tmp_path, "classifiers", 60.0, "cpu")
    calls = []

    def fails():
        calls.append("fails")
        raise RuntimeError("no kernel\nand more")

    def works():
        calls.append("works")
        assert [one["what"] for one in script.lines(tmp_path)] == ["a"]  # it stands there already
        return {"images_per_s": 1.0}

    figures.take("a", fails)
    figures.take("b", works)
    figures.take("b", works)
    figures.take("a", fails)
    figures.take("c", works, least_s=1e6)
    assert calls == ["fails", "works", "fails"]
    a, b, *_, c = script.lines(tmp_path)
    assert a["error"] == "RuntimeError: no kernel"
    assert b["images_per_s"] == 1.0
    assert {"device", "date", "torch"} <= b.keys()
    assert "skipped" in c


@pytest.mark.parametrize(
    ("code", "error"),
    [("sys.exit(3)", "exit status 3"), ("time.sleep(60)", "ended after its time")],
)
def test_a_phase_that_crashes_or_hangs_is_told_and_ended(
    script, tmp_path, monkeypatch, code, error
):
    broken = tmp_path / "broken.py"
    broken.write_text(f"import sys, time\n{code}\n")
    monkeypatch.setattr(script, "__file__", str(broken))
    monkeypatch.setattr(script, "GRACE_S", 0.5)
    script.run_phase("edm", 1.0, script.SimpleNamespace(out=tmp_path, passed_on=[]))
    (told,) = script.lines(tmp_path)
    assert (told["phase"], told["error"]) == ("edm", error)


def test_the_first_phases_need_neither_ray_nor_pydantic(tmp_path):
    hidden = "pydantic", "ray", "medmnist", "diffusers"
    code = (
        "import sys\n"
        f"for name in {hidden!r}: sys.modules[name] = None\n"
        "import gpu\n"
        "gpu.missing = lambda needs: [n for n in needs if sys.modules.get(n, 0) is None]\n"
        "gpu.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{FOLDER}", "OMP_NUM_THREADS": "1"}
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--tiny", "--phase"]
    for phase in ("machine", "classifiers"):
        command = [sys.executable, "-c", code, *arguments, phase]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    *machine, classifiers = [json.loads(x) for x in (tmp_path / "figures.jsonl").open()]
    assert len(machine) == 3
    assert not any("error" in one for one in machine)
    assert classifiers["skipped"] == "needs pydantic"
    probe = "import sys; sys.modules['pydantic'] = None; import plain_loops"
    subprocess.run([sys.executable, "-c", probe], env=environment, check=True)


@pytest.mark.slow
def test_it_runs_whole_on_a_cpu_and_goes_on(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / "gpu.py"), "--out", str(tmp_path), "--device", "cpu"]
    command += ["--tiny", "--minutes", "8"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = [json.loads(x) for x in (tmp_path / "figures.jsonl").open()]
    assert not [one for one in found if "error" in one or "skipped" in one], done.stderr[-2000:]
    phases = dict.fromkeys(one["phase"] for one in found)
    assert list(phases) == [
        "machine", "plain", "tests", "classifiers", "packed", "edm", "generator", "pool", "trials",
        "dit",
    ]  # fmt: skip
    assert {one["what"] for one in found if one["phase"] == "trials"} == {
        "base", "base + synthetic", "base + real", "base + copies",
    }  # fmt: skip
    assert "| trials | base + synthetic | top-1 " in done.stdout
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    again = subprocess.run(
        [*command, "--only", "machine", "classifiers", "trials"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len((tmp_path / "figures.jsonl").read_text().splitlines()) == len(found), again.stdout
