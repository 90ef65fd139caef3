"""A grid of a pipeline that is adapted to each base: from the plan to rows, and what is refused."""

import io
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from equigrid.analysis.figures import style
from equigrid.analysis.schema import SETTINGS
from equigrid.grid import jobs
from equigrid.grid.datasets import shards
from equigrid.grid.errors import UserError
from equigrid.grid.exporting import card, pools
from equigrid.grid.jobs import inputs
from equigrid.grid.planning.pending import pending
from equigrid.grid.reporting import analysis_bridge
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, documents, layout

NAMES = ("owl", "sea_lion", "fox")
BASE = 30


@pytest.fixture
def spec(tmp_path, sd, monkeypatch) -> dict:
    """Three classes of noise; adapters, variations, both and neither."""
    monkeypatch.setattr("equigrid.generators.common.pools._TINY_SHARD", 64)
    rng, arrays = np.random.default_rng(0), {}
    for split, n in (("train", 90), ("test", 30)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 8, 8, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(n) % len(NAMES)
    np.savez(tmp_path / "three.npz", **arrays)
    common = {
        "kind": "stable-diffusion", "preset": "sd1.4", "pipeline": sd,
        "sampler": {"steps": 2, "batch": 16, "guidance": 1.0},
    }  # fmt: skip
    lora, varied = {"rank": 2, "steps": 2, "batch": 4}, {"strength": 0.5}
    return {
        "name": "adapted", "dataset": {"npz": str(tmp_path / "three.npz"), "class_names": list(NAMES)},
        "recipe": {"extends": "digits", "steps": 10}, "classifiers": ["digits-cnn"],
        "generators": {
            "released": common, "lora": {**common, "adaptation": lora}, "varied": {**common, "variation": varied},
            "both": {**common, "adaptation": lora, "variation": varied},
        },
        "subset_seeds": [0, 1], "seeds": [0], "quality": "off", "execution": {"gpus": 0, "slots": 1},
        "blocks": [{"n_base": BASE, "syn": dict.fromkeys(("released", "lora", "varied", "both"), 1)}],
    }  # fmt: skip


@pytest.mark.long
def test_from_plan_to_a_report(planned, request_of, spec, tmp_path):
    store, the_plan = planned(spec)
    trainings = list(the_plan.of_kind("generator"))
    learned = [(job.payload.subset and job.payload.subset.subset_seed) for job in trainings]
    # The released one serves all; lora and both share one for each subset.
    assert sorted(learned, key=str) == [0, 0, 1, 1, None]
    for job in pending(store, the_plan)[0]:
        outcome = jobs.run(store, request_of(store, the_plan, job))
        assert outcome["status"] == "ok", outcome
    table = analysis_bridge.read_table(store, the_plan)
    syn = table[table.arm == "syn"]
    assert len(syn) == 2 * 4
    by_generator = dict(zip(syn.generator, syn.setting))
    adapted = dict.fromkeys(("lora", "varied", "both"), "adapted")
    assert by_generator == {"released": "open", **adapted}
    assert set(by_generator.values()) <= set(SETTINGS)

    for pool in the_plan.pools.values():
        if pool.generator in ("varied", "both"):
            _assert_sources_are_the_base(store, request_of, the_plan, pool)
    _, found = analysis_bridge.fit(store, the_plan)
    page = analysis_bridge.write_report(store, the_plan, table, found, tmp_path / "report")
    text = page.read_text()
    assert ", open set, adapted" in text
    assert all(name in text for name in spec["generators"])

    told = card._text(pools.chosen(store, the_plan, "lora", subset_seed=0))
    assert "open set, adapted: a model that knows other images, adapted to 30 real images" in told


def _assert_sources_are_the_base(store: Store, request_of, the_plan, pool) -> None:
    """Each image's source is one of the base, of its label; no image outside it is read."""
    job = the_plan.jobs[pool.shard_id(0)]
    training = the_plan.jobs[pool.generator_id].payload
    assert job.payload.varied == training.subset
    request = request_of(store, the_plan, job)
    manifest = documents.read(store, layout.POOLS.manifest(job.id), documents.PoolShard)
    columns = pq.read_table(io.BytesIO(store.get(manifest.columns))).to_pydict()
    _, labels = shards.read(store, shards.ref("shard", manifest))
    base = inputs.base(request, job.payload.varied)
    assert len(base.labels) == BASE
    assert np.array_equal(base.labels[columns["source"]], labels)
    every = np.concatenate([handle["images"] for handle in request.train.handles])
    indices = inputs.real_indices(request, job.payload.varied)
    places = np.array([3, 29, 3, 0])
    assert np.array_equal(base.pixels(places), every[indices[places]])


def test_the_test_split_is_refused_as_a_source(planned, request_of, spec):
    store, the_plan = planned(spec)
    (job, *_) = (job for job in the_plan.of_kind("shard") if job.payload.varied)
    request = request_of(store, the_plan, job)
    base = inputs.base(replace(request, train=request.test), job.payload.varied)
    with pytest.raises(inputs.Leak, match="test-00000.json is held back for evaluation"):
        base.pixels(np.array([0]))


def test_a_grid_without_a_base(planned, spec):
    spec["blocks"] = [{"n_base": 0, "syn": {"lora": "30 images"}}]
    with pytest.raises(UserError, match="n_base 0 leaves an adapted generator nothing to learn"):
        planned(spec)


def test_its_colour_is_its_own():
    looks = style.generator_looks({"a": "adapted", "b": "adapted", "c": "closed", "o": "open"})
    own = {look[0] for look in style.ADAPTED_LOOKS}
    others = {look[0] for look in (*style.CLOSED_LOOKS, *style.OPEN_LOOKS)}
    assert {looks["a"][0], looks["b"][0]} <= own
    assert looks["a"] != looks["b"]
    assert not own & (others | {style.REAL_LOOK[0], style.COPIES_LOOK[0], style.MIX_LOOK[0]})
    assert style.generator_look("adapted") == style.ADAPTED_LOOKS[0]


@pytest.mark.long
@pytest.mark.usefixtures("ray_here")
def test_the_driver_runs_it(spec, tmp_path, quiet):
    """Real images reach shards as Ray's references."""
    spec["generators"] = {"both": spec["generators"]["both"]}
    spec["blocks"], spec["subset_seeds"] = [{"n_base": BASE, "syn": {"both": 1}}], [0]
    store = Store(tmp_path / "store", create=True)
    summary, the_plan = driver.run(load(spec), store, console=quiet)
    assert not summary.failures
    assert summary.jobs == {"generator": 1, "shard": 1, "trial": 2}
    table = analysis_bridge.read_table(store, the_plan)
    (row,) = table[table.arm == "syn"].to_dict("records")
    assert (row["status"], row["generator"], row["setting"]) == ("ok", "both", "adapted")
