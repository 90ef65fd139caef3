"""Checkpoints of a training, in the store, for local mode and worker groups alike; and leaving with
one.
"""

import hashlib
import io
import threading
import time
from collections.abc import Callable

from equigrid.grid.ids import new_attempt
from equigrid.grid.store import Store, layout


class Leaving(Exception):
    """The process was told to leave (a spot instance's notice): its state is saved, and the job
    goes on elsewhere.
    """


leaving = threading.Event()  # set by a slot's signal handler, looked at between two steps


class Checkpoints:
    """Checkpoints of one training, under `prefix` in the store: the newest two, each written whole.

    Every `every_s` seconds of training (0: at every step). States are tensors, numbers, strings,
    lists and dicts, written by torch.save and read with weights_only, so that no pickle of a store
    is ever run. told: takes the share of the `steps` that is done, after each.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        every_s: float,
        steps: float = 0,
        told: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.store, self.prefix, self.every_s, self.clock = store, prefix, every_s, clock
        self._steps, self._told = steps, told
        self._last = clock()

    def load(self) -> dict | None:
        """The newest state, on the CPU; None if there is none. One whose bytes are not those saved
        is passed over.
        """
        import torch

        for name in reversed(self._names()):
            try:
                data = self.store.get(name)
            except FileNotFoundError:
                continue
            if layout.checkpoint_digest(name) == _digest(data):
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return None

    def due(self) -> bool:
        """Whether it is time for the next one: now, if the process has been told to leave."""
        return leaving.is_set() or self.clock() - self._last >= self.every_s

    def __call__(self, step: int, make_state: Callable[[], dict]) -> None:
        """Called by rank 0 after every step: saves when it is time."""
        self.tell(step)
        if self.due():
            self.save(step, make_state())

    def tell(self, step: int) -> None:
        """A step is done."""
        if self._told and self._steps:
            self._told(step / self._steps)

    def save(self, step: int, state: dict) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        self.store.put(layout.checkpoint(self.prefix, step, new_attempt(), _digest(data)), data)
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
        return sorted(filter(layout.is_checkpoint, self.store.list(self.prefix)))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
