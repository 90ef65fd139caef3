"""How many trials a device takes at once, from planted memory and speed."""

import pytest

from equigrid.grid import jobs
from equigrid.grid.running.packing import ENOUGH, Packing, usual_number

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
    packing.out_of_memory(branches=1, per_device=2)
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


# Branches -----------------------------------------------------------------------------------------


def drive_both(packing: Packing, speed_of, *, peak=GIB, device=80 * GIB, requests=60) -> list:
    """Requests finish at whatever packing is asked for, a trial of each branch. `speed_of(b, p)` is
    one request's images/s with b branches beside p - 1 other processes.
    """
    seen = []
    for _ in range(requests):
        b, p = packing.branches, packing.per_device
        seen.append((b, p))
        for _ in range(b):
            packing.finished(
                classifier="r", per_device=p, branches=b, images_per_s=speed_of(b, p),
                peak_bytes=b * peak, device_bytes=device,
            )  # fmt: skip
    return seen


def test_first_branches_are_added_then_processes_each_while_it_pays():
    branches = {1: 100, 2: 180, 3: 230}
    seen = drive_both(
        Packing(most_branches=3), lambda b, p: branches[b] * {1: 1, 2: 0.7, 4: 0.36}[p]
    )
    tried = [(1, 1), (2, 1), (3, 1), (3, 2), (3, 4)]
    assert seen[: 5 * ENOUGH] == [packing for packing in tried for _ in range(ENOUGH)]
    assert set(seen[5 * ENOUGH :]) == {(3, 2)}  # 1.4 times one process; four give 1.44


def test_branches_that_do_not_pay_are_taken_back_and_processes_still_tried():
    packing = Packing(most_branches=8)
    seen = drive_both(packing, lambda b, p: 100 + b)
    assert seen[: 3 * ENOUGH] == [p for p in [(1, 1), (2, 1), (1, 2)] for _ in range(ENOUGH)]
    assert seen[-1] == (1, 8)
    assert packing.settled


def test_where_processes_have_a_fixed_share_branches_alone_are_tried():
    packing = Packing(most_branches=4, shares=False)
    assert drive_both(packing, lambda b, p: 100 * b)[-1] == (4, 1)
    assert packing.settled


def test_memory_bounds_branches_and_processes_together():
    packing = Packing(most_branches=8)
    assert drive_both(packing, lambda b, p: 100 * b, peak=8 * GIB, device=24 * GIB)[-1] == (2, 1)
    packing = Packing(most_branches=2)
    drive_both(packing, lambda b, p: 100 * b, peak=8 * GIB, device=80 * GIB)
    assert (packing.branches, packing.per_device) == (2, 4)


def test_what_a_process_reserved_bounds_it_not_what_its_tensors_took():
    """Each of a graph's branches keeps its memory, of which one's tensors fill a part at a time."""
    packing = Packing(branches=8, settled=False, exact=True)
    row = {"classifier": "r", "images_per_s": 100.0, "peak_device_bytes": 5 * GIB}
    outcome = {"status": jobs.OK, "row": row, "together": 8, "device_bytes": 80 * GIB}
    for _ in range(8 * ENOUGH):
        packing.learn({**outcome, "reserved_bytes": 40 * GIB}, 1.0)
    assert (packing.branches, packing.per_device) == (8, 1)
    assert packing.settled
    packing = Packing(branches=8, settled=False, exact=True)
    for _ in range(8 * ENOUGH):
        packing.learn({**outcome, "reserved_bytes": 16 * GIB}, 1.0)
    assert packing.per_device == 2


def test_memory_that_did_not_suffice_halves_the_branches_once():
    packing = Packing(branches=8, exact=True, shares=False)
    for _ in range(8):  # each of them says so
        packing.learn({"status": jobs.RETRY, "out_of_memory": True, "together": 8}, 1.0)
    assert (packing.branches, packing.per_device) == (4, 1)
    packing.learn({"status": jobs.RETRY, "out_of_memory": True, "together": 1}, 1.0)
    assert packing.branches == 4  # a trial alone did not fit: fewer of them would not either


@pytest.mark.parametrize(
    ("together", "on_gpus", "expected"),
    [("auto", True, (1, 3)), ("auto", False, (1, 1)), (2, False, (2, 1)), (1, True, (1, 1))],
)
def test_a_cpu_takes_one_at_a_time_unless_told_otherwise(together, on_gpus, expected):
    mixes = ["a", "a", "a", "b", "b", "b", None]
    packing = Packing.of(together, on_gpus=on_gpus, shares=on_gpus, mixes=mixes)
    assert (packing.branches, packing.most_branches) == expected


def test_the_usual_number_is_that_of_a_typical_trial():
    assert usual_number(["a"] * 8 + ["b", "c"]) == 8
    assert usual_number(["a", "a", "b", "c", "d"]) == 1
    assert usual_number([None] * 5) == 1
    assert usual_number([]) == 1
