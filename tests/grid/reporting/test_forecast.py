"""How long the whole of a run takes still: from jobs that ended, jobs that run, and what is known."""

import random

import numpy as np
import pytest

from equigrid.grid.jobs.kinds import KINDS
from equigrid.grid.reporting import run_forecast
from equigrid.grid.reporting.forecast import Forecast, Task


def trials(n: int, **more) -> list[Task]:
    return [Task(f"t{i}", "trial", ("cnn",), 100.0, **more) for i in range(n)]


def test_nothing_is_said_where_nothing_is_known_and_one_job_tells_of_all():
    forecast = Forecast(trials(10))
    assert forecast.device_s_left({}) is None
    assert [task.id for task in forecast.unknown()] == ["t0"]
    forecast.ended("t0", 4.0)
    assert forecast.unknown() == []
    assert forecast.device_s_left({}) == pytest.approx(36.0)
    assert forecast.seconds_left({}, 2) == pytest.approx(18.0)
    assert forecast.seconds_left({}, 0) is None  # no slot is up yet


def test_work_scales_and_the_first_job_of_a_process_does_not_speak_for_all():
    tasks = [*trials(4), Task("long", "trial", ("cnn",), 1000.0)]
    forecast = Forecast(tasks)
    forecast.ended("t0", 9.0)  # it imported what the others found there
    forecast.ended("t1", 1.0)
    assert forecast.device_s_left({}) == pytest.approx(1.0 + 1.0 + 10.0)


def test_what_was_expected_is_scaled_by_this_run_for_kinds_that_have_not_run():
    tasks = [Task("g0", "generator", expected_s=20.0), Task("g1", "generator", expected_s=20.0),
             *trials(10, expected_s=1.0)]  # fmt: skip
    forecast = Forecast(tasks)
    assert forecast.device_s_left({}) == 50.0
    forecast.ended("g0", 60.0)  # a machine three times slower
    assert forecast.device_s_left({}) == pytest.approx(60.0 + 30.0)


def test_a_running_job_that_says_how_far_it_is_speaks_for_itself_and_for_others():
    tasks = [Task("g0", "generator", ("a",), 1.0), Task("g1", "generator", ("a",), 1.0)]
    forecast = Forecast(tasks)
    assert forecast.device_s_left({"g0": (1.0, 0.5)}) is None  # too early to say
    assert forecast.device_s_left({"g0": (30.0, 0.25)}) == pytest.approx(90.0 + 120.0)
    # Two devices, but what runs ends no sooner for that.
    assert forecast.seconds_left({"g0": (30.0, 0.25), "g1": (1.0, None)}, 4) >= 90.0


def test_failures_and_jobs_that_are_not_left():
    forecast = Forecast(trials(3, expected_s=2.0))
    forecast.ended("t0", None)
    assert forecast.device_s_left({}) == 4.0
    forecast.ended("t0", 7.0)  # made again meanwhile: it is not counted twice
    forecast.ended("somebody else's", 7.0)
    assert forecast.device_s_left({}) == 4.0


def test_a_guess_gets_the_rates_that_are_known():
    tasks = [Task("g", "generator"), Task("s0", "shard", work=10.0)]
    forecast = Forecast(tasks, lambda task, work, rates: work * rates.get("generator", 0.0))
    forecast.ended("g", 3.0)
    assert forecast.device_s_left({}) == 30.0


@pytest.mark.parametrize("known", [True, False])
def test_right_within_a_factor_of_two_from_a_tenth_of_the_way_on(known):
    """A run on two slots, simulated: generators, then shards, then trials of several lengths, whose
    durations scatter, on a machine 2.5 times slower than expected.
    """
    rng = random.Random(0)
    tasks, truth = [], {}

    def add(kind: str, n: int, works: list[float], seconds: float) -> None:
        for i in range(n):
            work = works[i % len(works)]
            job = f"{kind}{i}"
            expected = seconds * work if known else None
            tasks.append(Task(job, kind, (kind,), work, expected))
            truth[job] = 2.5 * seconds * work * rng.uniform(0.7, 1.4)

    add("generator", 6, [1.0], 20.0)
    add("shard", 30, [1.0, 2.0], 1.0)
    add("trial", 150, [1.0, 2.0, 4.0], 0.8)

    def guess(task, work, rates):
        known = task.kind == "shard" and "generator" in rates
        return work * rates["generator"] / 20 if known else None

    forecast = Forecast(tasks, guess)
    first = {task.id for task in forecast.unknown() if task.kind != "shard"}
    order = sorted(tasks, key=lambda task: task.id not in first)
    slots, spans = [0.0, 0.0], {}
    for task in order:
        slot = min(range(2), key=slots.__getitem__)
        spans[task.id] = (slots[slot], slots[slot] + truth[task.id])
        slots[slot] += truth[task.id]
    whole, said, over = max(slots), [], set()
    for now in np.arange(1.0, whole, 1.0):  # looked at once a second
        for job, (_, end) in spans.items():
            if end <= now and job not in over:
                forecast.ended(job, truth[job])
                over.add(job)
        running = {job: (now - begin, (now - begin) / truth[job])
                   for job, (begin, end) in spans.items() if begin <= now < end}  # fmt: skip
        said.append((now, forecast.seconds_left(running, 2)))
    assert next(at for at, left in said if left is not None) <= 60.0
    late = [(at, left) for at, left in said if at >= 0.1 * whole]
    assert len(late) > 100
    assert all(left is not None and 0.5 <= (at + left) / whole <= 2.0 for at, left in late)


def test_a_runs_forecast_waits_for_no_measure_of_pools(plan_of, store):
    """They come last: by then there is nothing to foretell."""
    the_plan = plan_of("digits", expected_seconds={})
    jobs = list(the_plan.jobs.values())
    assert any(job.kind == "quality" for job in jobs)
    forecast = run_forecast.of(store, the_plan, jobs)
    assert {task.kind for task in forecast.unknown()} >= {"generator", "trial"}
    first = {kind: next(job for job in jobs if job.kind == kind) for kind in ("generator", "trial")}
    forecast.ended(first["trial"].id, 0.5)
    assert forecast.seconds_left({}, 2) is None
    forecast.ended(first["generator"].id, 10.0)
    trials = sum(job.kind == "trial" for job in jobs)
    assert forecast.seconds_left({}, 2) > (trials - 1) * 0.5 / 2


def test_a_runs_forecast_counts_the_classifiers_beside_its_trials(plan_of, store):
    """A domain gap trains one on as many images of both sides, a patch's is smaller: by what they
    compute, at the pace of the trials.
    """
    asked = {"images": 200, "patches": [4]}
    the_plan = plan_of("digits", expected_seconds={}, domain_gap=asked, quality="off")
    jobs, shape = list(the_plan.jobs.values()), the_plan.resolved.shape
    trials = [job for job in jobs if job.kind == "trial"]
    gaps = [job for job in jobs if job.kind == "domain"]
    assert len(gaps) >= 2
    forecast = run_forecast.of(store, the_plan, jobs)
    for job in jobs:
        if job.kind not in ("domain", "trial"):
            forecast.ended(job.id, 1.0)

    def operations(job):
        return KINDS[job.kind].cost.flops(job.payload, shape).flops

    speed = 1e9  # operations a second
    for job in trials:
        forecast.ended(job.id, operations(job) / speed)
    expected = sum(operations(job) for job in gaps) / speed
    assert 0 < expected / 2 < forecast.device_s_left({}) < 2 * expected
