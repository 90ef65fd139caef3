"""Expansion: which cells, which jobs, and which of them are one."""

from collections import Counter

import pytest

from equigrid.grid.errors import UserError
from equigrid.grid.jobs import grid_facts
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load


def planned(spec: dict):
    return plan(resolve(load(spec), None))


def kinds(the_plan) -> dict:
    return dict(Counter(job.kind for job in the_plan.jobs.values()))


def test_cells_and_jobs_of_a_small_grid(mini):
    the_plan = planned(mini)
    # per base size: base, real ×1, syn ×1 and ×2, copies ×1, and two seeds; 60 + 60 real is the
    # base of 120
    assert len(the_plan.cells) == 20
    assert kinds(the_plan) == {"ingest": 1, "generator": 2, "shard": 2, "trial": 18}
    arms = Counter((cell.n_base, cell.arm) for cell in the_plan.cells)
    assert arms == {
        (n, arm): 4 if arm == "syn" else 2
        for n in (60, 120)
        for arm in ("base", "real", "syn", "copies")
    }


def test_a_mix_adds_real_and_synthetic_images_together(mini):
    """Its generator knows the base alone, so it is that of the synthetic arm; its real images are
    those of the real arm.
    """
    mini["blocks"][0]["mixes"] = [
        {"real": 1, "syn": {"edm": 2}},
        {"real": "30 images", "syn": {"edm": 1}},
    ]
    the_plan = planned(mini)
    mixes = [cell for cell in the_plan.cells if cell.arm == "mix"]
    assert [(c.n_base, c.n_real_added, c.n_syn, c.n_total, c.seed) for c in mixes] == [
        (n, real, syn, n + real + syn, seed)
        for n in (60, 120) for real, syn in ((n, 2 * n), (30, n)) for seed in (0, 1)
    ]  # fmt: skip
    assert (
        str(mixes[0])
        == "60 real + 60 real + 120 edm (generator seed 0), digits-cnn, subset 0, seed 0"
    )
    assert kinds(the_plan) == {"ingest": 1, "generator": 2, "shard": 2, "trial": 26}
    synthetic = next(
        c for c in the_plan.cells if c.arm == "syn" and (c.n_base, c.n_syn) == (60, 120)
    )
    real = next(c for c in the_plan.cells if c.arm == "real" and c.n_base == 60)
    mixed, of_syn, of_real = (
        the_plan.jobs[cell.trial_id].payload for cell in (mixes[0], synthetic, real)
    )
    assert mixed.syn == of_syn.syn
    assert mixed.real == of_real.real
    assert len({cell.trial_id for cell in mixes}) == 8


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (
            {"real": 1, "syn": {"edm": 1, "other": 1}},
            "mixes.0.*syn: a mix has images of one generator",
        ),
        ({"real": 1, "syn": {}}, "one generator, got none"),
        ({"real": 1, "syn": {"emd": 1}}, "mixes.0.syn.emd: no such generator.*'edm'"),
        ({"real": 1, "syn": {"edm": "all"}}, "all means the real images"),
        ({"real": 0, "syn": {"edm": 1}}, "must be above 0"),
        ({"real": 1000, "syn": {"edm": 1}}, "mixes.0.real: 1000 × 60 = 60,000 real images to add"),
        (
            {"real": 1, "syn": {"edm": 0.001}},
            "mixes.0.syn.edm: 0.001 of the base is no whole image",
        ),
        ({"syn": {"edm": 1}}, "mixes.0.real: is missing"),
        ({"real": 1, "syn": {"edm": 1}, "copies": 1}, "mixes.0.copies: unknown key"),
    ],
)
def test_a_mix_that_cannot_be_made_is_one_line(mini, mix, message):
    mini["blocks"][0]["mixes"] = [mix]
    with pytest.raises(UserError, match=message):
        planned(mini)


def test_a_block_may_have_seeds_of_its_own(mini):
    """One place of the grid is repeated more often than others; what overlaps is there once."""
    more = {"n_base": 60, "base": False, "syn": {"edm": 1}, "subset_seeds": [0, 5], "seeds": [7]}
    alone = planned(mini)
    grown = planned(mini | {"blocks": [*mini["blocks"], more]})
    new = [cell for cell in grown.cells if cell not in alone.cells]
    assert [(c.arm, c.n_syn, c.subset_seed, c.generator_seed, c.seed) for c in new] == [
        ("syn", 60, 0, 0, 7), ("syn", 60, 5, 0, 7)]  # fmt: skip
    assert set(alone.jobs) < set(grown.jobs)
    assert kinds(grown)["generator"] == kinds(alone)["generator"] + 1
    again = planned(
        mini | {"blocks": [*mini["blocks"], more | {"seeds": [1, 7], "generator_seeds": [0, 3]}]}
    )
    trained = Counter((c.subset_seed, c.generator_seed, c.seed) for c in again.cells if (c.arm, c.n_base, c.n_syn) == ("syn", 60, 60))  # fmt: skip
    assert trained == dict.fromkeys([(0, 0, 0), *((s, g, t) for s in (0, 5) for g in (0, 3) for t in (1, 7))], 1)  # fmt: skip
    with pytest.raises(UserError, match="blocks.0.seeds: 1 is there twice"):
        planned(mini | {"blocks": [more | {"seeds": [1, 1]}]})


def test_each_job_comes_after_what_it_needs(mini):
    seen = set()
    for job in planned(mini).jobs.values():
        assert seen.issuperset(job.needs)
        seen.add(job.id)


def test_base_and_added_real_images_are_the_larger_base_where_recipes_agree(mini):
    by_trial = planned(mini).cells_by_trial()
    shared = [cells for cells in by_trial.values() if len(cells) > 1]
    assert {tuple((c.arm, c.n_base, c.n_real_added) for c in cells) for cells in shared} == {
        (("real", 60, 60), ("base", 120, 0))
    }


def test_recipes_by_base_size_keep_such_cells_apart(mini):
    """As in the paper: 5,000 + 20,000 trains for 320 epochs, a base of 25,000 for 160."""
    rungs = [{"base_fraction": 0.05, "epochs": 4}, {"base_fraction": 0.1, "epochs": 2}]
    recipe = {"epochs_by_base": rungs, "batch": 32, "lr": 0.1}
    assert kinds(planned(mini | {"recipe": recipe}))["trial"] == 20


def test_the_whole_training_set_is_one_subset_for_all_seeds(mini):
    spec = mini | {"subset_seeds": [0, 1, 2], "blocks": [{"n_base": "all", "syn": {"edm": [0.5]}}]}
    the_plan = planned(spec)
    assert len(the_plan.cells) == 3 * 2 * 2
    assert kinds(the_plan) == {"ingest": 1, "generator": 1, "shard": 3, "trial": 4}


def test_pools_of_one_training_are_sampled_each_in_its_own_way(mini):
    mini["generators"]["quick"] = {**mini["generators"]["edm"], "sampler": {"steps": 2}}
    mini["blocks"] = [{"n_base": 60, "syn": {"edm": 1, "quick": 1}}]
    the_plan = planned(mini)
    assert kinds(the_plan)["generator"] == 1
    steps = {
        the_plan.pools[job.payload.pool].generator: job.payload.mapping["sampler"]["steps"]
        for job in the_plan.of_kind("shard")
    }
    assert steps == {"edm": 4, "quick": 2}


def test_generator_seeds_multiply_only_the_synthetic_arm(mini):
    mini["generators"]["edm"]["seeds"] = [0, 1, 2]
    assert kinds(planned(mini)) == {"ingest": 1, "generator": 6, "shard": 6, "trial": 10 + 3 * 8}


def test_overlapping_blocks_have_each_cell_once(mini):
    mini["blocks"].append({"n_base": 60, "real": [1, 2]})
    the_plan = planned(mini)
    assert len(the_plan.cells) == len(set(the_plan.cells)) == 22


def test_a_larger_ratio_adds_shards_and_touches_none(mini):
    before = planned(mini)
    mini["blocks"][0]["syn"]["edm"].append(10)
    after = planned(mini)
    new = after.jobs.keys() - before.jobs.keys()
    assert before.jobs.keys() < after.jobs.keys()
    # 10 × 60 = 600 and 10 × 120 = 1,200 images in shards of 256, 256, 512, 512: two and three more
    assert Counter(after.jobs[i].kind for i in new) == {"shard": 5, "trial": 4}


@pytest.mark.parametrize(
    ("change", "kinds_of_new"),
    [
        (lambda spec: spec["seeds"].append(2), {"trial": 9}),
        (lambda spec: spec["blocks"].append({"n_base": 240, "real": [1]}), {"trial": 2}),
        (
            lambda spec: spec["blocks"].append({"n_base": 300, "syn": {"edm": [1]}}),
            {"trial": 4, "generator": 1, "shard": 2},
        ),
        (lambda spec: spec["classifiers"].append("resnet20"), {"trial": 18}),
    ],
)
def test_growing_a_grid_adds_only_the_new_jobs(mini, change, kinds_of_new):
    before = planned(mini).jobs.keys()
    change(mini)
    after = planned(mini).jobs
    assert before <= after.keys()
    assert Counter(job.kind for i, job in after.items() if i not in before) == kinds_of_new


def test_absolute_amounts_and_a_base_of_none(mini):
    """Table 20's shape: the synthetic amount fixed, the real one from 0; only an open-set generator
    can do that.
    """
    mini["blocks"] = [{"n_base": [60, 120], "real": ["30 images"], "syn": {"edm": ["500 images"]}}]
    assert {cell.n_syn for cell in planned(mini).cells if cell.arm == "syn"} == {500}
    mini["blocks"] = [{"n_base": [0], "syn": {"edm": ["500 images"]}}]
    with pytest.raises(
        UserError, match="n_base 0 leaves a closed-set generator nothing to learn from"
    ):
        planned(mini)


def test_nominal_size_serves_the_amounts(mini):
    mini["blocks"] = [{"n_base": "all", "nominal": 1300, "syn": {"edm": [1]}}]
    cells = planned(mini).cells
    assert {(c.n_base, c.n_nominal, c.n_syn) for c in cells if c.arm == "syn"} == {
        (1200, 1300, 1300)
    }


def test_stages_name_dataset_and_base_size_but_no_cell(mini):
    stages = {job.stage for job in planned(mini).jobs.values()}
    trial_stages = {"trial:digits:n60", "trial:digits:n120"}
    assert stages >= trial_stages | {"ingest:digits", "generator:digits:n60", "shard:digits:n120"}
    assert len(stages) == 7


@pytest.mark.parametrize("quality", ["off", {"neighbours": 0}])
def test_what_is_streamed_needs_a_normalisation_before_anything_runs(mini, monkeypatch, quality):
    """Nobody sees such images before the training, so nothing measures them."""
    mini |= {"quality": quality}
    mini["blocks"][0] |= {"n_base": [60], "real": [], "copies": []}
    plan(resolve(load(mini), None))
    # With a quality, the whole training set of the grid's own classifier is beyond the device alone.
    monkeypatch.setattr(grid_facts, "RESIDENT_BYTES", (100 if quality == "off" else 200) * 64)
    n = 120 if quality == "off" else 1_200
    with pytest.raises(
        UserError,
        match=f"recipe digits with steps 15: {n:,} images are streamed, and so are not measured; give the recipe a norm",
    ):
        plan(resolve(load(mini), None))
    mini["recipe"]["normalisation"] = {"mean": [0.3], "std": [0.4]}
    assert any(
        job.payload.stream
        for job in plan(resolve(load(mini), None)).of_kind(
            "trial" if quality == "off" else "reference"
        )
    )
