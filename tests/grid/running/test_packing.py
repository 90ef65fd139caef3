"""How many trials a device takes at once, from planted memory and speed."""

from equigrid.grid.running.packing import ENOUGH, Packing

GIB = 2**30


def drive(packing: Packing, speed_of, *, peak=GIB, device=80 * GIB, rounds=40) -> list[int]:
    """Trials finish at whatever packing is asked for; `speed_of(k)` is one trial's images/s beside
    k - 1 others.
    """
    seen = []
    for _ in range(rounds):
        k = packing.per_device
        seen.append(k)
        packing.finished(
            classifier="r",
            per_device=k,
            images_per_s=speed_of(k),
            peak_bytes=peak,
            device_bytes=device,
        )
    return seen


def test_it_doubles_while_the_device_gets_faster_and_goes_back_once():
    packing = Packing()
    # The device as a whole: 100, 180, 240, 250 images/s at 1, 2, 4, 8: the last is not worth it.
    seen = drive(packing, lambda k: {1: 100, 2: 90, 4: 60, 8: 31}[k])
    assert seen[: 4 * ENOUGH] == [1] * ENOUGH + [2] * ENOUGH + [4] * ENOUGH + [8] * ENOUGH
    assert packing.settled
    assert set(seen[4 * ENOUGH :]) == {4}


def test_a_device_that_is_full_with_one_stays_with_one():
    packing = Packing()
    assert set(drive(packing, lambda k: 100 / k)[2 * ENOUGH :]) == {1}
    assert packing.settled


def test_memory_bounds_it_whatever_the_speed():
    packing = Packing()
    drive(packing, lambda k: 100, peak=8 * GIB, device=24 * GIB)
    assert packing.per_device == 2
    packing = Packing()
    drive(packing, lambda k: 100, peak=14 * GIB, device=24 * GIB)
    assert packing.per_device == 1


def test_a_larger_trial_that_comes_later_makes_room():
    packing = Packing()
    drive(packing, lambda k: 100)
    assert packing.per_device == 8
    large = {"peak_bytes": 30 * GIB, "device_bytes": 80 * GIB}
    packing.finished(classifier="big", per_device=8, images_per_s=10, **large)
    assert packing.per_device == 2
    packing.out_of_memory()
    assert packing.per_device == 1


def test_late_news_of_an_earlier_packing_counts_for_memory_alone():
    packing = Packing()
    drive(packing, lambda k: 100, rounds=ENOUGH)
    assert packing.per_device == 2
    for _ in range(ENOUGH):
        packing.finished(
            classifier="r", per_device=1, images_per_s=1, peak_bytes=GIB, device_bytes=80 * GIB
        )
    assert packing.per_device == 2
    assert not packing.settled


def test_classifiers_are_compared_with_themselves():
    packing = Packing()
    drive(packing, lambda k: 1000, rounds=ENOUGH)
    # A slower classifier's first measurement at 2 has nothing to be compared with: it is the new
    # mark.
    for _ in range(ENOUGH):
        packing.finished(
            classifier="slow", per_device=2, images_per_s=1, peak_bytes=GIB, device_bytes=80 * GIB
        )
    assert packing.per_device == 4
