"""A batch that is made beside the step before: what each stream has behind it, told by streams that
know.
"""

import contextlib
from typing import NamedTuple

import pytest
import torch

from equigrid.generators.base_config import Compute
from equigrid.generators.trainer.trainer import Trainer

CUDA = torch.device("cuda:0")


class Stream:
    """behind: the work that is done before anything that is launched on it from now on."""

    def __init__(self, name: str):
        self.name, self.behind = name, set()

    def wait_stream(self, other: "Stream") -> None:
        self.behind |= other.behind


class Values:
    """Stands for a tensor: where it was made, and which other streams keep its memory."""

    def __init__(self, made_on: Stream):
        self.made_on, self.kept_for = made_on, []

    def record_stream(self, stream: Stream) -> None:
        self.kept_for.append(stream)


class Batch(NamedTuple):
    clean: Values
    augment: Values | None


class Noted(Trainer[Batch]):
    def __init__(self, device):
        compute = Compute(training_precision="fp32")
        super().__init__(steps=9, batch=4, compute=compute, seed=0, device=device)

    def batch(self):
        stream = torch.cuda.current_stream(self.device)
        self.behind_it = set(stream.behind)
        stream.behind.add(f"batch {self.step}")
        return Batch(Values(stream), None)

    def losses_of(self, part, share, *, full=False):
        raise NotImplementedError

    def rates(self):
        return 0.0, 0.0


@pytest.fixture
def main(monkeypatch):
    """The stream that is current outside; those that are made get numbers."""
    now = [Stream("main")]

    @contextlib.contextmanager
    def stream(one):
        now.append(one)
        yield
        now.pop()

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: now[-1])
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device, priority: Stream("side"))
    return now[0]


def test_a_step_has_its_batch_behind_it_and_the_batch_not_the_step_before(main):
    trainer = Noted(CUDA)
    main.behind.add("images are there")
    for number in range(3):
        trainer.step = number
        batch = trainer._batch_beside()
        assert torch.cuda.current_stream() is main
        assert "images are there" in trainer.behind_it
        assert f"step {number - 1}" not in trainer.behind_it  # made while that one runs
        assert f"batch {number}" in main.behind
        assert batch.clean.made_on.name == "side"
        # Or a later batch gets its memory while this step still reads it.
        assert batch.clean.kept_for == [main]
        main.behind.add(f"step {number}")


def test_on_a_cpu_there_are_no_streams(main, monkeypatch):
    trainer = Noted(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "stream", None)
    assert trainer._batch_beside().clean.kept_for == []
