"""Ids: golden, and blind to everything that does not determine an output."""

import pytest

from equigrid.grid import ids
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load


def test_golden_ids():
    """If one of these changes, every finished result in every store is lost: raise a revision
    instead, knowingly.
    """
    assert ids.canonical_json({"b": 1, "a": [1.5, None, "é"]}) == '{"a":[1.5,null,"é"],"b":1}'
    assert ids.content_id("trial", {"n": 1}) == "trial-924b790528a31fee268b"
    assert ids.seed_of("trial-x", "training") == 2316087396164952297


def test_ids_ignore_order_of_keys_and_know_kind_and_revision(monkeypatch):
    assert ids.content_id("trial", {"a": 1, "b": 2}) == ids.content_id("trial", {"b": 2, "a": 1})
    assert ids.content_id("trial", {"a": 1}) != ids.content_id("pool", {"a": 1})
    before = ids.content_id("trial", {"a": 1})
    monkeypatch.setitem(ids.REVISIONS, "trial", 2)
    assert ids.content_id("trial", {"a": 1}) != before


def test_not_a_number_has_no_id():
    with pytest.raises(ValueError, match="Out of range float"):
        ids.content_id("trial", {"lr": float("nan")})


def test_seeds_fit_and_differ():
    seeds = {ids.seed_of("x", purpose, i) for purpose in ("noise", "labels") for i in range(100)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    "execution",
    [
        {"workers": {"trial": 4, "generator": 2}},
        {"threads": 2},
        {"gpus": 0.25},
        {"checkpoint_every_s": 1},
    ],
)
def test_how_a_grid_runs_is_no_part_of_any_id(mini, execution):
    ids_of = lambda spec: list(plan(resolve(load(spec), None)).jobs)  # noqa: E731
    assert ids_of(mini | {"execution": execution}) == ids_of(mini)
    assert ids_of(
        mini | {"name": "other", "notes": "again", "expected_seconds": {"trial": 3}}
    ) == ids_of(mini)


def test_what_determines_an_output_changes_its_id(mini):
    def trials(**changes):
        return {job.id for job in plan(resolve(load(mini | changes), None)).of_kind("trial")}

    before = trials()
    assert trials(recipe={"extends": "digits", "steps": 16}).isdisjoint(before)
    assert trials(seeds=[7, 8]).isdisjoint(before)
    longer = {
        "edm": {
            "kind": "edm",
            "preset": "digits",
            "training": {"total_nimg": 1280},
            "sampler": {"steps": 4},
        }
    }
    # Only the synthetic arm changes.
    assert len(trials(generators=longer) & before) == len(before) - 8
