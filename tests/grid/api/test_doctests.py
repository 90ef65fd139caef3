"""The examples in the docstrings of what `import equigrid` gives: each name has one, and it runs."""

import doctest
import inspect
from pathlib import Path

import pytest

import equigrid as eg
from equigrid.grid.api import drafts, fits, images, plans, runs, tuning, verbs

MODULES = (drafts, fits, images, plans, runs, tuning, verbs)
TOLD_ELSEWHERE = {"report", "to_json", "write"}  # of a fit: files and plain values


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for module in MODULES for test in finder.find(module) if test.examples]


def short(test: doctest.DocTest) -> str:
    return test.name.removeprefix("equigrid.grid.api.").partition(".")[2]


QUICK = [test for test in examples() if "tiny" not in test.docstring]
LONG = [test for test in examples() if "tiny" in test.docstring]
# The grid is run first, then looked at.
LONG.sort(key=lambda test: short(test) != "run")


def outcome(test: doctest.DocTest) -> str:
    """What differs, as doctest tells it; empty where nothing does."""
    told: list[str] = []
    flags = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    doctest.DocTestRunner(optionflags=flags).run(test, out=told.append)
    return "".join(told)


def public() -> set[str]:
    """Functions, classes and methods that `import equigrid` leads to."""
    found = set()
    for name in eg.__all__:
        one = getattr(eg, name)
        if getattr(one, "__module__", "").startswith("equigrid.grid.api"):
            found.add(name)
            if inspect.isclass(one):
                methods = inspect.getmembers(one, inspect.isfunction)
                found |= {f"{name}.{method}" for method, _ in methods if method[0] != "_"}
    return found


def test_every_public_name_has_an_example():
    with_one = {short(test) for test in examples()}
    in_its_class = {"PoolImages.batches", "PoolImages.arrays"}
    lacking = public() - with_one - in_its_class
    assert {name.partition(".")[2] for name in lacking} <= TOLD_ELSEWHERE


def test_an_example_that_is_wrong_would_be_seen():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert "Expected:\n    3\nGot:\n    2" in outcome(wrong)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The present folder, with results.csv: the table that the example of `fit` makes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EQUIGRID_STORE", raising=False)
    (test,) = [test for test in examples() if short(test) == "fit"]
    names = dict(test.globs)
    for example in test.examples[:3]:  # up to the rows
        exec(example.source, names)
    names["pd"].DataFrame(names["rows"]).to_csv(tmp_path / "results.csv", index=False)
    return tmp_path


@pytest.mark.parametrize("test", QUICK, ids=short)
def test_examples_run(test, folder):
    assert not outcome(test)


@pytest.mark.slow
def test_examples_that_run_a_grid_run(ray_here, folder):
    assert short(LONG[0]) == "run"
    assert len(LONG) > 8
    for test in LONG:
        assert not outcome(test), test.name
