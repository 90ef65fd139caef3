"""Two gloo workers train as one, on the same global batches."""

import json
import os
import socket

import numpy as np
import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file

from equigrid.classifiers.distributed import share
from equigrid.classifiers.models.pretraining import Pretraining, Start
from equigrid.classifiers.recipes import recipe, resolve
from equigrid.classifiers.training.loop import NotFinite, train

OPTIONS = {"extends": "digits", "steps": 9, "batch": 10, "augmentation": {"crop_padding_px": 1}}
TINY = '{"channels": [8, 8, 16, 16], "stem_width": 8}'
N = 21  # batches of 10, 10 and 1: the last leaves one of two workers without an image


def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 8, 8, 1), np.uint8), rng.integers(0, 10, N)


def fit(changes=None, **options):
    own = resolve(
        recipe(OPTIONS | (changes or {})), n_base=N, n_total=N, n_dataset=N, classifier="digits-cnn"
    )
    return train(
        *data(), model="digits-cnn", recipe=own, classes=10, seed=3, device="cpu", **options
    )


MIXED = {"augmentation": {"trivial_augment": True, "mixup": 0.5, "cutmix": 1.0}}


def worker(rank, port, folder, changes):
    """One of two processes; leaves its weights, and the step at which it saw the loss break."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        path = f"{folder}/state.pt"
        keep = lambda step, make: torch.save(make(), path) if step == 4 else None  # noqa: E731
        whole = fit(changes, checkpoint=keep)
        dist.barrier()
        rest = fit(changes, resume=torch.load(path, weights_only=True))
        torch.save(
            [whole.module.state_dict(), rest.module.state_dict()], f"{folder}/modules{rank}.pt"
        )
        try:
            fit({"lr": 1e30, "warmup": 0.0})
        except NotFinite as error:
            torch.save((error.step, error.epoch), f"{folder}/error{rank}.pt")
        dist.barrier()  # one that leaves early takes the connection of the other with it
    finally:
        dist.destroy_process_group()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(("length", "workers"), [(10, 2), (7, 4), (1, 3), (0, 2)])
def test_shares_cover_the_batch_once_and_evenly(length, workers):
    parts = [range(length)[share(length, rank, workers)] for rank in range(workers)]
    assert [index for part in parts for index in part] == list(range(length))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.long
@pytest.mark.parametrize("changes", [{}, MIXED], ids=["crops", "mixed"])
def test_two_workers_equal_one_and_resume_bitwise(tmp_path, changes):
    mp.spawn(worker, (free_port(), str(tmp_path), changes), nprocs=2)
    found = [torch.load(tmp_path / f"modules{rank}.pt", weights_only=True) for rank in range(2)]
    (first, resumed), (second, _) = found
    alone = fit(changes).module.state_dict()
    assert first.keys() == second.keys() == alone.keys()
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.equal(first[name], resumed[name]), name
        # Float32 sums in another order, over nine steps of growing weights.
        torch.testing.assert_close(
            first[name], value, rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    errors = [torch.load(tmp_path / f"error{rank}.pt", weights_only=True) for rank in range(2)]
    assert errors[0] == errors[1]


def tune(path: str):
    """A last layer, and a BatchNorm before it that is frozen."""
    of = Pretraining(weights="any", channels=1, args=TINY, train="head")
    normal = {"normalisation": {"mean": [0.5], "std": [0.5]}}
    own = resolve(
        recipe(OPTIONS | normal), n_base=N, n_total=N, n_dataset=N, classifier="timm/resnet10t"
    )
    return train(
        *data(), model="timm/resnet10t", recipe=own, classes=10, seed=3, device="cpu",
        start=Start(of, path),
    )  # fmt: skip


def tuning_worker(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        found = tune(f"{folder}/w.safetensors").module.state_dict()
        torch.save(found, f"{folder}/modules{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.mark.long
def test_two_workers_fine_tune_as_one(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=3, in_chans=1, **json.loads(TINY))
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    mp.spawn(tuning_worker, (free_port(), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"modules{r}.pt", weights_only=True) for r in range(2))
    alone = tune(str(tmp_path / "w.safetensors")).module.state_dict()
    given = network.state_dict()
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4)
        bare = name.removeprefix("network.")
        if bare in given and not bare.startswith("fc."):
            assert torch.equal(first[name], given[bare]), name
    assert not torch.equal(first["network.fc.bias"], torch.zeros(10))
