"""The training loop on real digits: learning, repeating, resuming, failing."""

import contextlib
import io
import math
import threading
import time
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch.torch_version import TorchVersion
from torch.utils._python_dispatch import TorchDispatchMode

from equigrid.classifiers.compute import Speed
from equigrid.classifiers.data import rng
from equigrid.classifiers.data.batches import Resident
from equigrid.classifiers.data.mix import Mix
from equigrid.classifiers.evaluation import evaluate
from equigrid.classifiers.recipes import recipe, resolve
from equigrid.classifiers.training import cuda_graphs, loop
from equigrid.classifiers.training.cuda_graphs import GraphedSteps
from equigrid.classifiers.training.loop import NotFinite, Validation, train, train_together
from equigrid.classifiers.training.loss_monitor import LossWatch
from equigrid.classifiers.training.replica import Replica
from equigrid.classifiers.training.shadow_weights import ShadowWeights
from equigrid.classifiers.training.step import Step, Steps


def resolved(n_total, **changes):
    own = recipe({"extends": "digits", **changes})
    return resolve(own, n_base=n_total, n_total=n_total, n_dataset=1_797, classifier="digits-cnn")


def fit(digits, n=70, seed=0, model="digits-cnn", recipe_changes=None, **options):
    images, labels = digits
    own = resolved(n, **({"steps": 25} | (recipe_changes or {})))
    return train(
        images[:n],
        labels[:n],
        model=model,
        recipe=own,
        classes=10,
        seed=seed,
        device="cpu",
        **options,
    )


def weights(trained):
    return {name: value.clone() for name, value in trained.module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_digits_recipe_learns_real_digits_and_more_images_help(digits):
    images, labels = digits

    def accuracy(n):
        trained = fit(digits, n, recipe_changes={"steps": 300})
        return evaluate(trained.module, images[800:], labels[800:], classes=10, device="cpu").top1

    few, more = accuracy(50), accuracy(400)
    # measured: 88.7 ± 2.2 and 98.7 ± 0.3
    assert few > 78
    assert more > 97
    assert more > few


def test_the_loop_equals_a_plain_one(digits):
    """Against the loop one would write by hand: sums over whole and partial batches, rates,
    momentum, decay.
    """
    images, labels = digits
    own = resolved(70, steps=8, lr=0.05, warmup=0.0, weight_decay=0.01, momentum=0.8, label_smoothing=0.1,
                   decay={"kind": "multistep", "at": [0.25, 0.5], "factor": 0.3})  # fmt: skip
    trained = fit(digits, recipe_changes=own.payload())
    module, _ = begin(images[:70], labels[:70], own)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.8, weight_decay=0.01)
    x = torch.from_numpy(images[:70]).permute(0, 3, 1, 2)
    y = torch.from_numpy(labels[:70])
    rates = [0.05, 0.05, 0.015, 0.015, 0.0045, 0.0045, 0.0045, 0.0045]
    batches = []
    for epoch in range(3):
        order = torch.from_numpy(rng.epoch(0, epoch, 70, 8, 8, own.augmentation)[:, 0]).long()
        batches += [order[:32], order[32:64], order[64:]]
    module.train()
    for index, rate in zip(batches, rates):
        optimizer.param_groups[0]["lr"] = rate
        loss = torch.nn.functional.cross_entropy(module(x[index]), y[index], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in module.state_dict().items():
        # Float32, the same sums in another order.
        torch.testing.assert_close(trained.module.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def begin(images, labels, own):
    """The network before its first step, and the seed's initial weights twice drawn."""
    (feed,) = Resident.of(Mix.of(images, labels), own, [0], torch.device("cpu"))
    first, second = (Replica("digits-cnn", feed, own, 10, 0, Speed()).module for _ in range(2))
    assert same(first.state_dict(), second.state_dict())
    return first, second


class HostGraph:
    """What a CUDA graph does: `work` runs at each replay, and leaves its losses in one place."""

    def __init__(self, work, members):
        self.work, self.losses = work, [torch.zeros(()) for _ in members]

    def replay(self):
        for place, loss in zip(self.losses, self.work()):
            place.copy_(loss)


class HostGraphedSteps(GraphedSteps):
    """GraphedSteps without a device. `made`: the graphs of all trainings."""

    made: ClassVar[list] = []

    def __init__(self, members):
        Steps.__init__(self, members)
        # In float64, since the ordinary loop's rate is one: AdamW's steps would round otherwise.
        self.batch, self.lr = members[0].recipe.batch, self._rates(dtype=torch.float64)
        self.recorded, self.ordinary = {}, Counter()

    def _branches(self, batches):
        return [member(batch, 0) for member, batch in zip(self.members, batches)]

    def _record(self, work):
        self.made.append(HostGraph(work, self.members))
        return self.made[-1], self.made[-1].losses


class Unrecordable(HostGraphedSteps):
    """Its recording has spoilt the state when it fails."""

    def _record(self, work):
        work()
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")


@pytest.fixture
def unrecordable(monkeypatch):
    monkeypatch.setattr(loop, "GraphedSteps", Unrecordable)
    monkeypatch.setattr(Speed, "use_graphs", lambda *_: True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("n", "graphs"),
    [
        (70, 2),  # batches of 32, 32, 6
        (64, 1),
        (20, 1),  # fewer than a batch
    ],
)
@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "lr": 0.003}, {"head_lr": 0.03}])
def test_each_size_of_batch_is_recorded_and_replayed(digits, n, graphs, changes, monkeypatch):
    """Replays read the step's own images and rate: bitwise the ordinary training."""
    images, labels = digits
    changes = {"steps": 90, **changes}
    logs = [], []
    options = {
        "model": "digits-cnn",
        "recipe": resolved(n, **changes),
        "classes": 10,
        "device": "cpu",
    }
    with monkeypatch.context() as patched:
        patched.setattr(loop, "GraphedSteps", HostGraphedSteps)
        patched.setattr(HostGraphedSteps, "made", [])
        patched.setattr(Speed, "use_graphs", lambda *_: True)
        both = train_together(images[:n], labels[:n], seeds=[0, 7], log=logs[0].append, **options)
        assert len(HostGraphedSteps.made) == graphs
    ordinary = train_together(images[:n], labels[:n], seeds=[0, 7], log=logs[1].append, **options)
    assert logs[0] == logs[1]
    for one, other in zip(both, ordinary):
        assert same(weights(one), weights(other))


@pytest.mark.parametrize(("version", "broken"), [("2.11.0+cu130", True), ("2.12.0", False)])
@pytest.mark.usefixtures("unrecordable")
def test_a_process_whose_recording_failed_says_if_it_is_broken(
    digits, version, broken, monkeypatch
):
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    monkeypatch.setattr(cuda_graphs, "_broken", threading.Event())
    assert not cuda_graphs.process_is_broken()
    fit(digits)
    assert cuda_graphs.process_is_broken() == broken


def test_what_counts_memory_is_there_before_it_is_set_back(digits, monkeypatch):
    """The training may make the process's first CUDA call."""
    ready = []

    class Reached(Exception):
        pass

    def reset_peak_memory_stats(device):
        if not ready:
            raise RuntimeError("invalid argument to reset_peak_memory_stats")
        raise Reached

    monkeypatch.setattr(torch.cuda, "init", lambda: ready.append(True))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset_peak_memory_stats)
    with pytest.raises(Reached):
        train(*digits, model="digits-cnn", recipe=resolved(70), classes=10, seed=0, device="cuda:0")


def test_what_waits_for_other_workers_is_built_on_the_trainings_stream(digits, monkeypatch):
    happened = []

    @contextlib.contextmanager
    def own_stream(device):
        happened.append("stream")
        yield
        happened.append("back")

    class Noted(Replica):
        def step(self, *given):  # where DistributedDataParallel is built
            happened.append("built")
            return super().step(*given)

    monkeypatch.setattr(loop, "_own_stream", own_stream)
    monkeypatch.setattr(loop, "Replica", Noted)
    fit(digits)
    assert happened == ["stream", "built", "back"]


@pytest.mark.usefixtures("unrecordable")
@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "lr": 0.003}, {"head_lr": 0.03}])
def test_a_recording_that_fails_leaves_an_ordinary_training(digits, changes, caplog, monkeypatch):
    images, labels = digits
    own = resolved(70, **{"steps": 25, **changes})
    options = {
        "model": "digits-cnn",
        "recipe": own,
        "classes": 10,
        "device": "cpu",
        "seeds": [0, 7],
    }
    both = train_together(images[:70], labels[:70], **options)
    assert [record.getMessage() for record in caplog.records] == [
        "this training goes on without CUDA graphs: operation not permitted when stream is capturing"
    ]
    monkeypatch.undo()
    for trained, seed in zip(both, (0, 7)):
        assert same(weights(trained), weights(fit(digits, seed=seed, recipe_changes=changes)))


@pytest.mark.usefixtures("unrecordable")
def test_a_recording_that_was_asked_for_must_not_fail(digits, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.11.0+cu130"))
    monkeypatch.setattr(cuda_graphs, "_broken", threading.Event())
    with pytest.raises(RuntimeError, match="previous error during capture"):
        fit(digits, speed=Speed(graphs=True))
    assert cuda_graphs.process_is_broken()


@pytest.mark.usefixtures("unrecordable")
@pytest.mark.parametrize("seeds", [[0], [0, 7]])
def test_memory_that_does_not_suffice_to_record_several_is_said_and_for_one_got_around(
    digits, seeds, caplog, monkeypatch
):
    def full(self, work):
        work()
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(torch, "__version__", TorchVersion("2.11.0+cu130"))
    monkeypatch.setattr(cuda_graphs, "_broken", threading.Event())
    monkeypatch.setattr(Unrecordable, "_record", full)
    images, labels = digits
    options = {"model": "digits-cnn", "recipe": resolved(70, steps=25), "classes": 10}

    def made():
        return train_together(images[:70], labels[:70], seeds=seeds, device="cpu", **options)

    if len(seeds) > 1:
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            made()
        assert cuda_graphs.process_is_broken()
        return
    (trained,) = made()
    assert cuda_graphs.process_is_broken()
    assert caplog.messages == ["this training goes on without CUDA graphs: CUDA out of memory"]
    monkeypatch.undo()
    assert same(weights(trained), weights(fit(digits)))


@pytest.mark.usefixtures("unrecordable")
def test_an_error_before_the_recording_is_the_trainings_own(digits, caplog, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(Unrecordable, "_branches", broken)
    with pytest.raises(RuntimeError, match="broken"):
        fit(digits)
    assert not caplog.records


def test_cudnn_stays_on_and_only_its_benchmark_changes(monkeypatch):
    cudnn = torch.backends.cudnn
    names = (
        "enabled",
        "benchmark",
        "benchmark_limit",
        "deterministic",
        "allow_tf32",
        "fp32_precision",
    )
    monkeypatch.setattr(cudnn, "deterministic", True)
    monkeypatch.setattr(cudnn, "benchmark_limit", 3)
    before = {name: getattr(cudnn, name) for name in names}
    with loop.cudnn_benchmark():
        assert {name: getattr(cudnn, name) for name in names} == before | {"benchmark": True}
        assert cudnn.enabled
    assert {name: getattr(cudnn, name) for name in names} == before
    with pytest.raises(KeyError), loop.cudnn_benchmark():
        raise KeyError
    assert not cudnn.benchmark


def train_beside(number, barrier, images, labels, folder):
    """One of several processes that make each step at the same time."""
    torch.set_num_threads(1)
    trained = fit((images, labels), seed=number, checkpoint=lambda *_: barrier.wait(60))
    torch.save(weights(trained), f"{folder}/{number}.pt")


@pytest.mark.long
def test_processes_beside_each_other_train_as_alone(digits, tmp_path):
    barrier = mp.get_context("spawn").Barrier(2)
    mp.spawn(train_beside, (barrier, *(array[:70] for array in digits), str(tmp_path)), nprocs=2)
    for seed in range(2):
        assert same(
            torch.load(tmp_path / f"{seed}.pt", weights_only=True), weights(fit(digits, seed=seed))
        )


def test_same_seed_is_bitwise_and_another_seed_is_not(digits):
    first, again, other = weights(fit(digits)), weights(fit(digits)), weights(fit(digits, seed=1))
    assert same(first, again)
    assert not same(first, other)


def test_global_random_state_neither_matters_nor_changes(digits):
    torch.manual_seed(1)
    first = weights(fit(digits))
    torch.manual_seed(2)
    np.random.seed(3)  # noqa: NPY002 - the legacy state is what is tested
    state = torch.get_rng_state()
    assert same(first, weights(fit(digits)))
    assert torch.equal(state, torch.get_rng_state())


def test_parts_of_shards_train_as_one_array(digits):
    images, labels = digits
    mix = Mix([(images, labels, np.arange(30)), (images[30:], labels[30:], np.arange(40))])
    out = train(
        mix, model="digits-cnn", recipe=resolved(70, steps=25), classes=10, seed=0, device="cpu"
    )
    assert same(weights(out), weights(fit(digits)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "lr": 0.003},
        {
            "augmentation": {"crop_padding_px": 1, "flip": True},
            "label_smoothing": 0.1,
            "nesterov": True,
        },
    ],
)
def test_resumed_equals_uninterrupted_bitwise(digits, changes):
    states = {}

    def keep(step, make_state):
        # In the first epoch, at an epoch's end, in the middle, after the last step.
        if step in (1, 3, 11, 25):
            buffer = io.BytesIO()
            torch.save(make_state(), buffer)
            states[step] = buffer

    whole = fit(digits, recipe_changes=changes, checkpoint=keep)
    assert sorted(states) == [1, 3, 11, 25]
    for step, buffer in states.items():
        buffer.seek(0)
        state = torch.load(buffer, weights_only=True)
        rest = fit(digits, recipe_changes=changes, resume=state)
        assert same(weights(whole), weights(rest)), step
        assert rest.steps == whole.steps
        assert rest.seconds >= state["seconds"]


def test_a_state_is_a_copy_and_not_made_unless_asked_for(digits):
    steps, states = [], []

    def keep(step, make_state):
        steps.append(step)
        if step == 2:
            states.append(make_state())

    trained = fit(digits, checkpoint=keep)
    assert steps == list(range(1, 26))
    assert not torch.equal(
        states[0]["members"][0]["module"]["network.head.weight"], trained.module.network.head.weight
    )


def test_a_checkpoint_of_another_training_is_refused(digits):
    states = []
    fit(digits, checkpoint=lambda step, make: states.append(make()) if step == 20 else None)
    with pytest.raises(ValueError, match="another training"):
        fit(digits, n=71, resume=states[0])
    with pytest.raises(ValueError, match="another training"):
        fit(digits, recipe_changes={"steps": 10}, resume=states[0])


def test_counts_and_log(digits):
    lines = []
    out = fit(digits, recipe_changes={"steps": 25}, log=lines.append)
    # 70 images in batches of 32: three steps an epoch, the last of 6 images
    assert (out.steps, out.epochs) == (25, pytest.approx(25 / 3))
    assert out.images_per_s == pytest.approx((8 * 70 + 32) / out.seconds)
    assert out.peak_device_bytes > 0
    assert not out.module.training
    assert [line["step"] for line in lines] == [24]
    assert set(lines[0]) == {"epoch", "step", "loss", "lr", "seed"}
    assert lines[0]["epoch"] == 8
    assert math.isfinite(lines[0]["loss"])


def test_a_batch_larger_than_the_data_is_all_of_the_data(digits):
    out = fit(digits, n=7, recipe_changes={"steps": 3})
    assert out.epochs == 3


@pytest.mark.parametrize("bad", [5, 68, 69, 132, 133, 149])
def test_the_watch_names_the_exact_step(bad):
    reports = []
    watch = LossWatch(
        torch.device("cpu"), 5, 10, report=lambda step, loss: reports.append((step, loss))
    )

    def feed():
        for step in range(5, 150):
            watch.add(torch.tensor(math.inf if step == bad else float(step)))
        watch.finish()

    with pytest.raises(NotFinite) as raised:
        feed()
    assert (raised.value.step, raised.value.epoch) == (bad, bad // 10)
    # chunks of 64 steps, each read one chunk late, with its last step and its mean
    assert reports == [(68, 36.5), (132, 100.5)][: (bad - 5) // 64]


@pytest.mark.parametrize("steps", [40, 200])
def test_a_loss_that_is_not_finite_is_named_with_its_step(digits, steps):
    with pytest.raises(NotFinite, match="epoch") as raised:
        fit(digits, recipe_changes={"steps": steps, "lr": 1e30, "warmup": 0.0})
    assert raised.value.epoch == raised.value.step // 3
    assert 1 <= raised.value.step < 5
    assert not math.isfinite(raised.value.loss)


def test_learning_rates_are_those_of_the_recipe(digits, monkeypatch):
    seen, step = [], torch.optim.SGD.step

    def spy(optimizer):
        seen.append(optimizer.param_groups[0]["lr"])
        return step(optimizer)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    fit(digits)
    own = resolved(70, steps=25)
    assert seen == [own.lr_at(step, 70) for step in range(25)]


def test_seeds_trained_together_are_each_as_alone(digits):
    images, labels = digits
    states, own = [], resolved(70, steps=25)
    options = {"model": "digits-cnn", "recipe": own, "classes": 10, "device": "cpu"}
    keep = lambda step, make: states.append(make()) if step in (10, 11) else None  # noqa: E731
    both = train_together(images[:70], labels[:70], seeds=[0, 7], checkpoint=keep, **options)
    again = train_together(images[:70], labels[:70], seeds=[0, 7], resume=states[0], **options)
    for trained, resumed, seed, state in zip(both, again, (0, 7), states[0]):
        alone = weights(fit(digits, seed=seed))
        assert same(alone, weights(trained))
        assert same(alone, weights(resumed))
        assert same(alone, weights(fit(digits, seed=seed, resume=state)))  # a seed's own state
    mixed = [states[0][0], states[1][1]]
    with pytest.raises(ValueError, match=r"2 of steps \[10, 11\]"):
        train_together(images[:70], labels[:70], seeds=[0, 7], resume=mixed, **options)
    with pytest.raises(ValueError, match="2 seeds"):
        fit(digits, resume={**states[0][0], "members": 2 * states[0][0]["members"]})
    with pytest.raises(ValueError, match="each once"):
        train_together(images, labels, seeds=[1, 1], **options)


@pytest.fixture
def spoilt(monkeypatch):
    """Spoils the weights of one seed after so many of its steps, so that its loss is NaN."""

    def spoil(seed: int, after: int) -> None:
        step, own = Replica.step, Step.__call__
        doomed, done = set(), Counter()

        def known(self, *given):
            made = step(self, *given)
            if self.seed == seed:
                doomed.add(made)
            return made

        def call(self, batch, number):
            loss = own(self, batch, number)
            done[self] += 1
            if self in doomed and done[self] == after:
                next(self.module.parameters()).data.fill_(float("nan"))
            return loss

        monkeypatch.setattr(Replica, "step", known)
        monkeypatch.setattr(Step, "__call__", call)

    return spoil


@pytest.mark.long
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("steps", [25, 200])
def test_a_seed_that_fails_ends_alone(digits, steps, graphs, spoilt, monkeypatch):
    """In mid-epoch, or at the end of all; its images, steps and rates are then the others' no
    more.
    """
    images, labels = digits
    whole = {"recipe_changes": {"steps": steps}}
    alone = {seed: weights(fit(digits, seed=seed, **whole)) for seed in (0, 7)}
    options = {"model": "digits-cnn", "recipe": resolved(70, steps=steps), "classes": 10}
    if graphs:
        monkeypatch.setattr(loop, "GraphedSteps", HostGraphedSteps)
        monkeypatch.setattr(HostGraphedSteps, "made", [])
        monkeypatch.setattr(Speed, "use_graphs", lambda *_: True)
    spoilt(seed=3, after=14)
    states, logs = [], []
    first, failed, last = train_together(
        images[:70], labels[:70], seeds=[0, 3, 7], device="cpu", log=logs.append,
        checkpoint=lambda step, make: states.append(make()), **options,
    )  # fmt: skip
    assert same(alone[0], weights(first))
    assert same(alone[7], weights(last))
    assert isinstance(failed, NotFinite)
    assert (failed.step, failed.epoch) == (14, 4)
    assert len(states) == steps  # each of them made once
    assert [state is None for state in states[-1]] == [False, steps > 128, False]
    assert first.steps == last.steps == steps
    assert {row["seed"] for row in logs if row["step"] > 128} <= {0, 7}


def test_time_is_shared_by_those_that_train_together(digits):
    images, labels = digits
    options = {"model": "digits-cnn", "recipe": resolved(70, steps=25), "classes": 10}
    began = time.perf_counter()
    both = train_together(images[:70], labels[:70], seeds=[0, 7], device="cpu", **options)
    assert 0 < sum(trained.seconds for trained in both) <= time.perf_counter() - began
    assert both[0].seconds == both[1].seconds
    assert both[0].images_per_s == pytest.approx(25 / 3 * 70 / both[0].seconds, rel=0.15)


def test_validation_looks_every_few_epochs_and_changes_nothing(digits):
    images, labels = digits
    states = []
    keep = lambda step, make: states.append(make()) if step == 20 else None  # noqa: E731
    look = Validation(Mix.of(images[500:700], labels[500:700]), every_epochs=2)
    out = fit(digits, validation=look, checkpoint=keep)
    # three steps an epoch: after 2, 4, 6, 8 epochs, and at the end
    assert [steps for steps, _ in out.validation] == [6, 12, 18, 24, 25]
    assert same(weights(out), weights(fit(digits)))
    alone = evaluate(out.module, look.mix, classes=10, device="cpu")
    assert out.validation[-1][1] == alone
    assert fit(digits, validation=look, resume=states[0]).validation == out.validation
    with pytest.raises(ValueError, match="every_epochs"):
        Validation(look.mix, every_epochs=0)


def test_dropout_is_drawn_from_the_seed_and_the_step(digits, monkeypatch):
    from equigrid.classifiers.models.digits import DigitsCNN

    plain = DigitsCNN.forward

    def init(self, *args, _init=DigitsCNN.__init__):
        _init(self, *args)
        self.dropout = torch.nn.Dropout(0.3)

    monkeypatch.setattr(DigitsCNN, "__init__", init)
    monkeypatch.setattr(DigitsCNN, "forward", lambda self, x: self.dropout(plain(self, x)))
    states = []
    torch.manual_seed(1)
    whole = fit(digits, checkpoint=lambda step, make: states.append(make()) if step == 10 else None)
    torch.manual_seed(2)
    assert same(weights(whole), weights(fit(digits)))
    assert same(weights(whole), weights(fit(digits, resume=states[0])))
    assert not same(weights(whole), weights(fit(digits, seed=1)))

    masks = []

    def keep_mask(self, x):
        masks.append(self.dropout(torch.ones(50)))
        return plain(self, x)

    monkeypatch.setattr(DigitsCNN, "forward", keep_mask)
    fit(digits, recipe_changes={"steps": 4})
    assert len({tuple(mask.tolist()) for mask in masks}) == 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "resnet11"}, "resnet110"),
        ({"model": "resnet50"}, "at least 32×32"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_input_is_named(digits, options, said):
    with pytest.raises(ValueError, match=said):
        fit(digits, **options)


def test_bad_data_is_named(digits):
    images, labels = digits
    options = {"model": "digits-cnn", "seed": 0, "device": "cpu"}
    with pytest.raises(ValueError, match="at least 2 classes"):
        train(images[:5], labels[:5] * 0, recipe=resolved(5), classes=1, **options)
    with pytest.raises(ValueError, match=r"labels must be 0\.\.4"):
        train(images, labels, recipe=resolved(1_797), classes=5, **options)
    with pytest.raises(ValueError, match="empty"):
        train(images[:0], labels[:0], recipe=resolved(5), classes=10, **options)
    colours = resolved(5, normalisation={"mean": [0, 0, 0], "std": [1, 1, 1]})
    with pytest.raises(ValueError, match="normalises 3 channels"):
        train(images[:5], labels[:5], recipe=colours, classes=10, **options)


# Weights cast at once -----------------------------------------------------------------------------


@pytest.fixture
def cast_at_once(monkeypatch):
    """As on a GPU; the casts that a training made by foreach are counted."""
    init = Replica.__init__

    def made(self, *given):
        init(self, *given)
        self.casts_at_once = True

    monkeypatch.setattr(Replica, "__init__", made)


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "lr": 0.003}, {"head_lr": 0.03}])
@pytest.mark.parametrize("model", ["digits-cnn", "resnet20"])
def test_weights_cast_at_once_train_bitwise_as_autocasts_do(digits, model, changes, request):
    changes, speed = {"steps": 12, **changes}, Speed(bf16=True)
    states: list[list] = [[], []]
    trained = []
    for kept in states:
        keep = lambda step, make, kept=kept: kept.append(make())  # noqa: E731
        options = {"recipe_changes": changes, "speed": speed, "model": model}
        trained.append(fit(digits, checkpoint=keep, **options))
        request.getfixturevalue("cast_at_once")  # for the second
    assert same(weights(trained[0]), weights(trained[1]))
    one, other = (kept[5]["members"][0] for kept in states)
    assert same(one["module"], other["module"])
    assert all(v.dtype != torch.bfloat16 for v in other["module"].values())
    whole = fit(digits, resume=states[1][5], **options)
    assert same(weights(whole), weights(trained[0]))


def test_a_step_casts_its_weights_and_their_gradients_by_one_operation_each(digits):
    images, labels = digits
    module, _ = begin(images[:70], labels[:70], resolved(70))
    module.bf16 = True

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            counts[str(func).removeprefix("aten.")] += 1
            return func(*args, **(kwargs or {}))

    layers = sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in module.modules())
    (feed,) = Resident.of(Mix.of(images[:70], labels[:70]), resolved(70), [0], torch.device("cpu"))
    batch = next(feed.batches(0, 0))
    found = []
    for shadows in (None, ShadowWeights(module)):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
        step = Step(module.train(), optimizer, resolved(70), shadows=shadows)
        step(batch, 0)
        counts: Counter[str] = Counter()
        with Casts():
            step(batch, 1)
        found.append(counts)
    autocast, at_once = found
    assert at_once["_foreach_copy_.default"] == 2
    # Each layer has a weight at least, cast on the way there and back.
    assert autocast["_to_copy.default"] - at_once["_to_copy.default"] >= 2 * layers
    assert all(p.grad.stride() == p.stride() for p in module.parameters())


def test_what_a_layer_holds_comes_back_after_an_error_and_shared_weights_stay_shared():
    first, second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    second.weight = first.weight
    shadows = ShadowWeights(torch.nn.Sequential(first, second))
    weight = first.weight
    assert len(shadows.weights) == 3

    def step():
        with shadows.in_place():
            assert first.weight is second.weight is not weight
            assert first.weight.dtype == torch.bfloat16
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        step()
    assert first.weight is second.weight is weight
