"""Steps of several trainings recorded as CUDA graphs, one per size of batch, and replayed."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from equigrid.classifiers.data.batches import Batch
from equigrid.classifiers.training.replica import Replica
from equigrid.classifiers.training.step import Step, Steps

log = logging.getLogger("equigrid.classifiers")

FAILED_RECORDING_IS_MENDED = "2.12"
"""The first PyTorch whose process is whole after one."""
_broken = threading.Event()


def process_is_broken() -> bool:
    """Whether a recording failed in this process that its PyTorch does not recover from.

    Before 2.12 the device's random generator stays in the state of a recording, and emptying the
    allocator's caches can end in an assertion. So no other training should run here.
    """
    return _broken.is_set()


def stream_of(device: torch.device, number: int) -> torch.cuda.Stream:
    """The process's stream `number` of a device, the same for training after training.

    cuBLAS keeps a workspace of some megabytes for each stream that it has ever seen.
    """
    # "cuda" is whichever device is current, and that may change.
    index = torch.cuda.current_device() if device.index is None else device.index
    return _stream(index, number)


@cache
def _stream(index: int, number: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(torch.device("cuda", index))


@dataclass(frozen=True)
class Recorded:
    """A recorded step, and where it reads each member's draws from and leaves its loss."""

    graph: torch.cuda.CUDAGraph
    draws: list[torch.Tensor]
    losses: list[torch.Tensor]


class GraphedSteps(Steps):
    """The same steps recorded as CUDA graphs with a branch per member, and replayed.

    A single network of 32×32 images leaves most of a large GPU idle, so branches run beside each
    other. The first steps are ordinary training steps: they make cuDNN choose its kernels and the
    optimizer make its buffers, as a capture must not. An epoch's last, partial batch has a size of
    its own, and so a graph of its own. The batches' images must be the same tensors in every step,
    and the members draw no random numbers. To be called on one and the same stream throughout,
    which must not be the default stream.
    """

    WARM_UP_STEPS = 11
    """Ordinary steps before whole batches are recorded."""
    PARTIAL_WARM_UP_STEPS = 24
    """The same for partial ones: about what a recording costs, since how many follow is open."""

    def __init__(self, members: Sequence[Step]):
        super().__init__(members)
        device = next(self.members[0].module.parameters()).device
        self.batch = self.members[0].recipe.batch
        self.lr = self._rates(device=device)
        # 0 is the stream that all are called on.
        self.streams = [stream_of(device, number + 1) for number in range(len(self.members))]
        self.recorded: dict[int, Recorded] = {}
        self.ordinary: Counter[int] = Counter()

    def __call__(self, batches: Sequence[Batch], number: int, lr: float) -> list[torch.Tensor]:
        for factor, own in self.lr.items():
            own.fill_(lr * factor)
        size = batches[0].n_global
        if self.records_next(size):
            try:
                self.recorded[size] = self._capture(batches)
            except BaseException:
                if torch.__version__ < FAILED_RECORDING_IS_MENDED:
                    _broken.set()
                raise
        if size not in self.recorded:
            self.ordinary[size] += 1
            return self._branches(batches)
        recorded = self.recorded[size]
        for own, batch in zip(recorded.draws, batches):
            own.copy_(batch.draws)
        recorded.graph.replay()
        return [loss.clone() for loss in recorded.losses]

    def _rates(self, **of: Any) -> dict[float, torch.Tensor]:
        """The rates by their factors. They are read from the device, so that a replay sees each
        step's.
        """
        rates: dict[float, torch.Tensor] = {}
        for member in self.members:
            for group in member.optimizer.param_groups:
                group["lr"] = rates.setdefault(group["factor"], torch.zeros((), **of))
        return rates

    def records_next(self, size: int) -> bool:
        """Whether the next step of so many images is recorded."""
        warm_up = self.WARM_UP_STEPS if size == self.batch else self.PARTIAL_WARM_UP_STEPS
        return size not in self.recorded and self.ordinary[size] >= warm_up

    def _branches(self, batches: Sequence[Batch]) -> list[torch.Tensor]:
        """Each member's step on its own stream, between a fork from the current stream and a
        join.
        """
        main, losses = torch.cuda.current_stream(), []
        for member, batch, stream in zip(self.members, batches, self.streams):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                losses.append(member(batch, 0))
        for stream in self.streams:
            main.wait_stream(stream)
        return losses

    def _capture(self, batches: Sequence[Batch]) -> Recorded:
        draws = [batch.draws.clone() for batch in batches]
        own = [Batch(b.padded, b.targets, table, b.n_global) for b, table in zip(batches, draws)]
        # Gradients must be made inside the capture, where they get their lasting place.
        for member in self.members:
            member.drop_gradients()
        graph, losses = self._record(lambda: self._branches(own))
        return Recorded(graph, draws, losses)

    def _record(
        self, work: Callable[[], list[torch.Tensor]]
    ) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor]]:
        """A graph of `work`, which does not run, and the tensors in which replays leave the
        losses.
        """
        graph = torch.cuda.CUDAGraph()
        # One memory for all sizes: a step leaves nothing there that another one needs.
        others = [recorded.graph.pool() for recorded in self.recorded.values()]
        with torch.cuda.graph(
            graph,
            pool=others[0] if others else None,
            stream=torch.cuda.current_stream(),
            capture_error_mode="thread_local",
        ):
            losses = work()
        return graph, losses


class WhileRecordable:
    """Graphed steps, or from a recording that fails on the ordinary ones, from the state before it.

    Which network waits for the device inside, say, and so cannot be recorded, only a recording
    tells. Raises torch.OutOfMemoryError where the memory does not suffice to record several
    trainings.
    """

    def __init__(self, steps: GraphedSteps, members: Sequence[Replica]):
        self.steps: Steps = steps
        self.members = members

    def __call__(self, batches: Sequence[Batch], number: int, lr: float) -> list[torch.Tensor]:
        """As `Steps`."""
        if not self._records_next(batches[0].n_global):
            return self.steps(batches, number, lr)
        before = [member.state() for member in self.members]
        try:
            return self.steps(batches, number, lr)
        except RuntimeError as error:
            cause = _cause(error)
            if isinstance(cause, torch.OutOfMemoryError) and len(self.members) > 1:
                raise cause from None  # fewer at once is faster than all of them one by one
            why = str(cause).partition("\n")[0]
            log.warning("this training goes on without CUDA graphs: %s", why)
            del cause
            self.steps = Steps(self.steps.members)
        # Only here is the error gone, and with it all that held the broken graph and its memory.
        for member, state in zip(self.members, before):
            member.load(state)
        return self.steps(batches, number, lr)

    def _records_next(self, size: int) -> bool:
        return isinstance(self.steps, GraphedSteps) and self.steps.records_next(size)


def _cause(error: RuntimeError) -> RuntimeError:
    """The first error: ending a recording that failed raises another in its wake."""
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return error
