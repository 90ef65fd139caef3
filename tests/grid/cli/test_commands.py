"""The command line as its users meet it: kills, interrupts, exit codes, JSON; each in processes of
its own.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from equigrid.grid.store import Store, results


def parts(store: Store) -> dict[str, tuple]:
    found = {}
    for name in store.list(results.PARTS):
        path = store.path(name)
        found[name] = (os.stat(path).st_mtime_ns, store.get(name))
    return found


def test_a_killed_driver_resumes_to_the_same_table(
    finished_mini, mini, write_spec, start, tmp_path, outcomes
):
    """kill -9 among the trials: finished parts stay as they are."""
    spec, store = write_spec(mini), Store(tmp_path / "store", create=True)
    first = start("run", spec, "--store", store.uri, "--no-dashboard")
    first.wait_until(lambda: len(parts(store)) >= 5)
    first.kill()
    resumes(store, spec, start)
    assert outcomes(store) == outcomes(finished_mini[0])


@pytest.mark.slow
def test_a_driver_killed_twice_resumes_to_the_same_table(
    finished_mini, mini, write_spec, start, tmp_path, outcomes
):
    """kill -9 while generators train, and again among the trials."""
    spec, store = write_spec(mini), Store(tmp_path / "store", create=True)
    arguments = ("run", spec, "--store", store.uri, "--no-dashboard")
    first = start(*arguments)
    first.wait_until(
        lambda: store.get_json("grids/mini/spec.json") and list(store.list("datasets"))
    )
    first.kill()
    second = start(*arguments)
    second.wait_until(lambda: len(parts(store)) >= 5)
    second.kill()
    resumes(store, spec, start)
    assert outcomes(store) == outcomes(finished_mini[0])


def resumes(store: Store, spec, start) -> None:
    """The next run ends well, leaves finished parts as they are, and repeats none."""
    after_kills = parts(store)
    assert 5 <= len(after_kills) < 18
    last = start("run", spec, "--store", store.uri, "--no-dashboard")
    assert last.finish() == 0, last.text
    kept = parts(store)
    assert {name: kept[name] for name in after_kills} == after_kills
    assert len(kept) == 18
    assert (last.out_path.parent / "equigrid-out" / "mini" / "report.html").is_file()


@pytest.mark.slow
def test_all_of_ray_killed_resumes_to_the_same_table(
    finished_mini, mini, write_spec, start, tmp_path, outcomes
):
    """kill -9 of raylet, GCS and workers: the command ends by itself, and the next one goes on."""
    spec, store = write_spec(mini), Store(tmp_path / "store", create=True)
    arguments = ("run", spec, "--store", store.uri, "--no-dashboard")
    first = start(*arguments)
    first.wait_until(lambda: len(parts(store)) >= 3)
    for pid in first.descendants():
        os.kill(pid, signal.SIGKILL)
    assert first.finish(120) != 0
    # Ray itself ends a driver that has lost its GCS, sometimes without a word.
    assert "Traceback" not in first.text
    after_kill = parts(store)
    second = start(*arguments)
    assert second.finish() == 0, second.text
    kept = parts(store)
    assert {name: kept[name] for name in after_kill} == after_kill
    assert outcomes(store) == outcomes(finished_mini[0])


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_ctrl_c_stops_within_ten_seconds_and_says_how_to_go_on(
    mini, write_spec, start, tmp_path, left_of
):
    mini["blocks"], mini["recipe"]["steps"] = [{"n_base": [60]}], 10_000
    mini["execution"]["checkpoint_every_s"] = 0.5  # a checkpoint says that a trial is in its middle
    spec, store = write_spec(mini), Store(tmp_path / "store", create=True)
    command = start("run", spec, "--store", store.uri, "--no-dashboard")
    command.wait_until(lambda: any(name.endswith(".pt") for name in store.list("checkpoints")))
    running = command.descendants()
    os.killpg(command.process.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
    began = time.monotonic()
    assert command.finish(15) == 130, command.text
    assert time.monotonic() - began < 10
    assert f"To go on: equigrid run {spec}" in command.text
    assert "Traceback" not in command.text
    assert len(running) > 3 and not left_of(running)


def equigrid(*arguments, cwd=None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "equigrid.grid.cli", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )


def test_help_is_light():
    """No torch, ray, pandas or pyarrow behind --help, and none of torch and ray behind plan."""
    code = "import sys; import equigrid.grid.cli.entry; print(sorted({'torch','ray','pandas','pyarrow','scipy'} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
    code = (
        "import sys; sys.argv = ['equigrid', 'plan', 'digits', '--json']; import equigrid.grid.cli\n"
        "try: equigrid.grid.cli.main()\nexcept SystemExit: print(sorted({'torch','ray'} & set(sys.modules)), file=sys.stderr)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stderr.strip()
        == "[]"
    )


@pytest.mark.long
def test_plan_before_and_after(finished_mini, mini, write_spec, tmp_path):
    spec = write_spec(mini)
    fresh = json.loads(equigrid("plan", spec, "--store", tmp_path / "none", "--json").stdout)
    assert fresh["fingerprint"] == "pending"
    assert fresh["cells"] == 20
    by_kind = {line["kind"]: line for line in fresh["kinds"]}
    assert {kind: (line["total"], line["done"], line["todo"]) for kind, line in by_kind.items()} == {
        "ingest": (1, 0, 1), "generator": (2, 0, 2), "shard": (2, 0, 2), "trial": (18, 0, 18),
    }  # fmt: skip
    assert by_kind["trial"]["shared"] == 2
    assert by_kind["shard"]["bytes"] == 2 * 256 * 72  # a pool's first shard holds 256
    assert not (tmp_path / "none").exists()  # planning leaves nothing behind
    mini["blocks"][0]["copies"] = [1, 2]
    grown = json.loads(
        equigrid("plan", write_spec(mini), "--store", finished_mini[0].uri, "--json").stdout
    )
    by_kind = {line["kind"]: line for line in grown["kinds"]}
    assert (by_kind["trial"]["done"], by_kind["trial"]["todo"]) == (18, 4)
    assert by_kind["generator"]["todo"] == 0
    assert by_kind["trial"]["basis"] == ["measured"]
    assert grown["device_seconds"] > 0
    text = equigrid("plan", "digits", "--store", tmp_path / "none").stdout
    assert re.search(r"trial\s+│\s+\d+ │\s+0 │", text)


@pytest.mark.long
def test_status_fit_and_report_work_offline_from_the_store(finished_mini, tmp_path):
    store = finished_mini[0].uri
    state = json.loads(equigrid("status", "mini", "--store", store, "--json").stdout)
    assert (state["cells"], state["cells_done"], state["complete"]) == (20, 20, True)
    assert state["runs"][-1]["jobs"] or state["runs"][0]["jobs"]
    assert "20 of 20 cells have a result" in equigrid("status", "mini", "--store", store).stdout
    fitted = equigrid("fit", "mini", "--store", store, "--json")
    assert fitted.returncode == 0, fitted.stderr
    # The store's only grid.
    asked = equigrid("equiv", "--n-base", 60, "--n-real", 60, "--store", store, "--json")
    assert json.loads(asked.stdout)["curves"][0]["n_base"] == 60
    (curve,) = json.loads(fitted.stdout)["curves"]
    assert curve["status"] in ("determined", "undetermined")
    assert curve["status"] == "determined" or curve["reasons"]
    written = equigrid("report", "mini", "--store", store, "--out", tmp_path / "out", "--json")
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "out" / "report.html").read_text().lower().startswith("<!doctype html>")
    assert list((tmp_path / "out").rglob("*.png"))


@pytest.mark.long
def test_paper_and_equiv():
    rows = json.loads(equigrid("paper", "--json").stdout)
    assert [row["equation"] for row in rows] == [2, 3, 4, 5, 6, 8, 9]
    assert rows[0]["refit"] == pytest.approx([0.728, 3.841], rel=0.01)
    printed = json.loads(equigrid("paper", "--as-printed", "--json").stdout)
    assert printed[1]["refit"] == pytest.approx([1.012, 2.706], rel=0.01)
    asked = (
        "equiv",
        "--paper",
        "--dataset",
        "cifar10",
        "--generator",
        "cifake",
        "--n-base",
        5000,
        "--n-real",
        2500,
    )
    (answer,) = json.loads(
        equigrid(*asked, "--cost-real", 0.05, "--cost-syn", 0.0004, "--json").stdout
    )["curves"]
    assert answer["amount"]["kind"] in ("matched", "at least")
    assert 0 < answer["amount"]["low"] < answer["amount"]["value"]
    assert answer["costs"]["real"] == 125.0
    assert "one real image is worth" in equigrid(*asked).stdout
    for wrong in (
        asked[:2] + asked[4:-2] + ("--n-real", -1),
        ("equiv", "--n-base", 1, "--n-real", 1),
        asked + ("--budget", 1),
    ):
        refused = equigrid(*wrong)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_failed_cells_are_exit_code_1_and_listed(mini, write_spec, tmp_path, start):
    mini["classifiers"] = ["digits-cnn", "resnet20"]
    mini["recipe"]["by_classifier"] = {"resnet20": {"lr": 1e30}}
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "real": [1]}], [0]
    spec = write_spec(mini)
    command = start("run", spec, "--store", tmp_path / "store", "--no-dashboard")
    assert command.finish() == 1, command.text
    assert "2 jobs failed, 2 cells have no result" in command.text
    assert re.search(
        r"trial trial-\w{20}: NotFinite: the loss became nan.*\[60 real, resnet20", command.text
    )
    state = equigrid("status", spec, "--store", tmp_path / "store")
    assert state.returncode == 1
    assert "NotFinite" in state.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digist"], "digist: no such preset.*did you mean 'digits'"),
        (["plan", "missing.yaml"], "missing.yaml: cannot be read: No such file or directory"),
        (["run", "digits", "--store", "/dev/null"], "store /dev/null: .*"),
        (["run", "digits", "--store", "/proc/equigrid"], "store /proc/equigrid: cannot be opened"),
        (
            ["run", "digits", "--store", "s4://bucket/x"],
            "store s4://bucket/x: cannot be opened: Unrecognized filesystem",
        ),
        (["status", "digits", "--store", "empty"], "store empty: holds no grid yet"),
        (["fit", "digits", "--store", "empty"], "store empty: holds no grid yet"),
    ],
)
def test_bad_input_is_exit_code_2_and_one_line(tmp_path, arguments, message):
    found = equigrid(*arguments, cwd=tmp_path)
    assert found.returncode == 2, found.stderr
    last = found.stderr.strip().splitlines()[-1]
    assert re.match(f"equigrid: {message}", last), found.stderr
    assert "Traceback" not in found.stderr
