"""The budget by a clock that the tests move: what is used, what is affordable, when a run ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equigrid.grid.running.budget import Budget, Cost


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_devices_are_counted_for_as_long_as_they_are_held_busy_or_not(clock):
    budget = Budget(None, clock)
    clock.now += 5
    budget.count(0)
    clock.now += 10
    budget.count(2)
    clock.now += 10
    budget.count(0.5)
    assert budget.used_s == 2 * 10 + 0.5 * 10


def test_without_a_limit_all_is_affordable_and_nothing_is_reached(clock):
    budget = Budget(None, clock)
    clock.now += 1e9
    budget.count(1000)
    assert budget.affords(Cost(1000, 1e9))
    assert not budget.is_reached(Cost(1000, 1e9), within_s=1e9)


def test_a_job_is_affordable_beside_what_is_under_way(clock):
    budget = Budget(100, clock)
    assert budget.affords(Cost(1, 100))
    assert not budget.affords(Cost(1, 101))
    assert not budget.affords(Cost(2, 51))
    budget.begin("a", Cost(2, 30))
    assert budget.affords(Cost(1, 40))
    assert not budget.affords(Cost(1, 41))
    clock.now += 10
    budget.count(2)  # 20 used, 40 still ahead
    assert budget.affords(Cost(1, 40))
    assert not budget.affords(Cost(1, 41))
    clock.now += 30  # it takes longer than was expected: nothing is known of what is ahead
    budget.count(2)
    assert budget.affords(Cost(1, 20))
    budget.end("a")
    assert not budget.affords(Cost(1, 21))


def test_a_cost_that_is_not_known_counts_as_none(clock):
    """It is begun, so that it becomes known; the limit holds all the same."""
    budget = Budget(10, clock)
    assert budget.affords(Cost(4, None))
    budget.begin("a", Cost(4, None))
    assert budget.affords(Cost(1, 10))
    clock.now += 2
    budget.count(4)
    assert not budget.is_reached(None, within_s=0.4)
    assert budget.is_reached(None, within_s=0.5)


def test_a_run_ends_before_what_it_holds_passes_the_limit(clock):
    budget = Budget(10, clock)
    budget.count(2)
    clock.now += 4
    budget.count(2)
    budget.begin("a", Cost(2, 1))
    assert not budget.is_reached(None, within_s=0.25)
    clock.now += 0.75
    budget.count(2)
    assert budget.is_reached(None, within_s=0.25)
    assert budget.used_s <= 10


def test_a_run_is_starved_once_nothing_is_under_way_and_the_next_job_costs_too_much(clock):
    budget = Budget(100, clock)
    dear = Cost(1, 101)
    assert budget.is_reached(dear, within_s=0.25)
    assert not budget.is_reached(Cost(1, 100), within_s=0.25)
    assert not budget.is_reached(None, within_s=0.25)
    budget.begin("a", Cost(1, 10))
    assert not budget.is_reached(dear, within_s=0.25)
    budget.end("a")
    assert budget.is_reached(dear, within_s=0.25)


@given(
    limit_s=st.floats(1, 1e4),
    steps=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8)), max_size=300),
)
@settings(deadline=None)  # on a busy machine
def test_a_run_that_heeds_it_never_passes_the_limit(limit_s, steps):
    """A round takes as long as was said, or less; devices come only if the next round has room."""
    clock = Clock()
    budget = Budget(limit_s, clock)
    for seconds, held in steps:
        budget.count(held)
        if budget.is_reached(None, within_s=1):
            break
        clock.now += seconds
        budget.count(held)
    assert budget.used_s <= limit_s + 1e-6  # rounding of the sums
