"""Subsets nest for every n, keep proportions, and copies are balanced as pools are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equigrid.generators.balance import apportioned
from equigrid.generators.common import pools
from equigrid.grid.datasets import subsets


@pytest.fixture(scope="module")
def imbalanced() -> np.ndarray:
    """2,003 labels of six classes, from 3 images to 1,000, shuffled."""
    labels = np.repeat(np.arange(6), [1000, 500, 400, 90, 10, 3])
    return np.random.default_rng(5).permutation(labels)


@pytest.mark.parametrize("seed", [0, 7])
def test_subset_n_lies_in_subset_n_plus_1_for_every_n(imbalanced, seed):
    before = set()
    for n in range(len(imbalanced) + 1):
        now = set(subsets.subset(imbalanced, n, seed).tolist())
        assert len(now) == n
        assert before < now or n == 0
        before = now


def test_sainte_lague_against_its_definition(imbalanced):
    """Place by place, the next goes to the class with the largest count / (2 places + 1)."""
    for counts in (np.bincount(imbalanced), np.array([53, 24, 23])):
        places, sequence = np.zeros(len(counts), dtype=int), []
        for _ in range(counts.sum()):
            best = int(np.argmax(counts / (2 * places + 1)))
            places[best] += 1
            sequence.append(best)
        assert apportioned(counts).tolist() == sequence


def test_proportions_hold_at_every_size(imbalanced):
    counts = np.bincount(imbalanced)
    taken = np.cumsum(np.eye(6, dtype=int)[apportioned(counts)], axis=0)
    share = np.arange(1, len(imbalanced) + 1)[:, None] * counts / counts.sum()
    assert np.abs(taken - share).max() < 1.5
    assert (taken[-1] == counts).all()


def test_seeds_draw_other_images_of_the_same_classes(imbalanced):
    one, two = (subsets.subset(imbalanced, 300, seed) for seed in (0, 1))
    assert set(one) != set(two)
    assert sorted(imbalanced[one]) == sorted(imbalanced[two])
    assert (one == subsets.subset(imbalanced, 300, 0)).all()


def test_golden_subset():
    labels = np.arange(40) % 4
    assert subsets.subset(labels, 6, 3).tolist() == [13, 15, 22, 28, 36, 37]


def test_copies_are_balanced_in_every_prefix_and_use_each_base_image_in_turn(imbalanced):
    base = subsets.subset(imbalanced, 400, 0)
    chosen = subsets.copies(imbalanced, base, 900, seed=11)
    assert set(chosen) <= set(base)
    drawn = imbalanced[chosen]
    assert (drawn == pools.labels(11, 0, 900, 6)).all()  # exactly the balance of a pool
    for n in range(1, 901, 37):
        counts = np.bincount(drawn[:n], minlength=6)
        assert counts.max() - counts.min() <= 1
    for c in range(6):
        uses = np.bincount(chosen[drawn == c], minlength=len(imbalanced))[
            base[imbalanced[base] == c]
        ]
        assert uses.max() - uses.min() <= 1
    assert (subsets.copies(imbalanced, base, 500, seed=11) == chosen[:500]).all()


def test_copies_have_the_shares_of_the_pools_that_they_are_the_control_for(imbalanced):
    base, shares = subsets.subset(imbalanced, 400, 0), (5, 0, 1, 2, 1, 1)
    chosen = subsets.copies(imbalanced, base, 900, seed=11, shares=shares)
    assert set(chosen) <= set(base)
    assert (imbalanced[chosen] == pools.labels(99, 0, 900, 6, shares)).all()
    assert np.bincount(imbalanced[chosen], minlength=6).tolist() == [90 * s for s in shares]
    for c in np.flatnonzero(shares):
        own = base[imbalanced[base] == c]
        uses = np.bincount(chosen[imbalanced[chosen] == c], minlength=len(imbalanced))[own]
        assert uses.max() - uses.min() <= 1


def test_smallest_complete_subset(imbalanced):
    n = subsets.smallest_complete(np.bincount(imbalanced))
    assert len(set(imbalanced[subsets.subset(imbalanced, n, 0)])) == 6
    assert len(set(imbalanced[subsets.subset(imbalanced, n - 1, 0)])) == 5


def test_too_many_images():
    with pytest.raises(ValueError, match="a subset of 5 images: the dataset has 4"):
        subsets.subset(np.zeros(4, dtype=int), 5, 0)


@pytest.mark.long
@given(
    counts=st.lists(st.integers(1, 30), min_size=2, max_size=5),
    data=st.data(),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=150, deadline=None)
def test_what_is_kept_apart_meets_nothing_else(counts, data, seed):
    """Base with additions, validation and `outside` never share an image, nor a copy of one, at any
    sizes; each is nested in the next larger; together they may be all that there is.
    """
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    n = len(labels)
    # The picture that each image shows: an image of a later place may be a copy of an earlier one.
    shows = np.arange(n)
    for place in range(1, n):
        if data.draw(st.integers(0, 9)) == 0:
            shows[place] = shows[data.draw(st.integers(0, place - 1))]
    repeated = np.setdiff1d(np.arange(n), np.unique(shows, return_index=True)[1])
    different = n - len(repeated)
    held = data.draw(st.integers(0, max(0, different - 2)))
    kept = data.draw(st.integers(0, different - held - 1))
    size = data.draw(st.integers(0, different - held - kept))
    options = {"held_out": held, "repeated": repeated}
    sides = {
        "outside": subsets.outside(labels, kept, **options),
        "validation": subsets.held_out(labels, held, repeated),
        "base": subsets.subset(labels, size, seed, kept_apart=kept, **options),
    }
    if held or kept:  # else the whole set, which has its copies, is no mistake
        shown = np.concatenate([shows[rows] for rows in sides.values()])
        assert len(np.unique(shown)) == len(shown) == held + kept + size
    if kept:
        smaller = subsets.outside(labels, kept - 1, **options)
        assert np.isin(smaller, sides["outside"]).all()
    if size and size < different - held - kept:
        larger = subsets.subset(labels, size + 1, seed, kept_apart=kept, **options)
        assert np.isin(sides["base"], larger).all()
    other = subsets.outside(labels, kept, **options)  # it knows of no subset seed
    assert (other == sides["outside"]).all()


def test_kept_apart_in_proportion_and_not_all(imbalanced):
    kept = subsets.outside(imbalanced, 500)
    share = np.bincount(imbalanced[kept], minlength=6) / 500
    assert np.abs(share - np.bincount(imbalanced) / len(imbalanced)).max() < 0.005
    assert set(kept) != set(subsets.held_out(imbalanced, 500))
    with pytest.raises(ValueError, match="2003 images kept apart: there are 2003"):
        subsets.outside(imbalanced, 2003)
    with pytest.raises(ValueError, match="a subset of 1504 images: .* besides 500 kept apart"):
        subsets.subset(imbalanced, 1504, 0, kept_apart=500)
