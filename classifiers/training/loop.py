"""The one training loop of all classifiers."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from equigrid.classifiers import distributed
from equigrid.classifiers.compute import Speed
from equigrid.classifiers.data.batches import Batch, Resident
from equigrid.classifiers.data.mix import Mix, as_mix, check_labels
from equigrid.classifiers.data.stream import Streamed, StreamedMix
from equigrid.classifiers.evaluation import Evaluation
from equigrid.classifiers.models import Head
from equigrid.classifiers.models.network import Classifier
from equigrid.classifiers.models.pretraining import Start
from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.classifiers.training.cuda_graphs import (
    GraphedSteps,
    WhileRecordable,
    process_is_broken,
    stream_of,
)
from equigrid.classifiers.training.loss_monitor import LossWatch, NotFinite
from equigrid.classifiers.training.replica import Feed, Replica
from equigrid.classifiers.training.step import Step, Steps

__all__ = ["NotFinite", "Trained", "Validation", "train", "train_together"]

State = dict[str, Any]
Images = np.ndarray | Mix | StreamedMix
Checkpoint = Callable[[int, Callable[[], State]], None]
CheckpointOfSeveral = Callable[[int, Callable[[], list[State | None]]], None]
Log = Callable[[dict[str, Any]], None]


def ignore(*_: Any) -> None:
    """The callback that does nothing."""


@dataclass(frozen=True)
class Validation:
    """A split of the training data to look at every few epochs and at the end. Nothing is selected
    by it here. every_steps: look by steps instead. told: takes (steps done, Evaluation) of each
    look, of each seed; what it raises ends the training.
    """

    mix: Mix
    every_epochs: int = 1
    every_steps: int | None = None
    told: Callable[[int, Evaluation], object] = ignore

    def __post_init__(self) -> None:
        for name in ("every_epochs", "every_steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class Trained:
    """A finished training.

    module: in evaluation mode, on its device, without the multi-worker wrapper. epochs: passes over
    the data (a fraction if the steps end inside one). seconds: wall time of the loop, earlier
    attempts included; of several that train together, each has its equal share. images_per_s: of
    this attempt, in these seconds. peak_device_bytes: the allocator's peak on a GPU, the process's
    peak resident size on a CPU, of all that train together. validation: (steps done, Evaluation),
    rank 0's only.
    """

    module: Classifier = field(repr=False)
    epochs: float
    steps: int
    seconds: float
    images_per_s: float
    peak_device_bytes: int
    validation: list[tuple[int, Evaluation]] = field(default_factory=list)


def train(
    images: Images,
    labels: np.ndarray | None = None,
    *,
    model: str,
    recipe: ResolvedRecipe,
    classes: int,
    seed: int,
    device: torch.device | str,
    resume: State | None = None,
    checkpoint: Checkpoint = ignore,
    log: Log = ignore,
    validation: Validation | None = None,
    speed: Speed = Speed(),  # noqa: B008 - frozen
    head: Head | None = None,
    start: Start | None = None,
) -> Trained:
    """Train a classifier, from scratch or from pre-trained weights.

    images: (N, H, W, C) uint8 with labels (N,) int64, or a Mix, which go onto the device whole; or
    a StreamedMix, which does not, and whose recipe must give the normalisation. seed: 0 <= seed <
    2**63; it determines the initial weights, the order of images and their augmentation, for any
    device and number of workers. checkpoint(step, make_state): called on rank 0 after each step
    (steps done so far); make_state() copies the state to the host, and that state given as `resume`
    continues the training bitwise on a CPU. log: receives {"epoch", "step", "loss", "lr", "seed"}
    on rank 0 every few dozen steps, some steps late. head: makes what takes the place of the
    classifier's last layer, start: the pre-trained weights that it begins with, see
    `equigrid.classifiers.models.build`. If torch.distributed is
    initialised, all workers train together on the recipe's (global) batch.

    Raises ValueError for a classifier or data that do not fit, and NotFinite, with epoch and step.
    """
    (trained,) = train_together(
        images, labels, model=model, recipe=recipe, classes=classes, seeds=[seed], device=device,
        resume=[resume], checkpoint=lambda step, make: checkpoint(step, lambda: one(make())),
        log=log, validation=validation, speed=speed, head=head, start=start,
    )  # fmt: skip
    if isinstance(trained, FloatingPointError):
        raise trained
    return trained


def one(states: Sequence[State | None]) -> State:
    """The state of the only training among those that train together."""
    (state,) = states
    assert state is not None, "a training that ended has no next step"
    return state


def train_together(
    images: Images,
    labels: np.ndarray | None = None,
    *,
    model: str,
    recipe: ResolvedRecipe,
    classes: int,
    seeds: Sequence[int],
    device: torch.device | str,
    resume: Sequence[State | None] = (),
    checkpoint: CheckpointOfSeveral = ignore,
    log: Log = ignore,
    validation: Validation | None = None,
    speed: Speed = Speed(),  # noqa: B008 - frozen
    head: Head | None = None,
    start: Start | None = None,
) -> list[Trained | FloatingPointError]:
    """Train one classifier per seed on the same images, step by step beside each other; else as
    `train`.

    Each comes out as it would alone (on a CPU bitwise). On a GPU their steps run as branches of one
    CUDA graph, and the images lie there once. A loss that is not finite, in training or validation,
    ends that seed alone, and the error stands in its place. checkpoint, resume: states by seed,
    each the same as `train` makes and takes, so that a seed may go on alone, or beside others; None
    for a seed that ended, or has none. Raises ValueError for states of different steps.
    """
    device = torch.device(device)
    _reset_peak(device)
    feeds = _feeds(images, labels, recipe, seeds, classes, device)
    recipe.augmentation.check(*feeds[0].image_shape)
    members = [
        Replica(model, feed, recipe, classes, seed, speed, head, start)
        for feed, seed in zip(feeds, seeds)
    ]
    devices = [device] if device.type == "cuda" else []
    with _own_stream(device), torch.random.fork_rng(devices=devices):
        # On that stream too: DistributedDataParallel notes where it is built, and waits for it in
        # each step that runs elsewhere.
        loop = _Loop(members, recipe, speed, list(resume) or [None] * len(members), validation)
        loop.run(checkpoint, log)
    return [loop.failed.get(member) or loop.trained(member) for member in members]


def _feeds(
    images: Images,
    labels: np.ndarray | None,
    recipe: ResolvedRecipe,
    seeds: Sequence[int],
    classes: int,
    device: torch.device,
) -> Sequence[Feed]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be one or more, each once, got {list(seeds)}")
    if isinstance(images, StreamedMix):
        if labels is not None or len(seeds) > 1:
            raise ValueError(
                "a StreamedMix brings its own labels (pass None) and trains one seed at a time"
            )
        return [Streamed(images, recipe, seeds[0], classes, device)]
    mix = as_mix(images, labels)
    check_labels(mix.labels(), classes)
    return Resident.of(mix, recipe, seeds, device)


@dataclass(frozen=True)
class _Branch:
    """One member of a loop, as long as it goes on."""

    member: Replica
    step: Step
    watch: LossWatch


class _Loop:
    """All members' training between two steps. failed: what ended a member before the others."""

    def __init__(
        self,
        members: list[Replica],
        recipe: ResolvedRecipe,
        speed: Speed,
        resume: list[State | None],
        validation: Validation | None,
    ):
        self.members, self.speed, self.validation = members, speed, validation
        self.failed: dict[Replica, FloatingPointError] = {}
        self.device, self.n_total = members[0].feed.device, members[0].feed.n_total
        self.steps_per_epoch = recipe.steps_per_epoch(self.n_total)
        self.total_steps = recipe.total_steps(self.n_total)
        self.lr = [recipe.lr_at(step, self.n_total) for step in range(self.total_steps)]
        self.rank, self.workers = distributed.world()
        self.step, self.images = 0, 0  # steps done in all; images of each member in this attempt
        self.seconds_before = dict.fromkeys(members, 0.0)  # earlier attempts
        self.seconds_now, self._since = 0.0, time.perf_counter()  # a member's share of this one
        self._steps = {
            member: member.step(recipe, self.rank, self.workers) for member in self.members
        }
        graphs = speed.use_graphs(self.device, self.total_steps, self._against_graphs())
        self._load(resume)
        self.make_step = self._stepping(members, graphs)

    def _against_graphs(self) -> str | None:
        """Why this training's steps cannot be replayed, if so."""
        if process_is_broken():
            return "a process in which a recording failed"
        if self.workers > 1:
            return f"{self.workers} workers"
        if any(member.has_dropout for member in self.members):
            return "a classifier with dropout"
        if not isinstance(self.members[0].feed, Resident):
            return "streamed images"
        return None

    def _stepping(self, members: list[Replica], graphs: bool) -> Steps | WhileRecordable:
        steps = [self._steps[member] for member in members]
        if not graphs:
            return Steps(steps)
        graphed = GraphedSteps(steps)
        return WhileRecordable(graphed, members) if self.speed.graphs is None else graphed

    # The steps ------------------------------------------------------------------------------------

    def run(self, checkpoint: CheckpointOfSeveral, log: Log) -> None:
        """Makes the steps that are left."""
        self._since = time.perf_counter()
        self.branches = [
            _Branch(member, self._steps[member], self._watch(member, log))
            for member in self.members
        ]
        for member in self.members:
            member.module.train()
        while self.step < self.total_steps and self.branches:
            self._until_an_epoch_or_a_member_ends(checkpoint)
        self._each(lambda branch, _: branch.watch.finish(), self.branches)
        self._count_time()

    def _until_an_epoch_or_a_member_ends(self, checkpoint: CheckpointOfSeveral) -> None:
        with contextlib.ExitStack() as stack:
            for batches in zip(*self._open_feeds(stack)):
                losses = self.make_step(batches, self.step, self.lr[self.step])
                self.step += 1
                self.images += batches[0].n_global
                all_go_on = self._each(lambda branch, loss: branch.watch.add(loss), losses)
                if self.rank == 0:
                    all_go_on &= self._validate()
                    checkpoint(self.step, self._states)
                if self.step == self.total_steps or not all_go_on:
                    break

    def _each(self, look: Callable[[_Branch, Any], None], values: Sequence[Any]) -> bool:
        """Looks at each member, with a value of its own; those whose numbers are not finite end.
        Whether all go on.
        """
        ended = {}
        for branch, value in zip(self.branches, values):
            try:
                look(branch, value)
            except FloatingPointError as error:
                # Without its traceback, whose frames hold all that lies on the device.
                ended[branch.member] = error.with_traceback(None)
        if ended:
            self._end(ended)
        return not ended

    def _end(self, members: dict[Replica, FloatingPointError]) -> None:
        self._count_time()
        self.failed |= members
        self.branches = [branch for branch in self.branches if branch.member not in members]
        if self.device.type == "cuda":  # it may still be replaying what is let go here
            torch.cuda.synchronize(self.device)
        if self.branches:
            graphs = isinstance(getattr(self.make_step, "steps", self.make_step), GraphedSteps)
            self.make_step = self._stepping([branch.member for branch in self.branches], graphs)

    def _open_feeds(self, stack: contextlib.ExitStack) -> list[Iterator[Batch]]:
        epoch, first = divmod(self.step, self.steps_per_epoch)
        feeds = (branch.member.feed.batches(epoch, first) for branch in self.branches)
        return [stack.enter_context(contextlib.closing(feed)) for feed in feeds]

    def _watch(self, member: Replica, log: Log) -> LossWatch:
        def report(step: int, loss: float) -> None:
            if self.rank == 0:
                row = {"epoch": step // self.steps_per_epoch, "step": step, "loss": loss}
                log({**row, "lr": self.lr[step], "seed": member.seed})

        reduce = dist.all_reduce if self.workers > 1 else None
        return LossWatch(self.device, self.step, self.steps_per_epoch, reduce=reduce, report=report)

    def _validate(self) -> bool:
        """Looks at the validation split when it is time; whether all members go on."""
        if self.validation is None:
            return True
        of_epochs = self.validation.every_epochs * self.steps_per_epoch
        between = self.step % (self.validation.every_steps or of_epochs) != 0
        if between and self.step < self.total_steps:
            return True
        mixes = [self.validation.mix] * len(self.branches)
        all_go_on = self._each(lambda branch, mix: branch.member.validate(self.step, mix), mixes)
        for branch in self.branches:
            self.validation.told(self.step, Evaluation(**branch.member.validated[-1][1]))
        return all_go_on

    # What they come to ----------------------------------------------------------------------------

    def _count_time(self) -> None:
        """Time goes by for all members that go on alike."""
        now = time.perf_counter()
        self.seconds_now += (now - self._since) / max(1, len(self.branches))
        self._since = now

    def trained(self, member: Replica) -> Trained:
        """A member that made all steps."""
        return Trained(
            module=member.module.eval(),
            epochs=self.total_steps / self.steps_per_epoch,
            steps=self.total_steps,
            seconds=self.seconds_before[member] + self.seconds_now,
            images_per_s=self.images / self.seconds_now if self.images else 0.0,
            peak_device_bytes=peak_bytes(self.device),
            validation=[(steps, Evaluation(**result)) for steps, result in member.validated],
        )

    def _states(self) -> list[State | None]:
        """By member. Tensors, numbers, strings, lists and dicts only: torch.load(weights_only=True)
        reads them.
        """
        self._count_time()
        return [None if member in self.failed else self._state(member) for member in self.members]

    def _state(self, member: Replica) -> State:
        return {
            "step": self.step,
            "n_total": self.n_total,
            "seconds": self.seconds_before[member] + self.seconds_now,
            "members": [member.state()],
        }

    def _load(self, states: list[State | None]) -> None:
        steps = {0 if state is None else state["step"] for state in states}
        if len(states) != len(self.members) or len(steps) > 1:
            raise ValueError(
                f"{len(self.members)} seeds go on from as many states of one step; got "
                f"{len(states)} of steps {sorted(steps)}"
            )
        (self.step,) = steps
        for member, state in zip(self.members, states):
            if state is not None:
                self._load_one(member, state)

    def _load_one(self, member: Replica, state: State) -> None:
        fits = state["n_total"] == self.n_total and len(state["members"]) == 1
        if not fits or not 0 <= state["step"] <= self.total_steps:
            raise ValueError(
                f"the checkpoint is of another training: step {state['step']} on "
                f"{state['n_total']} images, {len(state['members'])} seeds; "
                f"this one has {self.total_steps} steps on {self.n_total}, 1 seed"
            )
        self.seconds_before[member] = state["seconds"]
        member.load(state["members"][0])


@contextlib.contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """A CUDA stream of the training's own: one that may be captured."""
    if device.type != "cuda":
        yield
        return
    outer = torch.cuda.current_stream(device)
    own = stream_of(device, 0)
    own.wait_stream(outer)
    try:
        with torch.cuda.device(device), torch.cuda.stream(own), cudnn_benchmark():
            yield
    except BaseException:
        # What the error lets go was made on the outer stream, and steps that were launched may
        # still write there: on this stream, and on the branches' own.
        with contextlib.suppress(RuntimeError):  # the error itself may be the device's
            torch.cuda.synchronize(device)
        raise
    outer.wait_stream(own)


@contextlib.contextmanager
def cudnn_benchmark() -> Iterator[None]:
    """cuDNN tries its kernels and keeps the fastest; every other flag stays as it is.

    `torch.backends.cudnn.flags` would set all of them to defaults of its own, among them
    enabled=False.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.init()  # this may be the process's first CUDA call, and before it nothing counts
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int:
    """The allocator's peak on a GPU since the training began, else this process's peak resident
    size.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
