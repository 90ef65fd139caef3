"""Steps of several trainings recorded once, as one CUDA graph, and replayed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from equigrid.classifiers.data.batches import Batch
from equigrid.classifiers.training.replica import Replica
from equigrid.classifiers.training.step import Step, Steps

log = logging.getLogger("equigrid.classifiers")


class GraphedSteps(Steps):
    """The same steps recorded once, as one CUDA graph with a branch per member, and replayed.

    A single network of 32×32 images leaves most of a large GPU idle, so branches run beside each
    other. The first WARM_UP_STEPS are ordinary training steps: they make cuDNN choose its kernels
    and the optimizer make its buffers, as a capture must not. Partial batches run op by op. The
    batches' images must be the same tensors in every step, and the members draw no random numbers.
    To be called on one and the same stream throughout, which must not be the default stream.
    """

    WARM_UP_STEPS = 11

    def __init__(self, members: Sequence[Step]):
        super().__init__(members)
        device = next(self.members[0].module.parameters()).device
        self.batch = self.members[0].recipe.batch
        # The rate is read from the device, so that a replay sees each step's.
        self.lr = torch.zeros((), device=device)
        for member in self.members:
            member.set_lr(self.lr)
        self.streams = [torch.cuda.Stream(device) for _ in self.members]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.full_batches = 0

    def __call__(self, batches: Sequence[Batch], number: int, lr: float) -> list[torch.Tensor]:
        self.lr.fill_(lr)
        if batches[0].n_global < self.batch:
            return self._branches(batches)
        self.full_batches += 1
        if self.full_batches <= self.WARM_UP_STEPS:
            return self._branches(batches)
        if self.graph is None:
            self.graph = self._capture(batches)
        for own, batch in zip(self.draws, batches):
            own.copy_(batch.draws)
        self.graph.replay()
        return [loss.clone() for loss in self.losses]

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

    def _capture(self, batches: Sequence[Batch]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        self.draws = [batch.draws.clone() for batch in batches]
        own = [
            Batch(b.padded, b.targets, table, b.n_global) for b, table in zip(batches, self.draws)
        ]
        # Gradients must be made inside the capture, where they get their lasting place.
        for member in self.members:
            member.drop_gradients()
        stream = torch.cuda.current_stream()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self.losses = self._branches(own)
        return graph


class WhileRecordable:
    """Graphed steps, or from a recording that fails on the ordinary ones, from the state before it.

    Which network waits for the device inside, say, and so cannot be recorded, only a recording
    tells.
    """

    def __init__(self, steps: GraphedSteps, members: Sequence[Replica]):
        self.steps: Steps = steps
        self.members = members

    def __call__(self, batches: Sequence[Batch], number: int, lr: float) -> list[torch.Tensor]:
        """As `Steps`."""
        if not self._may_record_now():
            return self.steps(batches, number, lr)
        before = [member.state() for member in self.members]
        try:
            return self.steps(batches, number, lr)
        except RuntimeError as error:
            log.warning("this training goes on without CUDA graphs: %s", _cause(error))
            self.steps = Steps(self.steps.members)
        # Only here is the error gone, and with it all that held the broken graph and its memory.
        for member, state in zip(self.members, before):
            member.load(state)
        return self.steps(batches, number, lr)

    def _may_record_now(self) -> bool:
        steps = self.steps
        return (
            isinstance(steps, GraphedSteps)
            and steps.graph is None
            and steps.full_batches == steps.WARM_UP_STEPS
        )


def _cause(error: BaseException) -> str:
    """The first line of the first error: ending a recording that failed raises another in its
    wake.
    """
    while isinstance(error.__context__, RuntimeError):
        error = error.__context__
    return str(error).partition("\n")[0]
