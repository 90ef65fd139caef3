"""benchmarks/gpu.py runs whole where there is no GPU, goes on where it ended, and tells what failed."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks"
PLAIN = ("usual loop", "tuned loop")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("gpu")


@pytest.fixture
def hours(script):
    return importlib.import_module("hours")


def line(phase: str, what: str, **facts) -> dict:
    where = {"device": "NVIDIA X", "date": "2026-01-01", "torch": "2.15"}
    return {"phase": phase, "what": what, **facts, **where}


def test_the_table_has_the_newest_of_each_figure_beside_the_plain_ones(script):
    found = [
        line("edm", "phase", skipped="needs pydantic"),
        line("classifiers", "process", error="ended after its time"),
        line("plain", "usual loop", images_per_s=1_000.0),
        line("classifiers", "graph", error="RuntimeError: no"),
        line("classifiers", "graph", images_per_s=5_000.0),
        line("classifiers", "graph", images_per_s=7_500.0),
        line("packed", "2 processes of 1 branches", skipped="3 s left, 50 s wanted"),
        {**line("classifiers", "eager", images_per_s=900.0), "device": "NVIDIA Y"},
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
    # Another device's plain loop is none of its own.
    assert "| classifiers | eager | 900 images/s |  | NVIDIA Y, 2026-01-01, 2.15 |" in table
    assert sum("| graph |" in row for row in table) == 1
    # Both phases went on.
    assert not any("| phase |" in row or "| process |" in row for row in table[1:])
    again = [*found, line("classifiers", "process", error="exit status 1")]
    assert "| classifiers | process | exit status 1 | | |" in script.table(again)


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
    ("code", "error", "seconds"),
    [("sys.exit(3)", "exit status 3", 60.0), ("time.sleep(60)", "ended after its time", 0.5)],
)
def test_a_phase_that_crashes_or_hangs_is_told_and_ended(
    script, tmp_path, monkeypatch, code, error, seconds
):
    broken = tmp_path / "broken.py"
    broken.write_text(f"import sys, time\n{code}\n")
    monkeypatch.setattr(script, "__file__", str(broken))
    monkeypatch.setattr(script, "GRACE_S", 0.5)
    script.run_phase("edm", seconds, script.SimpleNamespace(out=tmp_path, passed_on=[]))
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
    for phase in ("machine", "plain", "classifiers"):
        command = [sys.executable, "-c", code, *arguments, phase]
        subprocess.run(command, env=environment, check=True, capture_output=True)
    *first, classifiers = [json.loads(x) for x in (tmp_path / "figures.jsonl").open()]
    assert [one["what"] for one in first[3:]] == list(PLAIN)
    assert len(first) == 5
    assert not any("error" in one for one in first)
    assert all(one["images_per_s"] > 0 for one in first[3:])
    assert classifiers["skipped"] == "needs pydantic"


def test_plain_loops_are_timed_without_their_start_and_end(script, tmp_path, monkeypatch):
    """A cold start, and processes that take their time to end, cost several epochs."""
    plain_loops = importlib.import_module("plain_loops")
    images, now = script.TINY.images, [0.0]
    monkeypatch.setattr(script.time, "perf_counter", lambda: now[0])

    def loop(task, seed):
        now[0] += 20.0
        for epoch in range(task.epochs):
            task.recipe.lr_at(epoch, images)
            now[0] += 9.0 if epoch == 0 else 2.0
        now[0] += 30.0

    for name in ("usual_loop", "tuned_loop"):
        monkeypatch.setattr(plain_loops, name, loop)
    given = script.SimpleNamespace(size=script.TINY, device="cpu", scale=0.0)
    script.plain(script.Figures(tmp_path, "plain", 1e9, "cpu"), given)
    assert [one["images_per_s"] for one in script.lines(tmp_path)] == [images / 2] * 2


def test_plain_loops_ask_for_each_epochs_rate_once_at_its_beginning(script):
    """What their timing hangs on."""
    plain_loops = importlib.import_module("plain_loops")
    rng = np.random.default_rng(0)
    for loop in (plain_loops.usual_loop, plain_loops.tuned_loop):
        asked = []
        recipe = script.SimpleNamespace(
            batch=4, augmentation=script.SimpleNamespace(crop_padding_px=1, flip=True), lr=0.1,
            momentum=0.9, weight_decay=0.0, steps_per_epoch=lambda n: 2,
            lr_at=lambda step, n, asked=asked: asked.append(step) or 0.1,
        )  # fmt: skip
        task = script.SimpleNamespace(
            images=rng.integers(0, 256, (8, 8, 8, 1), dtype=np.uint8), labels=np.arange(8) % 2,
            classes=2, model="digits-cnn", recipe=recipe, device=torch.device("cpu"), epochs=3,
        )  # fmt: skip
        loop(task, seed=0)
        assert asked == [0, 2, 4]


def test_a_line_that_was_torn_is_left_out_and_the_next_one_is_whole(script, tmp_path):
    file = tmp_path / "figures.jsonl"
    file.write_text(json.dumps(line("plain", "usual loop", images_per_s=1.0)) + '\n{"phase": "pl')
    script.append(tmp_path, line("plain", "tuned loop", images_per_s=2.0))
    assert [one["what"] for one in script.lines(tmp_path)] == list(PLAIN)


def test_figures_of_another_device_or_of_a_trial_run_do_not_count(script, tmp_path, monkeypatch):
    script.append(tmp_path, line("classifiers", "graph", images_per_s=1.0))
    assert script.is_there(tmp_path, "classifiers", "graph", "NVIDIA X")
    assert not script.is_there(tmp_path, "classifiers", "graph", "CPU")
    figures = script.Figures(tmp_path, "classifiers", 60.0, "cpu", tiny=True)
    figures.take("graph", lambda: {"images_per_s": 3.0})
    assert [one["images_per_s"] for one in script.lines(tmp_path)] == [1.0, 3.0]
    assert "3 images/s |  | CPU, " in script.table(script.lines(tmp_path))
    assert "tiny: means nothing" in script.table(script.lines(tmp_path))
    for more in ([], ["--tiny"]):  # a folder has figures of one kind
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path), *more])
        with pytest.raises(SystemExit):
            script.arguments()


def test_each_phase_has_time_to_start_and_the_last_one_all_that_is_left(script, monkeypatch):
    now, had = [0.0], {}

    def run_phase(name, seconds, given):
        had[name] = seconds
        now[0] += 10.0

    monkeypatch.setattr(script.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(script, "run_phase", run_phase)
    script.run_all(script.SimpleNamespace(minutes=9.0, only=None))
    assert list(had) == list(script.PHASES)
    assert min(had.values()) >= script.START_S
    assert had["dit"] == 60 * 9.0 - script.GRACE_S - 10.0 * (len(had) - 1)
    had.clear()
    now[0] = 0.0
    script.run_all(script.SimpleNamespace(minutes=0.5, only=None))
    assert had == {"machine": 22.0, "plain": 12.0, "tests": 2.0}


@pytest.mark.parametrize(
    ("said", "status", "verdict"),
    [
        ("...\n==== 7 passed in 3.21s ====\n", 0, "7 passed in 3.21s"),
        ("..s\n6 passed, 1 skipped, 3 deselected in 3.21s\n", 0,
         "6 passed, 1 skipped, 3 deselected in 3.21s"),
        ("s\n1 skipped in 0.1s\n", 0, None),  # nothing was shown
        ("no tests ran in 0.1s\n", 5, None),
        ("F\n1 failed, 6 passed in 2.0s\n", 1, None),
        ("", 4, None),
    ],
)  # fmt: skip
def test_tests_count_where_some_ran_and_none_failed(script, said, status, verdict):
    if verdict:
        assert script.verdict(said, status) == verdict
    else:
        with pytest.raises(RuntimeError, match=f"exit status {status}"):
            script.verdict(said, status)


def test_float32_is_without_tf32_where_generators_are_compared(script, tmp_path, monkeypatch):
    """PyTorch has it in convolutions, and the plain code would not be what edm.py compares with."""
    edm, seen = importlib.import_module("edm"), []

    def rate(*_):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return 1.0

    monkeypatch.setattr(edm, "rate", rate)
    monkeypatch.setattr(edm, "training_rate", lambda *given: {"training": rate(*given)})
    given = script.SimpleNamespace(device="cpu", on_gpu=False, scale=0.0)
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = True
    try:
        script.edm(script.Figures(tmp_path, "edm", 1e9, "cpu"), given)
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before
    assert seen == [(False, False)] * 6


# CIFAR-10's grid in GPU-hours ---------------------------------------------------------------------


def test_the_grids_work_is_that_of_the_papers_tables(hours):
    """Counted by hand from Tables 9 to 11: each base with what is added, in multiples of it."""
    added = {  # base: (epochs, real, EDM's, CIFAKE's)
        500: (480, (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5)),
        5_000: (320, (1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, 4, 5)),
        25_000: (160, (0.4, 0.8, 1), (1, 2, 3, 4, 5), (0.4, 0.8, 1, 2)),
        50_000: (160, (), (1, 2, 3, 4, 5), (0.4, 0.8, 1)),
    }
    seen, cells = 0.0, 0
    for base, (epochs, *arms) in added.items():
        amounts = [0, *(times for arm in arms for times in arm)]
        seen += sum(base * (1 + times) * epochs for times in amounts)
        cells += len(amounts)
    seen, cells = seen - 50_000 * 160, cells - 1  # 25,000 and as many real ones is all of the set
    wanted = hours.work()
    assert wanted.seen == pytest.approx(3 * (seen + cells * 10_000 / 3))
    # Each training ends with a whole batch, each pool with a whole shard.
    trained, used = 10e6 + 4_000 * (5_000 + 25_000 + 50_000), 5 * sum(added)
    assert trained <= wanted.trained < trained + 4 * 512
    assert used <= wanted.made < used + 4 * 4_096
    assert wanted.evaluations == 2 * 18 - 1


def test_the_measured_network_is_the_grids(hours):
    """Or its images a second would say nothing of the grid."""
    from equigrid.generators.registry import config

    measured, grids = (
        config({"kind": "edm", "preset": name}) for name in ("cifar10", "cifar10-bases")
    )
    assert grids.network == measured.network
    assert grids.sampler == measured.sampler
    assert grids.training.batch == measured.training.batch
    assert grids.training.augmentation == measured.training.augmentation


def test_hours_are_images_over_images_a_second(hours):
    wanted = hours.Work(trained=7.2e6, made=3.6e6, seen=36e6, evaluations=35)
    training = line("edm", "EDM training, equigrid", training=1_000.0, at_once=512)
    sampling = line("edm", "EDM sampling, equigrid", images_per_s=500.0)
    trials = [
        line("classifiers", "graph", images_per_s=5_000.0),
        line("classifiers", "graph of 3 branches", images_per_s=10_000.0),
        line("classifiers", "graph of 8 branches", images_per_s=40_000.0),  # a cell has 3 seeds
        line("packed", "2 processes of 1 branches", images_per_s=9_000.0),
        line("packed", "2 processes of 4 branches", images_per_s=50_000.0),
        line("plain", "tuned loop", images_per_s=90_000.0),
        line("classifiers", "graph, 500 images: a partial batch in each epoch", images_per_s=9e4),
        line("classifiers", "graph of 2 branches", error="no"),
        {**line("classifiers", "eager", images_per_s=9e4), "tiny": True},
    ]
    found = hours.hours(wanted, [training, sampling, *trials])
    # 7.2 million by 1,000 a second, 3.6 by 500, 36 by 10,000
    assert found == {"EDM training": 2.0, "EDM sampling": 2.0, "trials": 1.0, "all": 5.0}
    told = hours.told(wanted, found, "NVIDIA X")
    assert "| EDM training | 7.2 million | 2.0 | NVIDIA X |" in told
    assert told.endswith("within the 6 GPU-hours that were aimed at")
    later = line("edm", "EDM training, equigrid", training=500.0, at_once=512)
    found = hours.hours(wanted, [training, sampling, *trials, later])
    assert found["all"] == 7.0
    assert "beyond the 6 GPU-hours" in hours.told(wanted, found, "NVIDIA X")
    missing = hours.hours(wanted, [training, *trials])
    assert missing == {"EDM training": 2.0, "EDM sampling": None, "trials": 1.0, "all": None}
    assert "aimed at" not in hours.told(wanted, missing, "NVIDIA X")
    with pytest.raises(ValueError, match="several devices: NVIDIA X, NVIDIA Y"):
        hours.hours(wanted, [training, {**sampling, "device": "NVIDIA Y"}])


# Kernels ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "nests"),
    [
        (lambda x: (x.sin() + 1).cos() * 2, 1),
        (lambda x: x / x.sum(), 2),  # all of it is read before the first is divided
    ],
)
def test_what_inductor_fuses_is_counted_where_it_would_run(script, work, nests):
    kernels = importlib.import_module("kernels")
    x = torch.zeros(64, 64)
    made = kernels.fused(lambda: lambda: torch.compile(work)(x))
    assert (made.launches, made.nests) == (1, nests)


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
