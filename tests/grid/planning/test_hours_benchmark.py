"""benchmarks/hours.py: the paper's CIFAR-10 grid in GPU-hours, by planted figures."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("hours")


@pytest.fixture
def work(script):
    return script.Work(trained=36e6, made=3.6e6, seen=720e6, evaluations=35)


def line(phase: str, what: str, device: str = "NVIDIA X", **facts) -> dict:
    return {"phase": phase, "what": what, "device": device, **facts}


FIGURES = [
    line("edm", "EDM training, float32 eager", training=400.0),
    line("edm", "EDM training, equigrid", training=500.0),
    line("edm", "EDM training, equigrid", training=1_000.0),  # 10 h
    line("edm", "EDM sampling, equigrid", images_per_s=100.0),  # 10 h
    line("classifiers", "graph", images_per_s=25_000.0),
    line("classifiers", "graph of 3 branches", images_per_s=50_000.0),  # 4 h
    line("classifiers", "graph of 8 branches", images_per_s=90_000.0),
    line("classifiers", "graph, float32", images_per_s=99_000.0),
    line("packed", "2 processes of 4 branches", images_per_s=95_000.0),
    line("packed", "4 processes of 1 branches", images_per_s=40_000.0),
    line("trials", "base", images_per_s=99_000.0),
]


def test_hours_are_images_over_what_was_measured(script, work):
    """The newest figure of our own; of trials the fastest way that three seeds can go."""
    assert script.hours(work, FIGURES) == {
        "EDM training": 10.0, "EDM sampling": 10.0, "trials": 4.0, "all": 24.0,
    }  # fmt: skip
    faster = [*FIGURES, line("packed", "4 processes of 3 branches", images_per_s=100_000.0)]
    assert script.hours(work, faster)["trials"] == 2.0
    failed = [*FIGURES, line("edm", "EDM training, equigrid", error="RuntimeError: no")]
    assert script.hours(work, failed)["EDM training"] == 10.0


def test_what_was_not_measured_is_left_empty(script, work):
    found = script.hours(work, [one for one in FIGURES if "sampling" not in one["what"]])
    assert (found["EDM sampling"], found["all"]) == (None, None)
    assert found["trials"] == 4.0
    assert script.hours(work, []) == dict.fromkeys([*script.PARTS, "all"])
    table = script.told(work, script.hours(work, []), "not measured")
    assert "| EDM training | 36.0 million |  | not measured |" in table.splitlines()
    assert "aimed at" not in table
    with pytest.raises(ValueError, match="several devices: NVIDIA X, NVIDIA Y"):
        script.hours(work, [*FIGURES, line("classifiers", "eager", "NVIDIA Y", images_per_s=1.0)])


def test_the_work_is_that_of_the_papers_grid(script):
    """By hand: four EDMs of ten million images or 4,000 passes, the more of both; 250,000 images of
    the largest base's pool. ResNet-110's recipe says how many epochs each mix has.
    """
    found = script.work()
    passes = sum(max(10e6, 4_000 * n) for n in (500, 5_000, 25_000, 50_000))
    assert found.trained == pytest.approx(passes, rel=1e-3)
    made = sum(5 * n for n in (500, 5_000, 25_000, 50_000))
    assert made <= found.made < made + 4 * 4_096
    assert found.evaluations == 35
    assert 1e9 < found.seen < 1e11


def test_the_verdict_is_said_where_all_is_there(script, work):
    found = script.hours(work, FIGURES)
    assert "beyond the 6 GPU-hours" in script.told(work, found, "NVIDIA X")
