"""What a device with streams would see, told by streams that know what lies behind them: each step
has all that it reads behind it, and nothing is let go that a stream still uses.
"""

import contextlib
import threading
from types import SimpleNamespace

import pytest
import torch

from equigrid.classifiers.compute import Speed
from equigrid.classifiers.data.batches import Batch
from equigrid.classifiers.training import cuda_graphs, loop
from equigrid.classifiers.training.cuda_graphs import GraphedSteps, process_is_broken

CUDA = torch.device("cuda:0")


class Stream:
    """behind: the work that is done before anything that is launched on it from now on."""

    def __init__(self, name: str):
        self.name, self.behind = name, set()

    def launch(self, work: str) -> None:
        self.behind.add(work)

    def wait_stream(self, other: "Stream") -> None:
        self.behind |= other.behind


class Device:
    """Stands for torch.cuda: its default stream, the one that is current, and its graphs."""

    def __init__(self, monkeypatch):
        self.default = self.now = Stream("default")
        self.made: dict[tuple[int, int], Stream] = {}
        self.captures: list[dict] = []
        self.current_index, self.synchronized = 0, []
        names = ("current_stream", "stream", "device", "current_device", "synchronize", "graph")
        for name in names:
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(cuda_graphs, "_stream", self.numbered)

    def numbered(self, index: int, number: int) -> Stream:
        return self.made.setdefault((index, number), Stream(f"{index}.{number}"))

    def current_stream(self, device=None) -> Stream:
        return self.now

    def current_device(self) -> int:
        return self.current_index

    @contextlib.contextmanager
    def stream(self, stream: Stream):
        before, self.now = self.now, stream
        try:
            yield
        finally:
            self.now = before

    @contextlib.contextmanager
    def device(self, device):
        yield

    def synchronize(self, device=None) -> None:
        self.synchronized.append(device)

    @contextlib.contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        how = {"pool": pool, "stream": stream, "mode": capture_error_mode, "graph": graph}
        self.captures.append(how)
        yield


class Graph:
    def __init__(self):
        self.replays = 0

    def pool(self):
        return "pool of", self

    def replay(self) -> None:
        self.replays += 1


@pytest.fixture
def device(monkeypatch):
    return Device(monkeypatch)


class Member:
    """A step that launches its own name, and notes what lay behind it, and where its gradients were
    made.
    """

    def __init__(self, name: str, device: Device):
        self.name, self.device, self.seen, self.drops = name, device, [], 0
        self.recipe = SimpleNamespace(batch=4)
        self.module = torch.nn.Linear(1, 1)
        self.optimizer = SimpleNamespace(param_groups=[{"factor": 1.0}])

    def __call__(self, batch: Batch, number: int) -> torch.Tensor:
        self.seen.append((self.device.now.name, set(self.device.now.behind), batch.draws))
        self.device.now.launch(self.name)
        return torch.tensor(float(len(self.seen)))

    def drop_gradients(self) -> None:
        self.drops += 1


@pytest.fixture
def graphed(device, monkeypatch):
    """Three members' steps, on the training's own stream."""
    monkeypatch.setattr(cuda_graphs, "stream_of", lambda _, n: device.numbered(0, n))
    members = [Member(name, device) for name in "abc"]
    steps = GraphedSteps(members)
    device.now = device.numbered(0, 0)
    return steps, members


def batches(n: int, value: int = 0) -> list[Batch]:
    images = torch.zeros(4, 1, 1, 1, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    return [Batch(*images, torch.full((n, 6), value, dtype=torch.int32), n) for _ in range(3)]


def test_branches_begin_after_what_was_before_and_end_before_what_follows(device, graphed):
    steps, members = graphed
    device.now.launch("draws")
    steps(batches(4), 0, 0.1)
    for member in members:
        ((where, behind, _),) = member.seen
        assert "draws" in behind
        assert not behind & {"a", "b", "c"}  # beside each other, not one after another
        assert where != device.now.name
    assert len({member.seen[0][0] for member in members}) == 3
    assert device.now.behind >= {"a", "b", "c"}
    device.now.launch("the loss is read")
    steps(batches(4), 1, 0.1)
    assert all("the loss is read" in member.seen[1][1] for member in members)


def test_a_recording_is_of_the_current_stream_and_reads_places_of_its_own(device, graphed):
    steps, members = graphed
    for _ in range(steps.WARM_UP_STEPS):
        steps(batches(4), 0, 0.1)
    assert not device.captures
    given = batches(4, 7)
    steps(given, 0, 0.1)
    (capture,) = device.captures
    assert capture["stream"] is device.now
    assert capture["mode"] == "thread_local"  # threads that write checkpoints may use the device
    assert capture["pool"] is None
    assert capture["graph"].replays == 1  # what was recorded has not run
    for member, batch in zip(members, given):
        assert member.drops == 1  # so that gradients are made inside
        assert member.seen[-1][2] is not batch.draws
        assert torch.equal(member.seen[-1][2], batch.draws)
    steps(batches(4, 9), 0, 0.2)
    assert capture["graph"].replays == 2
    assert all(int(member.seen[-1][2][0, 0]) == 9 for member in members)
    assert [rate.item() for rate in steps.lr.values()] == pytest.approx([0.2])
    assert len(members[0].seen) == steps.WARM_UP_STEPS + 1  # replays call no member


def test_sizes_have_graphs_of_their_own_in_one_memory(device, graphed):
    steps, _ = graphed
    for _ in range(steps.WARM_UP_STEPS + 1):
        steps(batches(4), 0, 0.1)
    for _ in range(steps.PARTIAL_WARM_UP_STEPS + 1):
        steps(batches(2), 0, 0.1)
    whole, partial = device.captures
    assert partial["pool"] == whole["graph"].pool()
    assert (whole["graph"].replays, partial["graph"].replays) == (1, 1)
    losses = steps(batches(2), 0, 0.1)
    again = steps(batches(2), 0, 0.1)
    assert all(one is not two for one, two in zip(losses, again))  # a replay overwrites its own


def test_the_trainings_stream_is_ahead_of_nothing_and_behind_nothing(device):
    device.default.launch("weights are made")
    with loop._own_stream(CUDA):
        assert device.now is device.numbered(0, 0)
        assert "weights are made" in device.now.behind
        device.now.launch("steps")
    assert device.now is device.default
    assert "steps" in device.default.behind


def test_an_error_lets_go_of_nothing_that_steps_still_use(device):
    """What the outer stream made is free for it again, while branches may still write there."""
    with pytest.raises(KeyError), loop._own_stream(CUDA):
        raise KeyError
    assert device.synchronized == [CUDA]


def test_an_error_of_the_device_is_not_hidden_by_the_wait_after_it(device, monkeypatch):
    def lost(_):
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(torch.cuda, "synchronize", lost)
    with pytest.raises(KeyError), loop._own_stream(CUDA):
        raise KeyError


def test_streams_are_those_of_the_device_that_is_current(device):
    of = cuda_graphs.stream_of
    first = of(torch.device("cuda"), 1)
    assert first is of(torch.device("cuda:0"), 1)
    assert first is not of(torch.device("cuda"), 2)
    device.current_index = 1
    assert of(torch.device("cuda"), 1) is of(torch.device("cuda:1"), 1)
    assert of(torch.device("cuda"), 1) is not first


@pytest.mark.parametrize("asked", [None, True])
def test_a_broken_process_records_nothing_more(monkeypatch, asked):
    own = SimpleNamespace(workers=1, members=[])
    monkeypatch.setattr(cuda_graphs, "_broken", threading.Event())
    assert not process_is_broken()
    cuda_graphs._broken.set()
    against = loop._Loop._against_graphs(own)
    assert against == "a process in which a recording failed"
    speed = Speed(graphs=asked)
    if asked:
        with pytest.raises(ValueError, match="a recording failed"):
            speed.use_graphs(CUDA, 10_000, against)
    else:
        assert not speed.use_graphs(CUDA, 10_000, against)
