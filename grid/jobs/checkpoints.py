"""Checkpoints of trainings, in the store, for local mode and worker groups alike; and leaving with
one.
"""

import hashlib
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType

from equigrid.grid.ids import new_attempt
from equigrid.grid.store import Store, layout

log = logging.getLogger("equigrid.jobs")
MOST_SHARE = 0.02  # of a training's time, that saving its state may hold it up


class Leaving(Exception):
    """The process was told to leave (a spot instance's notice): its state is saved, and the job
    goes on elsewhere.
    """


leaving = threading.Event()  # set by a slot's signal handler, looked at between two steps


class Checkpoints:
    """Checkpoints of one training, under `prefix` in the store: the newest two, each written whole.

    States are tensors, numbers, strings, lists and dicts, written by torch.save and read with
    weights_only, so that no pickle of a store is ever run.
    """

    def __init__(self, store: Store, prefix: str):
        self.store, self.prefix = store, prefix

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

    def save(self, step: int, state: dict) -> None:
        import torch

        buffer = io.BytesIO()
        torch.save(state, buffer)
        data = buffer.getvalue()
        self.store.put(layout.checkpoint(self.prefix, step, new_attempt(), _digest(data)), data)
        for name in self._names()[:-2]:
            self.store.delete(name)

    def clear(self) -> None:
        """Removes all of them: the training has its output."""
        for name in self._names():
            self.store.delete(name)

    def _names(self) -> list[str]:
        return sorted(filter(layout.is_checkpoint, self.store.list(self.prefix)))


class Saving:
    """Saves the states of a training, or of several that go step by step beside each other, while
    they go on: a thread writes copies, of one step at a time.

    A kill repeats at most one interval: `every_s` seconds, or where a state costs more than
    MOST_SHARE of that, as long as makes it that share, and never less than two writes. A state is
    handed over so early that it is written by the interval's end. 0 saves every step, whatever it
    costs. What a write raised is raised between the next two steps, or on leaving the context.
    told: takes the share of the `steps` that is done, after each.
    """

    def __init__(
        self,
        *trainings: Checkpoints,
        every_s: float,
        steps: float = 0,
        told: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.trainings, self.every_s, self.clock = trainings, every_s, clock
        self._steps, self._told = steps, told
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future | None = None
        self._saved_at_s = clock()
        self._held_s = self._written_s = 0.0  # by the last one: the training, the thread

    @property
    def interval_s(self) -> float:
        """What a kill may repeat."""
        if not self.every_s:
            return 0.0
        return max(self.every_s, self._held_s / MOST_SHARE, 2 * self._written_s)

    def due(self) -> bool:
        """Whether it is time for the next one: now, if the process has been told to leave. Raises
        what the last write did.
        """
        if self._writing and self._writing.done():
            self.wait()
        early_s = min(self._written_s, self.interval_s)
        return leaving.is_set() or self.clock() - self._saved_at_s >= self.interval_s - early_s

    def __call__(self, step: int, make_state: Callable[[], dict]) -> None:
        """Called by rank 0 after every step of one training: saves when it is time."""
        self.several(step, lambda: [make_state()])

    def several(self, step: int, make_states: Callable[[], Sequence[dict | None]]) -> None:
        """The same for several trainings, in their order; None for one that ended."""
        if self._told and self._steps:
            self._told(step / self._steps)
        if self.due():
            with self.holding():
                self.save(step, make_states())

    @contextmanager
    def holding(self) -> Iterator[None]:
        """What is done in it holds the training up: by how much decides when the next one is
        due.
        """
        began_s = self.clock()
        yield
        self._held_s = self.clock() - began_s

    def save(self, step: int, states: Sequence[dict | None]) -> None:
        """Hands over states, which nobody may change any more. Raises Leaving, once they are
        written, where the process has been told to leave.
        """
        self.wait()
        self._saved_at_s = self.clock()
        self._writing = self._thread.submit(self._write, step, states)
        if leaving.is_set():
            self.wait()
            raise Leaving(f"told to leave; saved after step {step:,}")

    def wait(self) -> None:
        """Until nothing is being written. Raises what that raised."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def _write(self, step: int, states: Sequence[dict | None]) -> None:
        began_s = self.clock()
        for training, state in zip(self.trainings, states, strict=True):
            if state is not None:
                training.save(step, state)
        self._written_s = self.clock() - began_s

    def __enter__(self) -> "Saving":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.shutdown()
        try:
            self.wait()
        except Exception as of_write:
            if error is None:
                raise
            log.warning("a checkpoint was not written: %s", of_write)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
