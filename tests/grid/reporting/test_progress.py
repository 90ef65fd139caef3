"""What a person sees: one live line per stage in a terminal, plain lines elsewhere."""

import io
import re
from dataclasses import replace

from rich.console import Console

from equigrid.grid.reporting.console import show_status
from equigrid.grid.reporting.progress import Progress, Stage, Whole, line
from equigrid.grid.reporting.status import StageStatus, Status
from equigrid.grid.reporting.summary import Summary, closing_line
from equigrid.grid.units import duration


def stages() -> dict[str, Stage]:
    trial = Stage(total=100, cached=20, failed=2, running=2)
    trial.begin(10.0)
    for second in range(30):
        trial.finish(11.0 + second)
    return {"generator": Stage(), "trial": trial}


def test_a_line_has_counts_rate_and_time_left():
    trial = stages()["trial"]
    assert trial.left == 48
    assert trial.rate == 1.0
    assert (
        line("trial", trial, 40.0)
        == "trial 50/100, 2 running, 2 failed, 1.0/s, 48 s left, 20 from before"
    )
    assert trial.left_s(45.0) == 43.0  # the clock runs between two results
    assert trial.left_s(400.0) == 0.0
    assert line("shard", Stage(total=3), 0.0) == "shard 0/3"


def test_status_shows_what_a_driver_says_while_there_is_one(capsys):
    stages = (StageStatus("generator", 2, 2, 0), StageStatus("trial", 20, 4, 1))
    idle = Status("g", "store", 20, 4, stages, (), None, ())
    show_status(idle)
    assert "running" not in capsys.readouterr().out
    kinds = {"trial": {"running": 3, "images_per_s": 12345.6, "left_s": 600.0}}
    told = {
        "who": "process 7 of eve on n1",
        "kinds": kinds,
        "device_s": 5400.0,
        "shard_hits": 97,
        "shard_loads": 3,
    }
    show_status(replace(idle, driver=told))
    shown = capsys.readouterr().out
    assert re.search(r"trial\s+│\s+20 │\s+4 │\s+1 │\s+15 │\s+3 │\s+12,346 │\s+10 min", shown)
    assert re.search(r"generator\s+│\s+2 │\s+2 │\s+0 │\s+0 │\s+0 │\s+– │\s+–", shown)
    assert (
        "eve on n1: 1.50 device-hours in this run, 97 of 100 shards were in the cluster's memory"
        in shown
    )
    show_status(replace(idle, driver={"who": "process 7 of eve on n1", "kinds": {}}))
    assert "eve on n1: nothing begun yet" in capsys.readouterr().out


def test_plain_lines_where_there_is_no_terminal():
    now, out = [0.0], io.StringIO()
    shown = stages()
    with Progress(shown, Console(file=out, width=80), clock=lambda: now[0]) as progress:
        for _ in range(50):  # many updates, few lines
            now[0] += 1
            shown["trial"].finish(now[0])
            progress.update()
        progress.message("failed: trial x")
    lines = out.getvalue().splitlines()
    assert 5 <= len(lines) <= 8
    # A stage without jobs is not shown.
    assert all(text.startswith(("trial ", "failed: ")) for text in lines)
    assert "\x1b" not in out.getvalue()


def test_a_live_line_per_stage_in_a_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120, color_system=None)
    with Progress(
        stages() | {"shard": Stage(total=4, done=0)}, console, clock=lambda: 40.0
    ) as progress:
        progress.update()
    text = out.getvalue()
    assert "50/100" in text
    assert "48 s left" in text
    assert "0/4" in text


def test_durations():
    assert [duration(s) for s in (3, 89, 125, 5400, 200_000)] == [
        "3 s",
        "89 s",
        "2 min",
        "1.5 h",
        "2.3 d",
    ]


def test_the_closing_line_says_how_to_go_on():
    summary = Summary("g", "s", seconds=65.0)
    assert closing_line(summary, "equigrid run g") == "nothing to do"
    stopped = Summary("g", "s", seconds=2.0, budget_reached=True)
    assert closing_line(stopped, "c").startswith("stopped at the budget: nothing finished; ")
    summary.jobs.update({"generator": 1, "trial": 1200})
    summary.cached.update({"trial": 3})
    assert (
        closing_line(summary, "c") == "1 generator, 1,200 trials in 65 s (3 jobs were done before)"
    )
    summary.interrupted = True
    assert closing_line(summary, "equigrid run g").endswith(
        "everything finished is kept. To go on: equigrid run g"
    )


def test_jobs_that_run_and_the_whole_are_shown_in_a_terminal():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=140, color_system=None)
    shard = Stage(total=4, done=1, running=2, shares=(0.125, 0.5))
    whole = Whole(elapsed_s=60.0, left_s=240.0, at_s=40.0)
    with Progress({"shard": shard}, console, clock=lambda: 100.0, whole=whole) as progress:
        progress.update()
    text = out.getvalue()
    assert "2 running (50%, 12%)" in text
    assert "about 3 min left of 5 min" in text  # a minute after that was said
    assert "20%" in text


def test_a_stage_that_stands_still_shows_a_line_a_minute():
    now, out = [0.0], io.StringIO()
    shard = Stage(total=4, running=1)
    with Progress({"shard": shard}, Console(file=out, width=80), clock=lambda: now[0]) as progress:
        for second in range(300):  # one shard, five minutes
            now[0], shard.shares = float(second), (second / 300,)
            progress.update()
    lines = out.getvalue().splitlines()
    assert 4 <= len(lines) <= 6
    assert len(set(lines)) == len(lines), "each says something new"
