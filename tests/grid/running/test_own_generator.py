"""A generator of the user's own in whole grids, on Ray's workers."""

import runpy
import sys
from pathlib import Path

import pytest

import equigrid as eg

EXAMPLE = Path(__file__).parents[3] / "examples/own_generator.py"


@pytest.mark.long
def test_the_example_runs_to_its_answer(ray_here, tmp_path):
    """All but its last lines, which ask for whatever GPUs there are."""
    grid, store = runpy.run_path(str(EXAMPLE))["GRID"], tmp_path / "store"
    run = eg.run(grid, store, gpus=0, slots=1, quiet=True)
    assert run.complete
    assert "100 more real images at a base of 100" in str(run.answer(n_base=100, n_real=100))
    assert run.report(tmp_path / "out").is_file()
    assert "own_generator" not in sys.modules, "the workers import it, not the driver"
    # Its images are the classes': a nearest neighbour among real digits says so.
    images, labels = run.pool("pca", subset_seed=0).arrays()
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    digits = load_digits()
    knn = KNeighborsClassifier(1).fit(digits.data, digits.target)
    pixels = images.reshape(len(images), -1) / 255 * 16
    assert knn.score(pixels, labels) > 0.8
    # The same grid from another folder is done already, and an edit of the module is not.
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / EXAMPLE.name).write_text(EXAMPLE.read_text())
    grid["generators"]["pca"]["path"] = str(moved)
    assert not any(eg.plan(grid, store).todo.values())
    (moved / EXAMPLE.name).write_text(EXAMPLE.read_text() + "# edited\n")
    todo = eg.plan(grid, store).todo
    assert todo["generator"] == 2
    assert todo["trial"] == 8  # the synthetic ones alone


@pytest.mark.long
def test_a_failure_keeps_the_users_own_traceback(ray_here, tmp_path):
    (tmp_path / "own_broken.py").write_text("def sample(label, seed):\n    return {}[label]\n")
    own = {"kind": "python", "module": "own_broken", "path": str(tmp_path), "setting": "open"}
    grid = {
        "name": "broken", "dataset": "digits", "classifiers": ["digits-cnn"], "quality": "off",
        "recipe": {"extends": "digits", "steps": 2}, "generators": {"own": own}, "seeds": [0],
        "blocks": [{"n_base": 20, "syn": {"own": 1}}], "execution": {"gpus": 0},
    }  # fmt: skip
    run = eg.run(grid, tmp_path / "store", slots=1, quiet=True)
    assert not run.complete
    failures = run.failures().set_index("kind")
    error, traceback = failures.loc["shard", ["error", "traceback"]]
    assert "module own_broken: sample(label=" in error
    assert "KeyError" in error
    assert f'{tmp_path / "own_broken.py"}", line 2, in sample' in traceback
    assert len(run.results()) == 1  # the base trained
