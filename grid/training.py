"""The seam to Ray Train: every training is one `TorchTrainer` loop, on one device or several.

With one device the loop runs in Ray Train's local mode, inside the calling process (a slot, which holds the
device); it costs no start-up, and keeps no checkpoints. With several it runs in a worker group. So checkpoints
are our own, in the store, and the same code serves both.
"""

import hashlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from grid.ids import new_attempt
from grid.store import Store

# Ray Train looks for finished workers every 2 s unless told otherwise before ray is imported.
TRAIN_ENVIRONMENT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}


def fit(loop: Callable[[dict], Any], config: dict, *, name: str, workers: int = 1, gpus: float = 0, cpus: float = 1):
    """Runs `loop(config)` as a TorchTrainer and returns what it returns (rank 0's value).

    workers: 1 runs in this process; more start a worker group with `gpus` and `cpus` for each worker, and
    torch.distributed initialised. Raises what the loop raised (in a worker group, the first worker's error).
    """
    os.environ.update({k: v for k, v in TRAIN_ENVIRONMENT.items() if k not in os.environ})
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    if workers == 1:
        scaling = ScalingConfig(num_workers=0, use_gpu=gpus > 0)
        return TorchTrainer(loop, train_loop_config=config, scaling_config=scaling).fit().return_value
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    scaling = ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources)
    # Nothing of ours is kept where Ray Train writes: outputs and checkpoints are in the store.
    with tempfile.TemporaryDirectory(prefix="equigrid-train-") as scratch:
        run = RunConfig(name=name, storage_path=scratch)
        trainer = TorchTrainer(loop, train_loop_config=config, scaling_config=scaling, run_config=run)
        return trainer.fit().return_value


class Leaving(Exception):
    """The process was told to leave (a spot instance's notice): its state is saved, and the job goes on elsewhere."""


leaving = threading.Event()  # set by a slot's signal handler, looked at between two steps


def rank() -> int:
    """This process's rank in the worker group; 0 outside one."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class Checkpoints:
    """Checkpoints of one training, under `prefix` in the store: the newest two, each written whole.

    Every `every_s` seconds of training (0: at every step). States are tensors, numbers, strings, lists and
    dicts, written by torch.save and read with weights_only, so that no pickle of a store is ever run.
    """

    def __init__(self, store: Store, prefix: str, *, every_s: float, clock: Callable[[], float] = time.monotonic):
        self.store, self.prefix, self.every_s, self.clock = store, prefix, every_s, clock
        self._last = clock()

    def load(self) -> dict | None:
        """The newest state, on the CPU; None if there is none. One whose bytes are not those saved is passed over."""
        import torch

        for name in reversed(self._names()):
            try:
                data = self.store.get(name)
            except FileNotFoundError:
                continue
            if name.endswith(f"-{_digest(data)}.pt"):
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return None

    def due(self) -> bool:
        """Whether it is time for the next one: now, if the process has been told to leave."""
        return leaving.is_set() or self.clock() - self._last >= self.every_s

    def __call__(self, step: int, make_state: Callable[[], dict]) -> None:
        """Called by rank 0 after every step: saves when it is time."""
        if self.due():
            self.save(step, make_state())

    def save(self, step: int, state: dict) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        self.store.put(f"{self.prefix}/{step:010d}-{new_attempt()}-{_digest(data)}.pt", data)
        for name in self._names()[:-2]:
            self.store.delete(name)
        self._last = self.clock()
        if leaving.is_set():
            raise Leaving(f"told to leave; saved after step {step:,}")

    def clear(self) -> None:
        """Removes all of them: the training has its output."""
        for name in self._names():
            self.store.delete(name)

    def _names(self) -> list[str]:
        return sorted(name for name in self.store.list(self.prefix) if name.endswith(".pt"))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
