"""A command in two processes: however the one that works ends, the other tells it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from equigrid.grid.cli import supervisor
from equigrid.grid.errors import ExitCode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a command is one process here")
# A whole command, but for what it does.
COMMAND = """
import os, signal, sys, time
from equigrid.grid.cli import entry, supervisor
from equigrid.grid.errors import ExitCode
from equigrid.grid.running.interrupts import terminating_signals_interrupt

def command(arguments):
    print(os.getpid(), flush=True)
    {body}
    return ExitCode.DONE

entry.outcome = command
sys.argv = ["equigrid", "--debug", "run"]
entry.main()
"""
# Until it is interrupted, and for another second.
WAITS_IN_ORDER = """
    count = 0
    with terminating_signals_interrupt():
        while True:
            try:
                if not count:
                    os.write(1, b"ready\\n")
                time.sleep(20 if not count else 1)
                break
            except KeyboardInterrupt:
                count += 1
    print(count, flush=True)
    return ExitCode.INTERRUPTED
"""


def begun(body: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(body=body.strip())], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("pass", ExitCode.DONE, ""),
        ("return ExitCode.BUDGET", ExitCode.BUDGET, ""),
        ("return ExitCode.FAILED_CELLS", ExitCode.FAILED_CELLS, ""),
        # As Ray's library does, and what else may end a process.
        ("os._exit(1)", ExitCode.UNAVAILABLE, "equigrid: Ray ended the run, as it does where a part"),
        ("os.abort()", ExitCode.UNAVAILABLE, "equigrid: the run was ended by SIGABRT"),
        ("os.kill(os.getpid(), 9)", ExitCode.UNAVAILABLE, "equigrid: the run was killed (by somebody"),
        # Once it has said how it ends, nothing on its way out changes that.
        ("import atexit; atexit.register(os._exit, 1); return 3", ExitCode.BUDGET, ""),
        ("import atexit; atexit.register(os.abort)", ExitCode.DONE, ""),
        ("supervisor.end('lost')", ExitCode.UNAVAILABLE, "equigrid: lost"),
        # Whoever holds the pipe for longer is not waited for.
        ("os.fork() or time.sleep(60); os._exit(1)", ExitCode.UNAVAILABLE, "equigrid: Ray ended"),
    ],
)  # fmt: skip
def test_how_it_ends_is_told_in_one_line_and_its_code(body, code, said):
    command = begun(body)
    try:
        assert command.wait(20) == code
        line = command.stderr.readline()
        assert line.startswith(said)
        assert bool(line) == bool(said)
        if said and "lost" not in said:
            assert line.endswith("what finished is in the store: run the same command again\n")
        assert int(command.stdout.readline()) != command.pid
    finally:
        os.killpg(command.pid, signal.SIGKILL) if "fork" in body else None


def test_killed_with_its_parent():
    command = begun("time.sleep(60)")
    child = int(command.stdout.readline())
    command.kill()
    command.wait(10)
    end_s = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in state(child):
        assert time.monotonic() < end_s
        time.sleep(0.01)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_wish_to_end_comes_once(number, send):
    """To the command alone, or as terminals, `timeout` and systems of jobs do to all of a group."""
    command = begun(WAITS_IN_ORDER)
    command.stdout.readline()
    assert command.stdout.readline() == "ready\n"
    send(command.pid, number)
    assert command.wait(30) == ExitCode.INTERRUPTED
    assert command.stdout.read() == "1\n"


@pytest.mark.parametrize("end", ["supervisor.end('Ray died')", "os._exit(1)", "os.abort()"])
def test_what_a_terminated_run_ends_with_is_that_it_was(end):
    """Who sends SIGTERM to each process of a run ends Ray's too, and that the driver itself: it may
    be stuck in Ray by then, and hear of no signal.
    """
    sent = "{signal.SIGTERM}"
    stuck = f"signal.pthread_sigmask(signal.SIG_BLOCK, {sent}); os.write(1, b'ready\\n')"
    command = begun(f"{stuck}; signal.sigwait({sent}); {end}")
    command.stdout.readline()
    assert command.stdout.readline() == "ready\n"
    os.killpg(command.pid, signal.SIGTERM)
    assert command.wait(20) == ExitCode.INTERRUPTED
    assert command.stderr.read().startswith("equigrid: interrupted; what finished is in the store")


def test_a_wish_that_comes_early_ends_it_as_any_command():
    command = begun("time.sleep(60)")
    command.stdout.readline()
    command.send_signal(signal.SIGTERM)
    assert command.wait(20) == -signal.SIGTERM
    assert not command.stderr.read()


def test_where_sigint_is_ignored_a_run_minds_it_still():
    """A shell that starts a command in the background leaves it ignored."""
    ignored = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    command = begun(WAITS_IN_ORDER, preexec_fn=ignored)
    command.stdout.readline()
    assert command.stdout.readline() == "ready\n"
    command.send_signal(signal.SIGINT)
    assert command.wait(30) == ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("run digits", True), ("--debug run digits", True), ("demo", True), ("tune digits", True),
        ("plan run", False), ("status digits", False), ("--help", False), ("", False),
    ],
)  # fmt: skip
def test_only_commands_that_use_ray_are_in_two(line, wanted, monkeypatch):
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # pytest's may have others
    assert supervisor.is_wanted(line.split()) is wanted


def test_a_program_with_threads_is_not_split():
    stay = threading.Event()
    threading.Thread(target=stay.wait, daemon=True).start()
    try:
        assert not supervisor.is_wanted(["run", "digits"])
    finally:
        stay.set()
