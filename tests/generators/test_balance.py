"""Shares of labels that are not equal: every prefix has them, and each kind of generator keeps to
them.
"""

import numpy as np
import pytest

from equigrid.generators import balance
from equigrid.generators.calls import SampleCall
from equigrid.generators.common import pools
from equigrid.generators.registry import config

WEIGHTS = (55, 20, 15, 7, 3)


def edm(**options):
    return config({"kind": "edm", "preset": "digits", **options})


class TestLabels:
    @pytest.mark.parametrize("weights", [WEIGHTS, (3, 1), (1, 0, 2), (1_000, 1)])
    def test_every_prefix_has_the_shares_as_nearly_as_whole_images_can(self, weights):
        """Sainte-Laguë: no image moved from one class to another would bring the shares nearer."""
        labels = pools.labels(7, 0, 3 * sum(weights) + 11, len(weights), weights)
        counts = np.cumsum(labels[:, None] == np.arange(len(weights)), axis=0)
        shares = np.array(weights)
        for n in (1, 2, 7, sum(weights) // 2 + 1, sum(weights) + 3, len(labels)):
            has = counts[n - 1]
            for giver in np.flatnonzero(has):
                for taker in np.flatnonzero(shares):
                    before = (has[giver] - 0.5) / shares[giver]
                    after = (has[taker] + 0.5) / shares[taker]
                    assert before <= after + 1e-12
        rounds = sum(weights)
        assert counts[rounds - 1].tolist() == list(weights)
        assert counts[2 * rounds - 1].tolist() == [2 * share for share in weights]

    def test_how_a_pool_is_cut_changes_no_label(self):
        whole = pools.labels(0, 0, 400, 5, WEIGHTS)
        for start, stop in [(0, 0), (0, 7), (99, 101), (95, 315)]:
            assert np.array_equal(pools.labels(9, start, stop, 5, WEIGHTS), whole[start:stop])

    def test_weights_of_another_number_of_classes_are_refused(self):
        with pytest.raises(ValueError, match="3 classes have as many shares, got 2"):
            pools.labels(0, 0, 5, 3, (1, 2))

    @pytest.mark.parametrize("weights", [None, WEIGHTS])
    def test_images_are_made_with_the_labels_that_they_have(self, weights):
        """What a network is asked for, batch by batch, is what the pool says of each image."""
        call = SampleCall(classes=5, shape=(1, 1, 1), seed=3, start=5, stop=77, shares=weights)
        images, labels = pools.in_batches(
            lambda numbers, of: of.astype(np.uint8)[:, None, None, None], call, batch=16
        )
        assert np.array_equal(images.ravel(), labels)
        assert np.array_equal(labels, pools.labels(3, 5, 77, 5, weights))

    @pytest.mark.parametrize("weights", [None, WEIGHTS, (2, 0, 1, 1, 1)])
    def test_how_many_of_a_class_came_before(self, weights):
        labels = pools.labels(4, 0, 400, 5, weights)
        for label in np.unique(labels):
            numbers = np.flatnonzero(labels == label)
            counted = pools.earlier(numbers, int(label), 5, weights)
            assert counted.tolist() == list(range(len(numbers)))

    @pytest.mark.parametrize("available", [(9, 9, 9, 9, 9), (110, 4, 99, 14, 6), (0, 1, 1, 1, 1)])
    def test_the_longest_prefix_that_so_many_images_fill(self, available):
        n = balance.longest(WEIGHTS, available)
        labels = pools.labels(0, 0, n + 1, 5, WEIGHTS)
        fits = np.bincount(labels[:n], minlength=5) <= available
        too_many = np.bincount(labels, minlength=5) > available
        assert fits.all() and too_many.any()


class TestShares:
    @pytest.mark.parametrize(
        ("given", "found"),
        [
            ([5_500, 2_000, 1_500, 700, 300], WEIGHTS),
            ([0.55, 0.2, 0.15, 0.07, 0.03], WEIGHTS),  # not 0.07000000000000001
            ([2, 0, 4], (1, 0, 2)),
            ([7, 7, 7], None),
            ([1 / 3, 1 / 3, 1 / 3], None),
        ],
    )
    def test_equal_proportions_are_equal_numbers(self, given, found):
        assert balance.reduced(given) == found

    @pytest.mark.parametrize("given", [[1, -1], [0, 0], []])
    def test_what_is_no_share(self, given):
        with pytest.raises(ValueError, match="numbers from 0 up"):
            balance.reduced(given)

    def test_shares_that_never_repeat(self):
        with pytest.raises(ValueError, match="write fewer digits"):
            balance.reduced([0.123456789, 1])


class TestConfig:
    def test_the_default_is_the_papers_and_changes_no_id(self):
        plain, written = edm(), edm(balance="equal")
        assert plain.balance == "equal" and plain.shares(("a", "b"), (9, 1)) is None
        assert plain.trained_identity() == written.trained_identity()
        assert "balance" not in plain.identity()

    @pytest.mark.parametrize("chosen", ["as_data", {"a": 3, "b": 1}])
    def test_a_balance_is_no_part_of_what_is_trained(self, chosen):
        assert edm(balance=chosen).trained_identity() == edm().trained_identity()

    def test_shares_follow_the_data_or_the_mapping(self):
        assert edm(balance="as_data").shares(("a", "b"), (900, 300)) == (3, 1)
        assert edm(balance="as_data").shares(("a", "b"), (300, 300)) is None
        assert edm(balance={"b": 1, "a": 0.5}).shares(("a", "b"), (900, 300)) == (1, 2)
        assert edm(balance={7: 1, 2: 0}).shares(("7", "2"), (1, 1)) == (1, 0)
        decomposed = edm(balance={"cafe\u0301": 2, "tea": 1})
        assert decomposed.shares(("caf\u00e9", "tea"), (1, 1)) == (2, 1)

    @pytest.mark.parametrize(
        ("chosen", "message"),
        [
            ("euqal", "balance.*write equal, as_data, or a mapping"),
            (3, "balance.*write equal, as_data, or a mapping"),
            ({"a": "much", "b": 1}, "balance.*write a number for each class"),
            ({"a": True, "b": 1}, "balance.*write a number for each class"),
            ({"a": 0, "b": 0}, "balance.*one at least is above 0"),
            ({"a": -1, "b": 1}, "balance.*numbers from 0 up"),
            ({"a": float("inf"), "b": 1}, "balance"),
            ({}, "balance"),
        ],
    )
    def test_what_is_no_balance_is_refused_in_one_line(self, chosen, message):
        with pytest.raises(ValueError, match=message) as caught:
            edm(balance=chosen)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("chosen", "message"),
        [
            ({"cat": 1, "dgo": 1}, "balance: 'dgo' is no class of the dataset; did you mean 'dog'"),
            ({"cat": 1}, "balance: class 'dog' has no share; name each class, with 0"),
        ],
    )
    def test_classes_that_do_not_fit_are_found_before_anything_runs(self, chosen, message):
        with pytest.raises(ValueError, match=message):
            edm(balance=chosen).check(8, 8, 1, 2, 100, ("cat", "dog"))
