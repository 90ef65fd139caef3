"""What policies draw, against torchvision's own tables, and how often."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import AutoAugmentPolicy
from torchvision.transforms import v2 as tv

from equigrid.classifiers.data import policies
from equigrid.classifiers.data.policies import NUMBER, OPERATIONS
from equigrid.classifiers.recipes import Augmentation

N = 40_000
SIZE = (32, 48)
WHOLE = ("TranslateX", "TranslateY")  # torchvision cuts their magnitudes off as it applies them


def drawn(**augmentation) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return policies.draw(rng, N, *SIZE, Augmentation(**augmentation))


def theirs(transform, bins: int) -> dict[str, tuple[np.ndarray, bool]]:
    """Of each operation in torchvision's table the magnitudes, and whether they have a sign."""
    found = {}
    for name, (magnitudes, signed) in transform._AUGMENTATION_SPACE.items():
        values = magnitudes(bins, *SIZE)
        values = np.zeros(1) if values is None else values.numpy().astype(np.float64)
        found[name] = (np.trunc(values) if name in WHOLE else values, signed)
    return found


def as_likely(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Whether counts are a draw from these probabilities, at one in ten thousand."""
    return stats.chisquare(counts, counts.sum() * expected).pvalue > 1e-4


def test_rand_augment_draws_torchvisions_operations_at_its_magnitude():
    ops, magnitudes = drawn(rand_augment={"num_ops": 3, "magnitude": 9})
    table = theirs(tv.RandAugment(), 31)
    assert ops.shape == magnitudes.shape == (N, 3)
    assert {OPERATIONS[i] for i in np.unique(ops)} == set(table)
    for layer in range(3):
        counts = np.bincount(ops[:, layer], minlength=len(OPERATIONS))[: len(table)]
        assert as_likely(counts, np.full(len(table), 1 / len(table)))
    for name, (values, signed) in table.items():
        found = magnitudes[ops == NUMBER[name]]
        wanted = values[9 if len(values) > 1 else 0]
        np.testing.assert_allclose(np.abs(found), wanted, rtol=1e-6)
        if wanted:
            share = (found < 0).mean()
            assert (0.47 < share < 0.53) if signed else share == 0


def test_trivial_augment_draws_torchvisions_operations_and_magnitudes():
    ops, magnitudes = drawn(trivial_augment=True)
    table = theirs(tv.TrivialAugmentWide(), 31)
    assert ops.shape == (N, 1)
    counts = np.bincount(ops[:, 0], minlength=len(OPERATIONS))[: len(table)]
    assert as_likely(counts, np.full(len(table), 1 / len(table)))
    assert {OPERATIONS[i] for i in np.unique(ops)} == set(table)
    for name, (values, signed) in table.items():
        found = magnitudes[ops == NUMBER[name]].round(5)
        wanted, times = np.unique(np.abs(values).round(5), return_counts=True)
        kinds, counts = np.unique(np.abs(found), return_counts=True)
        np.testing.assert_allclose(kinds, wanted, atol=2e-5)
        if len(wanted) > 1:
            assert as_likely(counts, times / times.sum())
            assert (0.45 < (found[found != 0] < 0).mean() < 0.55) == signed


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn"])
def test_auto_augment_has_torchvisions_sub_policies(policy):
    ops, probabilities, bins = policies.sub_policies(policy)
    ours = [
        tuple((OPERATIONS[o], p, int(b)) for o, p, b in zip(*pair))
        for pair in zip(ops, probabilities, bins)
    ]
    transform = tv.AutoAugment(AutoAugmentPolicy(policy))
    assert ours == [tuple((o, p, m or 0) for o, p, m in pair) for pair in transform._policies]


@pytest.mark.parametrize("policy", ["cifar10", "imagenet", "svhn"])
def test_auto_augment_draws_them_as_often(policy):
    """Expected from torchvision's table: how often each operation is applied, by place, and at
    which magnitudes.
    """
    ops, magnitudes = drawn(auto_augment=policy)
    transform = tv.AutoAugment(AutoAugmentPolicy(policy))
    strengths = theirs(transform, 10)
    for place in range(2):
        expected = np.zeros(len(OPERATIONS))
        values: dict[str, set[float]] = {}
        for pair in transform._policies:
            name, p, m = pair[place]
            expected[NUMBER[name]] += p / 25
            expected[0] += (1 - p) / 25
            if p:
                values.setdefault(name, set()).add(round(float(strengths[name][0][m or 0]), 4))
        counts = np.bincount(ops[:, place], minlength=len(OPERATIONS))
        assert not counts[expected < 1e-12].any()
        possible = expected > 1e-12
        assert as_likely(counts[possible], expected[possible])
        for name, wanted in values.items():
            found = np.abs(magnitudes[:, place][ops[:, place] == NUMBER[name]]).round(4)
            np.testing.assert_allclose(np.unique(found), sorted(wanted), atol=2e-4)


def test_magnitudes_are_of_the_images_size():
    wide = policies.draw(
        np.random.default_rng(0), N, 8, 300, Augmentation(rand_augment={"magnitude": 30})
    )
    for name, side in (("TranslateX", 300), ("TranslateY", 8)):
        found = np.abs(wide[1][wide[0] == NUMBER[name]])
        assert (found == int(side * 150 / 331)).all()


def test_operations_that_do_nothing_are_told_apart_from_those_left_out():
    """Posterize to 8 bits and a factor of 1 are magnitudes like others."""
    strengths = policies._strengths(policies._NORMAL, 31, 32, 32)
    assert strengths[NUMBER["Posterize"], 0] == 8 and strengths[NUMBER["Posterize"], -1] == 4
    assert strengths[NUMBER["Solarize"], 0] == 1 and strengths[NUMBER["Solarize"], -1] == 0
    assert torch.tensor(strengths).isfinite().all()
