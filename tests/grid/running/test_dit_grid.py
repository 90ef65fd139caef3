"""A grid of the DiT, through the driver: both trainings, pools, measures, the report; killed
between the trainings.
"""

import os
import signal
import threading
import time

import numpy as np
import pytest

from equigrid.grid import jobs
from equigrid.grid.datasets import shards
from equigrid.grid.reporting import analysis_bridge
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, documents, layout

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_here")]
VAE_STEPS, STEPS = 10, 16
JUDGE = {"base_channels": 8, "layers": 1, "starts_at_part": 0.5}
TINY = {
    "kind": "dit",
    "preset": "digits",
    "network": {"depth": 1, "width": 16},
    "vae": {"base_channels": 8, "training": {"steps": VAE_STEPS, "discriminator": JUDGE}},
    "training": {"steps": STEPS},
    "sampler": {"steps": 3},
}


@pytest.fixture
def spec(mini) -> dict:
    mini["generators"] = {"dit": TINY}
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "syn": {"dit": [1, 2]}}], [0]
    mini["quality"] = {"neighbours": 20}
    mini["execution"] |= {"checkpoint_every_s": 0}  # at every step
    return mini


def weights_of(store: Store, generator_id: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load as load_tensors

    return load_tensors(
        store.get(store.get_json(layout.GENERATORS.manifest(generator_id))["weights"])
    )


@pytest.mark.slow
def test_a_grid_of_the_dit_killed_between_its_trainings(
    spec, tmp_path, quiet, slot_processes, planned, request_of
):
    store = Store(tmp_path / "store", create=True)
    killed = []

    def killer():
        """kill -9 of the slot that trains, once the latents exist: after the autoencoder, amid the
        transformer.
        """
        while not any(name.endswith("latents/00000.json") for name in store.list("generators")):
            time.sleep(0.01)
        for pid in slot_processes("generator"):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    summary, plan = driver.run(load(spec), store, console=quiet)
    thread.join(10)
    assert killed and summary.retries >= 1
    assert not summary.failures
    assert summary.jobs == {"generator": 1, "shard": 1, "reference": 1, "trial": 3, "quality": 1}

    (job,) = plan.of_kind("generator")
    manifest = store.get_json(layout.GENERATORS.manifest(job.id))
    cost = manifest["cost"]
    assert (cost["autoencoder_steps"], cost["training_steps"]) == (VAE_STEPS, STEPS)
    made = weights_of(store, job.id)
    parts = {
        part: sum(v.size for k, v in made.items() if k.startswith(f"{part}."))
        for part in ("dit", "vae")
    }
    assert (cost["parameters"], cost["autoencoder_parameters"]) == (parts["dit"], parts["vae"])

    _assert_what_is_kept(store, job.id)
    _assert_pool(store, plan)
    _assert_report(store, plan, tmp_path / "report")
    assert not driver.run(load(spec), store, console=quiet)[0].jobs

    undisturbed, again = planned(spec, "undisturbed")
    (job,) = again.of_kind("generator")
    request = request_of(undisturbed, again, job, checkpoint_every_s=3600)
    assert jobs.run(undisturbed, request)["status"] == "ok"
    whole = weights_of(undisturbed, job.id)
    assert whole.keys() == made.keys()
    # Resumed equals uninterrupted.
    assert all(np.array_equal(whole[name], made[name]) for name in whole)


def _assert_what_is_kept(store: Store, generator_id: str) -> None:
    """Log and sheets of the attempt that ended the training; no checkpoints any more."""
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    names = list(store.list(f"generators/{generator_id}"))
    (newest,) = sorted(name for name in names if "/log-" in name)[-1:]
    rows = pq.read_table(io.BytesIO(store.get(newest))).to_pylist()
    assert rows[-1]["step"] == VAE_STEPS + STEPS
    # The autoencoder was not trained again.
    assert {row["stage"] for row in rows} == {"transformer"}
    sheets = sorted(name for name in names if "/sheets/" in name)
    steps = [int(name.rsplit("/", 1)[1].removesuffix(".png")) for name in sheets]
    assert steps and min(steps) > VAE_STEPS  # nothing to see before the transformer
    assert Image.open(io.BytesIO(store.get(sheets[-1]))).height > 10 * 8
    assert not [name for name in names if "/checkpoints/" in name]


def _assert_pool(store: Store, plan) -> None:
    (pool,) = plan.pools.values()
    manifest = documents.read(store, pool.manifest(0), documents.PoolShard)
    assert manifest.cost["evaluations_per_image"] == 6  # three steps, guided
    assert "training_steps" not in manifest.cost
    images, labels = shards.read(store, shards.ref(pool.manifest(0), manifest))
    assert images.shape == (len(pool.shard(0)), 8, 8, 1) and images.std() > 0
    assert np.ptp(np.bincount(labels, minlength=10)) <= 1
    table = analysis_bridge.read_table(store, plan)
    assert len(table) == 3 and set(table.status) == {"ok"}
    assert set(table[table.arm == "syn"].generator) == {"dit"}


def _assert_report(store: Store, plan, folder) -> None:
    (job,) = plan.of_kind("quality")
    row = store.get_json(layout.QUALITY.manifest(job.id))
    assert row["reconstruction_fid"] is None  # Inception knows nothing of 8×8 digits
    assert row["reconstruction_feature_distance"] > 0
    (generator,) = plan.of_kind("generator")
    # The training's own measure is of the same 60 images; others lie in their batches, which moves
    # a level here or there.
    psnr_db = float(weights_of(store, generator.id)["measured.psnr_db"])
    assert row["reconstruction_psnr_db"] == pytest.approx(psnr_db, abs=0.01)

    report = analysis_bridge.write_report(
        store, plan, *analysis_bridge.fit(store, plan), folder
    ).read_text()
    for heading in (
        "reconstruction psnr db",
        "reconstruction feature distance",
        "training steps",
        "evaluations per image",
    ):
        assert f">{heading}<" in report
