"""The measures of `quality.metrics` against reference libraries, formulas by hand, and sets whose
answer is known.
"""

import numpy as np
import pytest
import torch

from equigrid.generators.quality import banks, distances
from equigrid.generators.quality.banks import Bank, extracted
from equigrid.generators.quality.comparison import COMPARED, VALUES, Real, compared
from equigrid.generators.quality.config import METRICS
from equigrid.generators.quality.copying import copying
from equigrid.generators.quality.distances import nearest_squares
from equigrid.generators.quality.frechet import frechet
from equigrid.generators.quality.intervals import GROUPS, groups, jackknife_variance, of_subsets
from equigrid.generators.quality.kernel import kid, mmd2
from equigrid.generators.quality.manifold import Manifolds, manifolds, with_intervals
from equigrid.generators.quality.statistics import Gaussian, frechet_distance


def normal(seed: int, n: int, d: int = 6, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(n, d)) * scale + shift
    return drawn.astype(np.float32)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks whose edges fall inside the sets of a test."""
    monkeypatch.setattr(distances, "ROWS", 37)
    monkeypatch.setattr(distances, "COLUMNS", 53)


class TestReferenceLibraries:
    """Counts of the same comparisons are equal but where two distances differ by rounding alone:
    both sides compute in float64 here, so to 1e-12. KID is a sum of products: to 1e-9.
    """

    def test_prdc(self, small_blocks):
        from prdc import compute_prdc

        real, pool = normal(0, 310), normal(1, 250, scale=0.8, shift=0.3)
        have = manifolds(pool, real)
        five = compute_prdc(real.astype(float), pool.astype(float), 5)
        three = compute_prdc(real.astype(float), pool.astype(float), 3)
        assert have == pytest.approx(
            (three["precision"], three["recall"], five["density"], five["coverage"]), abs=1e-12
        )
        assert 0.5 < have.precision < 1 and 0.3 < have.recall < 1  # the case can tell them apart

    def test_torch_fidelity_precision_and_recall(self, small_blocks):
        from torch_fidelity.metric_prc import prc_features_to_metric

        real, pool = normal(2, 200), normal(3, 300, scale=1.2)
        want = prc_features_to_metric(
            torch.from_numpy(pool).double(), torch.from_numpy(real).double(),
            prc_neighborhood=3, prc_batch_size=64, save_cpu_ram=True, verbose=False,
        )  # fmt: skip
        have = manifolds(pool, real)
        assert have.precision == pytest.approx(want["precision"], abs=1e-6)  # its mean is float32
        assert have.recall == pytest.approx(want["recall"], abs=1e-6)
        assert have.precision != have.recall

    def test_torch_fidelity_kid(self):
        from torch_fidelity.metric_kid import kid_features_to_metric

        real, pool = normal(4, 120, 9).astype(np.float64), normal(5, 120, 9, shift=0.2)
        found = kid_features_to_metric(
            torch.from_numpy(pool.astype(np.float64)), torch.from_numpy(real), kid_subsets=1,
            kid_subset_size=120, kid_degree=3, kid_gamma=None, kid_coef0=1.0, rng_seed=0,
            verbose=False,
        )  # fmt: skip
        want = found["kernel_inception_distance_mean"]
        assert mmd2(pool, real) == pytest.approx(want, rel=1e-9)
        assert want > 0.01

    def test_torch_fidelity_fid(self):
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

        real, pool = normal(6, 300, 20), normal(7, 260, 20, scale=1.3, shift=0.1)
        statistics = [
            fid_features_to_statistics(torch.from_numpy(each.astype(np.float64)))
            for each in (pool, real)
        ]
        want = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        assert frechet(pool, real)[0].value == pytest.approx(want, rel=1e-6)  # its root is iterated

    def test_torch_fidelity_inception_score(self):
        from torch_fidelity.metric_isc import isc_features_to_metric

        from equigrid.generators.quality.statistics import InceptionScore

        logits = normal(8, 100, 7, scale=2)
        found = isc_features_to_metric(
            torch.from_numpy(logits).double(), splits=10, shuffle=False, rng_seed=0
        )
        score = InceptionScore(100)
        score.add(torch.from_numpy(logits).double().softmax(dim=1).numpy())
        assert score.score() == pytest.approx(
            (found["inception_score_mean"], found["inception_score_std"]), rel=1e-9
        )


class TestByHand:
    """Five points on a line: k-th nearest neighbours are counted on fingers."""

    def test_precision_recall_density_coverage(self, monkeypatch):
        from equigrid.generators.quality import manifold

        monkeypatch.setattr(manifold, "K_PRECISION", 1)
        monkeypatch.setattr(manifold, "K_DENSITY", 2)
        real = np.array([[0.0], [1.0], [3.0], [10.0]])  # radii k=1: 1 1 2 7; k=2: 3 2 3 9
        pool = np.array([[0.5], [1.25], [20.0]])  # radii k=1: 0.75 0.75 18.75
        # Inside k=1: 0.5 in balls of 0 and 1; 1.25 in those of 1 and 3; 20 in none.
        # Real inside the pool's: 0 (of 0.5), 1 (of both), 3 and 10 (of 20: 17 and 10).
        # k=2: 0.5 in 0, 1, 3 (2.5 <= 3); 1.25 in 0, 1, 3, 10 (8.75 <= 9); 20 in none: 7 / (2 * 3).
        assert manifolds(pool, real) == pytest.approx((2 / 3, 1, 7 / 6, 1))

    def test_mmd2(self):
        """d = 1, kernel (xy + 1)³: x = 0, 1 and y = 1, 2."""
        x, y = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
        # within x: k(0,1) = 1; within y: k(1,2) = 27; across: 1, 1, 8, 27 over 4
        assert mmd2(x, y) == pytest.approx(1 + 27 - 2 * 37 / 4)

    def test_the_jackknife_of_a_mean_is_its_own_variance(self):
        values = np.random.default_rng(0).normal(size=GROUPS)
        without = (values.sum() - values) / (GROUPS - 1)
        assert jackknife_variance(without) == pytest.approx(values.var(ddof=1) / GROUPS)

    def test_groups_are_a_partition(self):
        found = groups(103, 10, 0)
        assert sorted(np.concatenate(found)) == list(range(103))
        assert {len(part) for part in found} == {10, 11}
        assert not np.array_equal(found[0], groups(103, 10, 1)[0])
        assert np.array_equal(found[0], groups(103, 10, 0)[0])

    def test_nearest(self, small_blocks):
        points, others = normal(0, 90), normal(1, 120)
        every = np.linalg.norm(points[:, None].astype(float) - others[None], axis=2) ** 2
        have = nearest_squares(points, others, 4).numpy()
        assert np.allclose(have, np.sort(every, axis=1)[:, :4])
        own = np.linalg.norm(points[:, None].astype(float) - points[None], axis=2) ** 2
        np.fill_diagonal(own, np.inf)
        assert np.allclose(nearest_squares(points, None, 4).numpy(), np.sort(own, axis=1)[:, :4])
        with pytest.raises(
            ValueError, match="3 nearest neighbours need 4 images or more, there are 3"
        ):
            nearest_squares(points[:3], None, 3)
        with pytest.raises(
            ValueError, match="3 nearest neighbours need 3 images or more, there are 2"
        ):
            nearest_squares(points, points[:2], 3)


class TestKnownSets:
    def test_identical(self):
        real = normal(0, 200)
        found = manifolds(real, real)
        assert (found.precision, found.recall, found.coverage) == (1, 1, 1)
        assert found.density >= 1
        assert frechet(real, real)[0].value == pytest.approx(0, abs=1e-9)
        assert mmd2(real, real) < 0  # unbiased: a set is nearer to itself than another would be

    def test_disjoint(self):
        real, pool = normal(0, 200), normal(1, 200, shift=100)
        assert manifolds(pool, real) == Manifolds(0, 0, 0, 0)
        assert frechet(pool, real)[0].value == pytest.approx(6 * 100**2, rel=0.01)

    def test_equal_distributions(self):
        real, pool = normal(0, 1000), normal(1, 1000)
        value, endless = frechet(pool, real)
        assert value.low <= value.value <= value.high
        assert endless.value < value.value
        of_kid = kid(pool, real)
        assert of_kid.low < 0 < of_kid.high
        assert with_intervals(pool, real)["density"].value == pytest.approx(1, abs=0.08)

    def test_a_dropped_mode_is_missed_by_recall_and_coverage_alone(self):
        modes = np.repeat(np.eye(4, 6, dtype=np.float32) * 40, 100, axis=0)
        real, whole = normal(0, 400) + modes, normal(1, 400) + modes
        dropped = normal(1, 400) + np.repeat(modes[:300], 4, axis=0)[::3]
        before, after = manifolds(whole, real), manifolds(dropped, real)
        assert after.recall < before.recall - 0.15
        assert after.coverage == pytest.approx(before.coverage - 0.25, abs=0.06)
        assert after.precision == pytest.approx(before.precision, abs=0.05)

    def test_noise_is_seen_by_precision_and_density(self):
        real, pool = normal(0, 400), normal(1, 400)
        noisy = pool.copy()
        noisy[::2] += normal(2, 200, scale=6)
        before, after = manifolds(pool, real), manifolds(noisy, real)
        assert after.precision < before.precision - 0.3
        assert after.density < 0.7 * before.density
        assert after.coverage < before.coverage

    def test_fewer_images_than_the_pool_has_cost_no_more_than_their_bias(self):
        """At a tenth of the images the distance is larger; what is extrapolated is not."""
        target = normal(0, 20_000)
        few = [frechet(normal(seed, 200), target) for seed in range(1, 9)]
        at_200 = np.mean([value.value for value, _ in few])
        endless = np.mean([value.value for _, value in few])
        assert at_200 > 0.05
        assert abs(endless) < at_200 / 4

    def test_no_extrapolation_below_two_images_per_dimension(self):
        assert frechet(normal(0, 39, 20), normal(1, 300, 20))[1] is None
        assert frechet(normal(0, 40, 20), normal(1, 300, 20))[1] is not None


class TestCopying:
    def sets(self, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Learned, held out, independent samples; labels."""
        return normal(0, n), normal(1, n), normal(2, n), np.arange(n) % 3

    def test_nothing_copied(self):
        learned, held_out, pool, labels = self.sets()
        found = copying((pool, labels), learned, (held_out, labels))
        assert found.nearer.low < 0.5 < found.nearer.high
        assert abs(found.z) < 3
        assert found.near.low <= 0.03
        assert found.n_held_out == 300

    def test_a_third_copied(self):
        learned, held_out, pool, labels = self.sets()
        pool[:100] = learned[:100] + normal(3, 100, scale=0.01)
        found = copying((pool, labels), learned, (held_out, labels))
        assert found.nearer.low > 0.5
        assert found.z < -3
        assert found.near.value == pytest.approx(1 / 3, abs=0.03)

    def test_all_copied_and_none_near(self):
        learned, held_out, pool, labels = self.sets()
        copies = copying((learned, labels), learned, (held_out, labels))
        assert (copies.nearer.value, copies.near.value) == (1, 1)
        far = copying((pool + 50, labels), learned, (held_out, labels))
        assert far.nearer.value == 0 and far.z > 10
        assert (far.near.value, far.near.low) == (0, 0)
        assert far.near.high == pytest.approx(
            1.959964**2 / (300 + 1.959964**2)
        )  # Wilson's, of none

    def test_u_by_hand(self):
        """One cell. Training at 0; samples at 1 … 10, held out at 0.5 … 10.5: sample i is nearer
        than the held-out images from i + 0.5 on.
        """
        samples, unlike = np.arange(1.0, 11)[:, None], np.arange(0.5, 11)[:, None]
        own, theirs = np.zeros(10, int), np.zeros(11, int)
        found = copying((samples, own), np.zeros((1, 1)), (unlike, theirs))
        nearer = sum(11 - i for i in range(1, 11)) / 110
        assert found.nearer.value == pytest.approx(nearer)
        # U counts samples that are farther: mean nm/2, variance nm (n + m + 1) / 12
        u = 110 * (1 - nearer)
        assert found.z == pytest.approx((u - 55) / np.sqrt(110 * 22 / 12))
        assert found.near is None  # fewer than 100 held-out images

    def test_classes_are_compared_with_their_own(self):
        """One class lies nearer to the training images than the other, in samples and held-out
        images alike; samples have more of it. That is no copying.
        """
        learned = normal(0, 400)
        learned[200:] *= 5
        held_out = normal(1, 400)
        held_out[200:] *= 5
        pool = normal(2, 400)
        pool[300:] *= 5
        theirs, own = np.repeat([0, 1], 200), np.repeat([0, 1], [300, 100])
        assert abs(copying((pool, own), learned, (held_out, theirs)).z) < 3
        mixed = copying((pool, own * 0), learned, (held_out, theirs * 0))
        assert mixed.z < -3

    def test_held_out_images_that_are_training_images_do_not_count(self):
        learned, held_out, pool, labels = self.sets()
        held_out[:50] = learned[:50] * (1 + 1e-7)
        assert copying((pool, labels), learned, (held_out, labels)).n_held_out == 250
        with pytest.raises(
            ValueError, match="copying needs 10 of each, there are 300 samples and 0"
        ):
            copying((pool, labels), learned, (learned, labels))


class TestIntervals:
    @pytest.mark.parametrize(("n", "d"), [(240, 4)])
    def test_their_width_is_that_of_other_draws(self, n, d):
        """Over 40 draws of both sides, the standard error is the deviation of the values, within a
        factor of 1.6: each estimate of the deviation is known within a factor of 1.3.
        """
        draws = []
        for seed in range(40):
            pool, real = normal(1000 + seed, n, d, 0.9, 0.2), normal(seed, n, d)
            value, endless = frechet(pool, real)
            draws.append({**with_intervals(pool, real), "fd": value, "fd_infinity": endless,
                          "kid": kid(pool, real)})  # fmt: skip
        for name in draws[0]:
            deviation = np.std([draw[name].value for draw in draws], ddof=1)
            told = np.sqrt(np.mean([draw[name].se ** 2 for draw in draws]))
            assert 1 / 1.6 < told / deviation < 1.6, (name, told, deviation)

    def test_none_of_too_few_images(self):
        few = with_intervals(normal(0, 59), normal(1, 80))
        assert few["recall"].low is few["recall"].high is None and 0 < few["recall"].value <= 1
        assert with_intervals(normal(0, 60), normal(1, 80))["recall"].low is not None

    def test_of_subsets(self):
        found = of_subsets(7.0, np.array([1.0, 2.0, 3.0]))
        assert found.se == pytest.approx(1 / np.sqrt(3))
        assert found.high - 7 == pytest.approx(4.302653 / np.sqrt(3))  # t of 2 degrees, 0.975


def bank_of(features: np.ndarray) -> Bank:
    bank = Bank(len(features))
    bank.add(features, np.arange(len(features)) % 3)
    return bank


class TestRow:
    def test_every_column(self):
        real = bank_of(normal(0, 500))
        held_out = np.arange(200, 500)
        given = Real(real, real.features[:200], held_out)
        row, notes = compared(bank_of(normal(1, 300)), given, METRICS, extractor="mine")
        assert set(row) == set(COMPARED) and notes == []
        for name in VALUES:
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        assert (row["extractor"], row["n_held_out"]) == ("mine", 300)

    def test_what_is_not_asked_for_is_not_there(self):
        real = Real(bank_of(normal(0, 300)))
        row, notes = compared(bank_of(normal(1, 300)), real, ("recall",), extractor="mine")
        assert set(row) == {"extractor", "recall", "recall_low", "recall_high"} and notes == []

    def test_what_cannot_be_told_is_said(self):
        bank, pool = bank_of(normal(0, 40, 30)), bank_of(normal(1, 40, 30))
        row, notes = compared(pool, Real(bank), METRICS, extractor="mine")
        assert row["fd"] > 0 and "fd_infinity" not in row and "copying_z" not in row
        assert notes == [
            "fd_infinity needs 60 images of the pool, there are 40",
            "precision, recall, density and coverage have intervals from 60 images on",
            "copying: the images that the generator learned from are not at hand",
        ]
        learned = Real(bank, bank.features, np.arange(0))
        _, notes = compared(pool, learned, ("copying",), extractor="mine")
        assert notes == [
            "copying: no real image is held out, the generator learned from all of them"
        ]

    @pytest.mark.parametrize(
        ("n", "metric", "message"),
        [(3, "precision", "k = 3 nearest neighbours among 3 of the pool"),
         (12, "kid", "kid needs 20 images of each side, there are 12")],
    )  # fmt: skip
    def test_too_few(self, n, metric, message):
        with pytest.raises(ValueError, match=message):
            compared(bank_of(normal(0, n)), Real(bank_of(normal(1, 90))), (metric,), extractor="x")


class TestBank:
    def test_parts_of_any_size_and_a_file_where_they_are_many(self, monkeypatch):
        images = np.random.default_rng(0).integers(0, 256, (150, 4, 4, 1), dtype=np.uint8)
        parts = list(zip(np.split(images, [1, 90]), np.split(np.arange(150), [1, 90])))
        extract = lambda given: given.reshape(len(given), -1)[:, :3]  # noqa: E731
        resident = extracted(parts, extract, 150, batch=64)
        monkeypatch.setattr(banks, "RESIDENT_BYTES", 100)
        mapped = extracted(parts, extract, 150, batch=7)
        assert isinstance(mapped.features, np.memmap) and not isinstance(
            resident.features, np.memmap
        )
        assert np.array_equal(mapped.features, images.reshape(150, -1)[:, :3])
        assert np.array_equal(mapped.features, resident.features)
        assert np.array_equal(mapped.labels, np.arange(150))
        near = nearest_squares(mapped.features, None, 2)
        assert torch.equal(near, nearest_squares(resident.features, None, 2))

    def test_what_is_no_features(self):
        bank = Bank(4)
        bank.add(np.zeros((2, 3)), np.zeros(2))
        with pytest.raises(ValueError, match="the features of image 3 are no finite numbers"):
            bank.add(np.array([[0, 0, 0], [0, np.nan, 0]]), np.zeros(2))
        with pytest.raises(ValueError, match="3 and 5 dimensions are of two networks"):
            bank.add(np.zeros((1, 5)), np.zeros(1))
        with pytest.raises(ValueError, match="more images than the 4 announced"):
            bank.add(np.zeros((3, 3)), np.zeros(3))
        with pytest.raises(ValueError, match="2 of the 4 announced images came"):
            bank.complete()


def test_the_distance_is_the_plain_one():
    pool, real = normal(0, 300, 8), normal(1, 200, 8, shift=0.4)
    fits = [Gaussian(f.mean(axis=0), np.cov(f, rowvar=False)) for f in
            (pool.astype(float), real.astype(float))]  # fmt: skip
    assert frechet(pool, real)[0].value == pytest.approx(frechet_distance(*fits), rel=1e-9)
