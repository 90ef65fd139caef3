"""Looks at a training cost a bounded part of its time, however often it is saved."""

import pytest

from equigrid.grid.jobs.generator import LOOK_SHARE, MOST_LOOK_S, Looks


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("every_s", [0.01, 1.0, 120.0])
@pytest.mark.parametrize("cost_s", [0.05, 3.0, 60.0])
def test_looks_take_their_part_of_the_time_and_no_more(every_s, cost_s):
    clock, taken = Clock(), 0
    looks = Looks(clock)
    while clock.now_s < 3600 or taken == 0:
        clock.now_s += every_s
        with looks.one(clock.now_s) as allowed_s:
            assert 0 <= allowed_s <= MOST_LOOK_S
            if allowed_s:
                clock.now_s += cost_s
                taken += 1
    assert taken * cost_s <= LOOK_SHARE * clock.now_s + cost_s
    assert taken >= min(3600 / every_s, LOOK_SHARE * 3600 / cost_s) * 0.5, "it is looked at"


def test_a_short_training_is_not_looked_at():
    looks = Looks(Clock())
    with looks.one(trained_s=0.5) as allowed_s:
        assert allowed_s == 0


def test_a_look_that_fails_counts_too():
    clock = Clock()
    looks = Looks(clock)

    def failing() -> None:
        with looks.one(trained_s=100.0) as allowed_s:
            clock.now_s += allowed_s
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        failing()
    with looks.one(trained_s=101.0) as allowed_s:
        assert allowed_s == 0
