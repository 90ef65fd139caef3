"""Which running jobs are told of, and when, as nothing is heard of them."""

from equigrid.grid.reporting.silence import Listened, Silence


def heard(silence: Silence, now_s: float, **shares) -> dict[str, float]:
    return silence.look(shares, now_s)


def test_a_job_that_gets_no_further_is_told_of_and_again_when_its_silence_has_doubled():
    silence = Silence(after_s=10)
    times = [t for t in range(200) if heard(silence, float(t), a=0.25)]
    assert times == [10, 20, 40, 80, 160]


def test_one_that_never_says_how_far_it_is_is_told_of_too():
    silence = Silence(after_s=10)
    assert heard(silence, 5, a=None) == {}
    assert heard(silence, 14.9, a=None) == {}
    assert heard(silence, 15, a=None, b=None) == {"a": 10}
    assert heard(silence, 25, b=None) == {"b": 10}


def test_one_that_gets_further_is_not():
    silence = Silence(after_s=10)
    assert not any(heard(silence, t, a=t / 1000, b=None if t < 9 else 0.1) for t in range(18))
    assert heard(silence, 19, a=0.017, b=0.1) == {"b": 10}  # since it first said something
    assert heard(silence, 27, a=0.017, b=0.2) == {"a": 10}


def test_another_attempt_begins_anew():
    silence = Silence(after_s=10)
    heard(silence, 0, a=0.5)
    heard(silence, 9, b=0.5)  # a waits for its turn
    assert heard(silence, 12, a=0.5) == {}
    assert heard(silence, 22, a=0.5) == {"a": 10}
    silence.forget("a")  # it is at work again before anybody looked
    assert heard(silence, 23, a=0.5) == {}
    assert heard(silence, 33, a=0.5) == {"a": 10}


def test_those_that_are_silent_for_longer_than_allowed():
    silence = Silence(after_s=10)
    heard(silence, 0, a=0.5, b=None)
    heard(silence, 4, a=0.6, b=None)
    assert silence.since(5, 4.9) == []
    assert silence.since(5, 5) == ["b"]
    assert silence.since(5, 9) == ["a", "b"]
    silence.forget("b")
    assert silence.since(5, 9) == ["a"], "its next attempt is not ended for the silence of the last"


def test_time_in_which_nobody_listened_is_no_silence():
    """The driver was stopped for an hour (Ctrl-Z) while its jobs went on: what it last knew of them
    made them look hung.
    """
    listened, silence = Listened(100), Silence(after_s=30)
    for now_s, share in [(101, 0.1), (102, 0.2), (3702, 0.2)]:  # as answered before it was stopped
        listened.heard(now_s)
        assert heard(silence, listened.seconds, a=share) == {}
        assert silence.since(30, listened.seconds) == []
    for now_s in range(3703, 3728):
        listened.heard(now_s)
        assert heard(silence, listened.seconds, a=0.2) == ({"a": 30} if now_s == 3727 else {})
    assert silence.since(30, listened.seconds) == ["a"]
