"""Drills of the rough kind: drivers that sleep and wake up beside their successor, clocks that go
back, homes that cannot be written, damage in the store, kills at random.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

import equigrid
from equigrid.grid.errors import ExitCode
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, layout, lock, results

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("EQUIGRID_KILLS", "100"))


def parts(store: Store) -> list[str]:
    return list(store.list(results.PARTS))


def test_a_driver_that_was_stopped_goes_on_beside_its_successor(
    finished_mini, mini, write_spec, start, tmp_path, outcomes
):
    """SIGSTOP, as a laptop that sleeps: the successor takes over, and the first wakes up beside it.
    It finds that out by its next heartbeat, and until then may do work twice but never spoils it.
    """
    store, spec = Store(tmp_path / "store", create=True), write_spec(mini)
    first = start("run", spec, "--store", store.uri, "--no-dashboard")
    first.wait_until(lambda: len(parts(store)) >= 2)
    os.kill(first.driver, signal.SIGSTOP)
    refused = start("run", spec, "--store", store.uri, "--no-dashboard")
    assert refused.finish() == ExitCode.UNAVAILABLE  # it is there still: asleep, not dead
    assert "--takeover" in refused.text
    owner = lock.holder(store, "mini").owner.run
    second = start("run", spec, "--store", store.uri, "--takeover", "--no-dashboard")
    second.wait_until(lambda: (now := lock.holder(store, "mini")) and now.owner.run != owner)
    second.wait_until(lambda: len(parts(store)) >= 4)
    os.kill(first.driver, signal.SIGCONT)
    assert second.finish() == ExitCode.DONE, second.text
    assert first.finish() in (ExitCode.DONE, ExitCode.INTERRUPTED), first.text
    assert "Traceback" not in first.text + second.text
    assert outcomes(store) == outcomes(finished_mini[0])
    assert len(results.read(store)) == len(outcomes(store))
    assert lock.holder(store, "mini") is None


@pytest.mark.skipif(shutil.which("faketime") is None, reason="no faketime (Debian: faketime)")
def test_a_clock_that_was_set_back(finished_mini, mini, write_spec, start, tmp_path, outcomes):
    """Killed, and run again up to an hour before: results stand, locks and records do not confuse
    it. (faketime sets the monotonic clock back too, which cannot be before the machine's start.)
    """
    store, spec = Store(tmp_path / "store", create=True), write_spec(mini)
    first = start("run", spec, "--store", store.uri, "--no-dashboard")
    first.wait_until(lambda: len(parts(store)) >= 3)
    first.kill()
    before = {row["trial_id"]: row for row in results.read(store).to_pylist()}
    back_s = min(3600, int(time.clock_gettime(time.CLOCK_BOOTTIME) / 2))
    under = ("faketime", "-f", f"-{back_s}s")
    again = start("run", spec, "--store", store.uri, "--no-dashboard", under=under)
    assert again.finish(300) == ExitCode.DONE, again.text
    assert outcomes(store) == outcomes(finished_mini[0])
    after = {row["trial_id"]: row for row in results.read(store).to_pylist()}
    # What was there was not made again, though all the rest is older.
    assert {trial: after[trial]["attempt"] for trial in before} == {
        trial: row["attempt"] for trial, row in before.items()
    }
    earliest = min(row["finished_at"] for row in before.values())
    assert all(row["finished_at"] < earliest for trial, row in after.items() if trial not in before)
    assert lock.holder(store, "mini") is None


def test_a_home_that_cannot_be_written(
    finished_mini, mini, write_spec, start, tmp_path, outcomes, monkeypatch
):
    """By a user without any privilege, as in a container: root's are dropped here."""
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    if shutil.which("setpriv") is None or subprocess.run([*bare, "true"], check=False).returncode:
        pytest.skip("privileges cannot be dropped here")
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    store = Store(tmp_path / "store", create=True)
    command = start("run", write_spec(mini), "--store", store.uri, "--no-dashboard", under=bare)
    assert command.finish(240) == ExitCode.DONE, command.text
    assert outcomes(store) == outcomes(finished_mini[0])
    assert not os.listdir(home)


def test_a_user_without_a_name_or_a_home(mini, outcomes, finished_mini):
    """As some clusters run containers: a number that no list of users knows, and no folder of its
    own but the one where it works.
    """
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("only root becomes somebody else")
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None or _version(python) != sys.version_info[:2]:
        pytest.skip("no Python of this version that everybody may run")
    folder = Path(tempfile.mkdtemp(prefix="nameless-", dir="/tmp"))  # pytest's are root's alone
    try:
        spec = folder / "mini.yaml"
        spec.write_text(yaml.safe_dump(mini))
        os.chown(folder, 12345, 12345)
        as_somebody = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
        cli = (python, "-m", "equigrid.grid.cli", "run", spec)
        where = ("--store", folder / "store", "--out", folder / "out", "--no-dashboard")
        path = f"{equigrid.__path__[0]}/..:{sysconfig.get_path('purelib')}"
        env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONPATH": path}
        command = subprocess.run(
            [*as_somebody, *cli, *where], cwd=folder, env=env, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=400,
        )  # fmt: skip
        assert command.returncode == ExitCode.DONE, command.stdout
        assert "/nonexistent" not in command.stdout
        assert (folder / "out" / "report.html").stat().st_uid == 12345
        assert outcomes(Store(str(folder / "store"))) == outcomes(finished_mini[0])
    finally:
        shutil.rmtree(folder)


def _version(python: str) -> tuple[int, ...]:
    code = "import sys; print(*sys.version_info[:2])"
    said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in said.split())


# Damage -------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damaged_weights(folder: Path) -> None:
    for path in folder.glob("generators/*/weights-*"):
        flip(path)


def swapped_weights(folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("generators/*/weights-*"))
    one, other = first.read_bytes(), second.read_bytes()
    assert one != other
    first.write_bytes(other)
    second.write_bytes(one)


def swapped_shards(folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("pools/*/*.safetensors"))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def damaged_real_shards(folder: Path) -> None:
    for path in folder.glob("datasets/*/train-*.safetensors"):
        flip(path)


@pytest.mark.parametrize(
    ("damage", "gone"),
    [
        (damaged_weights, ("pools",)), (swapped_weights, ("pools",)), (swapped_shards, ()),
        (damaged_real_shards, ()),
    ],
)  # fmt: skip
def test_damage_is_mended_by_the_next_run(
    finished_mini, mini, quiet, tmp_path, outcomes, damage, gone
):
    """The trials' rows are gone too, so that what is damaged is needed again."""
    folder = tmp_path / "store"
    shutil.copytree(finished_mini[0].uri, folder)
    for name in ("results", *gone):
        shutil.rmtree(folder / name)
    damage(folder)
    store = Store(folder)
    summary, _ = driver.run(load(mini), store, console=quiet)
    assert not summary.failures
    assert outcomes(store) == outcomes(finished_mini[0])


def test_another_folder_at_the_stores_place_ends_the_run(mini, write_spec, start, tmp_path):
    """As when a disk is unmounted and another one mounted there: nothing is written into it."""
    mini["seeds"] = list(range(60))
    store = Store(tmp_path / "store", create=True)
    command = start("run", write_spec(mini), "--store", store.uri, "--no-dashboard")
    command.wait_until(lambda: len(parts(store)) >= 2)
    other = Store(tmp_path / "other", create=True)
    mine = Path(other.uri, "identity").read_bytes()
    Path(store.uri).rename(tmp_path / "unmounted")
    Path(other.uri).rename(store.uri)
    assert command.finish(120) == ExitCode.UNAVAILABLE, command.text
    assert "another folder" in command.text or "cannot" in command.text
    assert "Traceback" not in command.text
    assert Path(store.uri, "identity").read_bytes() == mine


# What a kill costs --------------------------------------------------------------------------------


def test_at_most_one_interval_of_steps_is_repeated(
    ray_here, mini, tmp_path, quiet, plant, slot_processes
):
    """kill -9 of a training: it goes on with the step after the last checkpoint, so that only steps
    since then run twice. Counted step by step, in the process that trains.
    """
    mini["execution"] |= {"slots": 1, "checkpoint_every_s": 0.5}
    mini["recipe"]["steps"] = 1500
    mini["blocks"], mini["seeds"] = [{"n_base": [60]}], [0]
    told = tmp_path / "steps"
    plant(
        "import os\n"
        "from equigrid.grid.jobs.checkpoints import Checkpoints, Saving\n"
        "several, save = Saving.several, Checkpoints.save\n"
        f"file = open({str(told)!r}, 'a', buffering=1)\n"
        "def tell(what, step):\n"
        "    file.write(f'{os.getpid()} {what} {step}\\n')\n"
        "def counted(self, step, make_states):\n"
        "    tell('step', step)\n"
        "    several(self, step, make_states)\n"
        "def saved(self, step, state):\n"
        "    tell('saving', step)\n"
        "    save(self, step, state)\n"
        "    tell('saved', step)\n"
        "Saving.several, Checkpoints.save = counted, saved\n"
    )

    def killer() -> None:
        end_s = time.monotonic() + 120
        while time.monotonic() < end_s:
            if told.exists() and told.read_text().count("saved") >= 2:
                time.sleep(0.3)  # into the next interval
                for pid in slot_processes("trial"):
                    os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=killer, daemon=True)
    thread.start()
    summary, _ = driver.run(load(mini), Store(tmp_path / "store", create=True), console=quiet)
    thread.join(10)
    assert not summary.failures
    lines = [line.split() for line in told.read_text().splitlines() if line.count(" ") == 2]
    pids = list(dict.fromkeys(pid for pid, _, _ in lines))
    assert len(pids) == 2, "it was killed once"
    steps = {p: [int(n) for pid, what, n in lines if (pid, what) == (p, "step")] for p in pids}
    of_first = [(what, int(n)) for pid, what, n in lines if pid == pids[0]]
    saves = [n for what, n in of_first if what == "saved"]
    before, after = steps[pids[0]], steps[pids[1]]
    resumed = after[0] - 1
    # One that was being written may have been written.
    assert resumed in (saves[-1], max(n for what, n in of_first if what == "saving"))
    assert after == list(range(resumed + 1, 1501))
    repeated = before[-1] - resumed
    longest = max(b - a for a, b in zip([0, *saves], [*saves, before[-1]]))
    assert 0 <= repeated <= longest
    assert len(before) + len(after) == 1500 + repeated


def test_kills_at_random(finished_mini, mini, write_spec, start, tmp_path, outcomes):
    """kill -9 at random moments of random processes: the command, any part of it or of Ray, or all.
    Whenever the grid is whole after all, it is the undisturbed one, and another begins.
    EQUIGRID_KILLS and EQUIGRID_SEED choose how many, and which.
    """
    seed = int(os.environ.get("EQUIGRID_SEED", random.SystemRandom().randrange(10**6)))
    print(f"EQUIGRID_SEED={seed} EQUIGRID_KILLS={KILLS}")
    rng, spec, kills, grids, ends = random.Random(seed), write_spec(mini), 0, 0, Counter()
    whole = outcomes(finished_mini[0])
    while kills < KILLS:
        store = Store(tmp_path / f"store{grids}", create=True)
        while True:
            command = start(
                "run", spec, "--store", store.uri, "--no-dashboard", "--takeover",
                "--out", tmp_path / "out",
            )  # fmt: skip
            end_s = time.monotonic() + rng.uniform(1, 20)  # a run of it takes some 15
            while command.process.poll() is None and time.monotonic() < end_s:
                time.sleep(0.05)
            if command.process.poll() is not None or kills == KILLS:
                code = command.finish(300)
                assert code == ExitCode.DONE, f"seed {seed}: {code}: {command.text}"
                break
            kills += 1
            lines = command.descendants()
            victims = [command.process.pid, *lines]
            which = rng.choice(["command", "one", "all"])
            chosen = {"command": victims[:1], "one": [rng.choice(victims)], "all": victims}[which]
            for pid in chosen:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if which == "one" and chosen != victims[:1]:
                code = command.finish(300)  # it ends in order, or goes on
                ends[code] += 1
                told = f"seed {seed}: {code} after {lines[chosen[0]]}: {command.text}"
                assert code in (ExitCode.DONE, ExitCode.UNAVAILABLE), told
                if code == ExitCode.DONE:
                    break
                said = command.err_path.read_text().strip().splitlines()
                assert [line for line in said if line.startswith("equigrid: ")] == said[-1:], told
            else:
                command.process.wait(60)
            found = outcomes(store)  # whatever is there is right
            assert found.items() <= whole.items(), f"seed {seed}, after {kills} kills"
            assert "Traceback" not in command.text, f"seed {seed}: {command.text}"
        assert outcomes(store) == whole, f"seed {seed}, after {kills} kills"
        assert len(results.read(store)) == len(whole)
        assert store.get_json(layout.spec("mini"))
        grids += 1
    print(f"{kills} kills, {grids} grids made whole; codes after one process was killed: {ends}")
