"""A grid of Stable Diffusion with captions and a CLIP filter: its pool, what lies beside the
shards, trials on them.
"""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest

from equigrid.grid import jobs
from equigrid.grid.datasets import shards
from equigrid.grid.planning.pending import pending
from equigrid.grid.reporting import analysis_bridge
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, documents, layout, results

NAMES = ("owl", "sea_lion", "fox")
SHARD = 64  # images of a shard
DROPPED = 6  # of the 20 of each class that calibrate the filter


@pytest.fixture
def spec(tmp_path, sd, clip, language_model, monkeypatch) -> dict:
    """Three classes of noise, and shards of few images."""
    monkeypatch.setattr("equigrid.generators.common.pools._TINY_SHARD", SHARD)
    rng, arrays = np.random.default_rng(0), {}
    for split, n in (("train", 90), ("test", 30)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 8, 8, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(n) % len(NAMES)
    np.savez(tmp_path / "three.npz", **arrays)
    pipeline = {
        "kind": "stable-diffusion", "preset": "sd3", "pipeline": sd, "sampler": {"steps": 1, "batch": 16},
        "captions": {"language_model": language_model, "max_new_tokens": 6},
        "clip_filter": {"model": clip, "drop": DROPPED / 20, "calibration_per_class": 20},
    }  # fmt: skip
    return {
        "name": "open", "dataset": {"npz": str(tmp_path / "three.npz"), "class_names": list(NAMES)},
        "recipe": {"extends": "digits", "steps": 10}, "classifiers": ["digits-cnn"], "generators": {"sd": pipeline},
        "seeds": [0], "quality": "off", "execution": {"gpus": 0, "slots": 1}, "blocks": [{"n_base": 60, "syn": {"sd": [1, 2]}}],
    }  # fmt: skip


def columns_of(store: Store, manifest: dict) -> dict[str, list]:
    return pq.read_table(io.BytesIO(store.get(manifest["columns"]))).to_pydict()


@pytest.mark.long
def test_what_lies_beside_a_shard_belongs_to_its_images(planned, request_of, spec):
    store, the_plan = planned(spec)
    for job in pending(store, the_plan)[0]:
        outcome = jobs.run(store, request_of(store, the_plan, job))
        assert outcome["status"] == "ok", outcome
    rows = results.read(store).to_pylist()
    assert {row["trial_id"] for row in rows if row["status"] == "ok"} == {
        cell.trial_id for cell in the_plan.cells
    }
    assert len(rows) == 3

    bounds = _bounds(store, the_plan)
    made = list(the_plan.of_kind("shard"))
    assert [job.payload.index for job in made] == [0, 1]
    refused = [_assert_shard(store, job, bounds) for job in made]
    assert 0.1 < 1 - 2 * SHARD / (2 * SHARD + sum(refused)) < 0.5  # 0.3 but for two samples' chance


def _bounds(store: Store, the_plan) -> np.ndarray:
    """Each class's least confidence, (3,): the filter's calibration as the store keeps it."""
    (job,) = the_plan.of_kind("generator")
    confidence = jobs.weights.read(store, layout.GENERATORS.manifest(job.id))["confidence"].numpy()
    return np.sort(confidence, axis=1)[:, DROPPED]


def _assert_shard(store: Store, job, bounds: np.ndarray) -> int:
    """Whether columns, labels and images are those of the pool's numbers; how many candidates were
    refused.
    """
    import torch

    from equigrid.generators.common import pools
    from equigrid.generators.registry import config
    from equigrid.generators.stable_diffusion.candidates import Candidates, Wanted
    from equigrid.generators.stable_diffusion.sampling import resized

    first, seed = job.payload.index * SHARD, job.payload.seed
    manifest = documents.read(store, layout.POOLS.manifest(job.id), documents.PoolShard)
    images, labels = shards.read(store, shards.ref("shard", manifest))
    assert images.shape == (SHARD, 8, 8, 3)
    assert np.array_equal(labels, pools.labels(seed, first, first + SHARD, len(NAMES)))
    columns = columns_of(store, manifest.model_dump())
    assert set(columns) == {"prompt", "at_once", "template", "caption", "confidence", "candidate"}
    assert {len(values) for values in columns.values()} == {SHARD}
    assert (np.array(columns["confidence"]) >= bounds[labels]).all()

    maker = Candidates(
        config(job.payload.mapping),
        ("owl", "sea lion", "fox"),
        seed=seed,
        device=torch.device("cpu"),
    )
    refused = np.array(columns["candidate"])
    kept = [
        Wanted(first + i, int(label), int(attempt))
        for i, (label, attempt) in enumerate(zip(labels, refused))
    ]
    assert [maker._prompt(one) for one in kept] == [
        {name: columns[name][i] for name in ("prompt", "template", "caption")} for i in range(SHARD)
    ]
    for i in np.argsort(-refused)[:3].tolist() + np.flatnonzero(refused == 0)[:2].tolist():
        *lost, made = maker.make(
            [kept[i]._replace(attempt=attempt) for attempt in range(refused[i] + 1)]
        )
        assert all(one.confidence < bounds[labels[i]] for one in lost)
        # Other batches: by rounding.
        assert made.confidence == pytest.approx(columns["confidence"][i], abs=1e-4)
        assert (
            abs(resized(made.image[None], images.shape[1:])[0].astype(int) - images[i]).max() <= 1
        )
    return int(refused.sum())


@pytest.mark.long
@pytest.mark.usefixtures("ray_here")
def test_the_driver_runs_it(spec, tmp_path, quiet):
    spec["blocks"] = [{"n_base": 60, "syn": {"sd": 1}}]
    store = Store(tmp_path / "store", create=True)
    summary, the_plan = driver.run(load(spec), store, console=quiet)
    assert not summary.failures
    assert summary.jobs == {"generator": 1, "shard": 1, "trial": 2}
    (pool,) = the_plan.pools.values()
    manifest = store.get_json(pool.manifest(0))
    assert {len(values) for values in columns_of(store, manifest).values()} == {SHARD}
    table = analysis_bridge.read_table(store, the_plan)
    (row,) = table[table.arm == "syn"].to_dict("records")
    assert (row["status"], row["generator"], row["setting"], row["n_syn"]) == (
        "ok",
        "sd",
        "open",
        60,
    )
    assert manifest["checksum"] in row["shards"]
