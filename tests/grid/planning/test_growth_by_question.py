"""Grids that grow by a question are ordinary grids: their plans add trainings and lose none."""

import pytest

from equigrid.grid.errors import UserError
from equigrid.grid.planning.growth import Place, grew_from, start, with_places
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import GridSpec, load


def planned(spec: GridSpec):
    return plan(resolve(spec, None))


def test_the_start_is_every_place_once_under_two_subset_seeds(mini):
    whole = load(mini | {"subset_seeds": [3], "seeds": [1, 2]})
    first = start(whole)
    assert (first.subset_seeds, first.seeds) == ((3, 4), (1,))
    places = {(c.arm, c.n_base, c.n_real_added, c.n_syn, c.n_copies) for c in planned(whole).cells}
    found = [(c.arm, c.n_base, c.n_real_added, c.n_syn, c.n_copies) for c in planned(first).cells]
    assert set(found) == places
    assert len(found) == 2 * len(places)


def test_places_are_added_with_their_seeds_and_nothing_else_changes(mini):
    mini["blocks"][0]["mixes"] = [{"real": 1, "syn": {"edm": 1}}]
    first = start(load(mini))
    before = planned(first)
    wanted = [
        Place(60, 0, 0, 0, None, 5, None, 0),
        Place(60, 60, 0, 0, None, 5, None, 0),
        Place(60, 0, 120, 0, "edm", 5, 0, 0),
        Place(60, 0, 120, 0, "edm", 0, 2, 4),
        Place(120, 0, 0, 120, None, 1, None, 7),
        Place(120, 120, 120, 0, "edm", 1, 0, 7),
    ]
    grown = with_places(first, before.cells, wanted)
    after = planned(grown)
    new = [cell for cell in after.cells if cell not in before.cells]
    found = {
        Place(c.n_base, c.n_real_added, c.n_syn, c.n_copies, c.generator, c.subset_seed, c.generator_seed, c.seed)
        for c in new
    }  # fmt: skip
    assert found == set(wanted)
    assert len(new) == len(wanted)
    assert set(before.jobs) <= set(after.jobs)
    assert grew_from(grown, first)
    assert grew_from(load(grown.model_dump(mode="json")), first)  # as it comes back from a store
    assert not grew_from(first, grown)
    again = with_places(grown, after.cells, wanted)  # what is there already is no new work
    assert set(planned(again).jobs) == set(after.jobs)


def test_a_rounded_base_size_and_a_blocks_own_recipe_are_kept(mini):
    own = {"extends": "digits", "steps": 7}
    blocks = [{"n_base": "all", "nominal": 1500, "recipe": own, "syn": {"edm": 1}}]
    first = start(load(mini | {"blocks": blocks}))
    cells = planned(first).cells
    grown = with_places(first, cells, [Place(1500, 0, 1500, 0, "edm", 0, 0, 9)])
    (new,) = [cell for cell in planned(grown).cells if cell not in cells]
    assert (new.n_nominal, new.n_syn, new.seed) == (1500, 1500, 9)
    assert new.n_base == cells[0].n_base != 1500
    of = {c.trial_id: planned(grown).jobs[c.trial_id].payload.recipe.steps for c in [new, cells[0]]}
    assert set(of.values()) == {7}


def test_what_cannot_grow_is_named(mini):
    several = load(mini | {"classifiers": ["digits-cnn", "resnet20"]})
    with pytest.raises(
        UserError, match="several; add classifier=NAME, one of digits-cnn, resnet20"
    ):
        start(several)
    assert start(several, "resnet20").classifiers == ("resnet20",)
    with pytest.raises(UserError, match="classifier 'x': the grid has"):
        start(several, "x")
    first = start(load(mini))
    with pytest.raises(ValueError, match="no place"):
        with_places(first, planned(first).cells, [Place(61, 0, 0, 0, None, 0, None, 0)])
