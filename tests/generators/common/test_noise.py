"""Noise is a function of (pool, number of the image) alone, however it is drawn."""

import threading

import pytest
import torch

from equigrid.generators.common import noise
from equigrid.generators.common.rng import seed_of

DRAWS = 7


def one_by_one(numbers: range, shape: tuple[int, ...], draws: int) -> list[torch.Tensor]:
    """Draw by draw and image by image: what a pool's id stands for."""
    own = [torch.Generator().manual_seed(seed_of(5, "pool noise", i)) for i in numbers]
    return [torch.stack([torch.randn(shape, generator=g) for g in own]) for _ in range(draws)]


def taken(numbers, shape, device, draws) -> list[torch.Tensor]:
    following = noise.streams(5, numbers, shape, torch.device(device), draws=draws)
    return [following() for _ in range(DRAWS)]


@pytest.mark.parametrize(
    "shape",
    [(3, 32, 32), (4, 8, 8), (4, 4, 4), (1, 4, 4), (1, 8, 8), (3, 5, 5), (1, 3, 3), (1, 1, 17)],
)
@pytest.mark.parametrize("draws", [1, 2, 5, DRAWS, 40])
def test_draws_made_at_once_are_bitwise_those_made_one_by_one(shape, draws):
    """Fewer may be announced than are taken, or more."""
    expected = one_by_one(range(3, 8), shape, DRAWS)
    for found, single in zip(taken(range(3, 8), shape, "cpu", draws), expected, strict=True):
        assert found.shape == (5, *shape)
        assert torch.equal(found, single)


def test_blocks_are_bounded_and_change_nothing(monkeypatch):
    expected = one_by_one(range(4), (4, 4, 4), DRAWS)
    monkeypatch.setattr(noise, "BLOCK_BYTES", 3 * 4 * 4 * 64)  # three draws of four images
    assert noise._at_once(4, (4, 4, 4), DRAWS) == 3
    assert noise._at_once(4, (3, 5, 5), DRAWS) == 1  # no multiple of PERIOD
    assert all(map(torch.equal, taken(range(4), (4, 4, 4), "cpu", DRAWS), expected))


@pytest.mark.parametrize("draws", [1, 3, DRAWS, 40])
def test_a_thread_draws_ahead_for_another_device_in_the_same_order(monkeypatch, draws):
    """The meta device stands for a GPU: it takes copies, and keeps none of their numbers."""
    expected, seen, threads = one_by_one(range(4), (4, 4, 4), DRAWS), [], set()
    blocks, ahead = noise._blocks, noise._ahead

    def noted_blocks(*given):
        for block in blocks(*given):
            threads.add(threading.current_thread().name.split("_")[0])
            yield block

    def noted_ahead(source, count):
        for block in ahead(source, count):
            seen.extend(block.unbind(1))
            yield block

    monkeypatch.setattr(noise, "BLOCK_BYTES", 2 * 4 * 4 * 64)
    monkeypatch.setattr(noise, "_blocks", noted_blocks)
    monkeypatch.setattr(noise, "_ahead", noted_ahead)
    made = taken(range(4), (4, 4, 4), "meta", draws)
    assert {one.device.type for one in made} == {"meta"}
    assert len(seen) >= DRAWS
    assert all(map(torch.equal, seen, expected))
    assert "noise" in threads


def test_an_error_of_the_thread_is_the_callers(monkeypatch):
    def broken(*_):
        raise RuntimeError("no memory to pin")
        yield

    monkeypatch.setattr(noise, "_blocks", broken)
    with pytest.raises(RuntimeError, match="no memory to pin"):
        taken(range(2), (1, 4, 4), "meta", 3)
