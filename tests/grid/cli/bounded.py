"""Runs commands one by one, each in a process of its own with little memory and time: a script for
`test_input_bounds.py`, which imports once and forks.

Reads a line of JSON for each, [arguments, MB, seconds]; answers with a line of JSON: the exit code
(minus the signal's number if it was killed), what it wrote to standard error, its seconds, and the
MB by which its memory grew.
"""

import json
import os
import resource
import signal
import sys
import time

import numpy  # noqa: F401 - so that no command is charged for it
import pyarrow.parquet  # noqa: F401
from PIL import Image

from equigrid.classifiers import recipes  # noqa: F401
from equigrid.generators import registry  # noqa: F401
from equigrid.grid.cli import entry
from equigrid.grid.planning import planner, resolve  # noqa: F401
from equigrid.grid.reporting import console, outline  # noqa: F401


def grown_mb(before_kb: int) -> float:
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1000


def address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def child(arguments: list[str], most_mb: int, most_s: int, write: int, errors: int) -> None:
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    room = address_space() + most_mb * 10**6
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CPU, (most_s, most_s))
    signal.alarm(10 * most_s)  # of a machine that is busy with other things
    before, began_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    code = int(entry.outcome(arguments))
    sys.stderr.flush()
    found = [code, time.process_time() - began_s, grown_mb(before)]
    os.write(write, json.dumps(found).encode())
    os._exit(0)


Image.init()
for line in sys.stdin:
    arguments, most_mb, most_s = json.loads(line)
    read, write = os.pipe()
    errors, told = os.memfd_create("errors"), ""
    pid = os.fork()
    if not pid:
        child(arguments, most_mb, most_s, write, errors)
    os.close(write)
    answer = os.read(read, 10_000)
    os.close(read)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(errors, "rb") as file:
        file.seek(0)
        told = file.read(10_000).decode(errors="replace")
    code, seconds, mb = json.loads(answer) if answer else (-(os.WTERMSIG(status) or 255), 0, 0)
    print(json.dumps([code, told, seconds, mb]), flush=True)
