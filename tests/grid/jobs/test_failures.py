"""Which failures are tried again: what a slot, Ray, or Ray Train's worker group makes of the first
cause.
"""

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, RayTaskError, WorkerCrashedError
from ray.train.v2._internal.exceptions import (
    UserExceptionWithTraceback,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from equigrid.grid.datasets.shards import ShardCorrupt
from equigrid.grid.errors import StoreError
from equigrid.grid.jobs.failures import (
    MOST_CHARACTERS,
    MOST_OF_ALL,
    cause_of,
    is_infrastructure,
    is_lost_process,
    one_line,
    traceback_of,
)

GLOO = RuntimeError(
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer"
)


def in_task(error: Exception) -> Exception:
    return RayTaskError("f", "Traceback …", error).as_instanceof_cause()


def in_group(*errors: Exception) -> Exception:
    wrapped = [
        e if isinstance(e, ActorDiedError) else UserExceptionWithTraceback(e, f"Traceback …\n{e}")
        for e in errors
    ]
    return WorkerGroupError("[Rank 0] …", dict(enumerate(wrapped)))


@pytest.mark.parametrize(
    ("error", "cause", "again"),
    [
        (ValueError("v"), "ValueError: v", False),
        (in_task(ValueError("v")), "ValueError: v", False),
        (in_task(StoreError("s")), "StoreError: s", True),
        (NodeDiedError("n"), "NodeDiedError: n", True),
        (WorkerCrashedError(), "WorkerCrashedError", True),
        (in_group(ValueError("v")), "ValueError: v", False),
        (in_group(StoreError("s")), "StoreError: s", True),
        (in_group(in_task(StoreError("s"))), "StoreError: s", True),
        (in_group(MemoryError("m")), "MemoryError: m", True),
        (
            in_group(ShardCorrupt("pools/p.json", "is gone")),
            "ShardCorrupt: pools/p.json: is gone",
            False,
        ),
        (in_group(ActorDiedError()), "ActorDiedError", True),
        # A rank that died takes the others' connections with it; they are often heard of first.
        (in_group(GLOO), "RuntimeError", True),
        (in_group(GLOO, ActorDiedError()), "ActorDiedError", True),
        (in_group(GLOO, ValueError("v")), "ValueError: v", False),
        (
            WorkerGroupError("…", {1: WorkerHealthCheckFailedError("…", ActorDiedError())}),
            "ActorDiedError",
            True,
        ),
        (
            ControllerError(WorkerGroupStartupTimeoutError(4)),
            "WorkerGroupStartupTimeoutError",
            True,
        ),
        (ControllerError(NodeDiedError("n")), "NodeDiedError: n", True),
        (ControllerError(TypeError("t")), "TypeError: t", False),
    ],
    ids=lambda value: (
        type(value).__name__ if isinstance(value, Exception) else None
    ),  # no process ids in a test's name
)
def test_the_cause_decides(error, cause, again):
    found = cause_of(error)
    assert one_line(found).startswith(cause)
    assert is_infrastructure(found) == again


def test_what_was_lost_with_a_process_is_told_from_a_store_that_is_away():
    assert is_lost_process(cause_of(in_group(ActorDiedError())))
    assert not is_lost_process(cause_of(in_group(StoreError("s"))))
    assert not is_lost_process(cause_of(in_group(ValueError("v"))))


def test_what_an_error_says_is_bounded_and_without_secrets():
    """A library may quote a whole file; a slot keeps the text, the store and the report too."""

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no")

    secret = "s3://AKEY:sEcReT@bucket"
    for long in ("x" * 5_000_000, "\n" + "x" * 5_000_000, f"{'x ' * 990}{secret} " * 300):
        error = ValueError(long)
        assert len(one_line(error)) < MOST_CHARACTERS + 20
        try:
            raise error
        except ValueError as raised:
            text = traceback_of(raised)
        assert MOST_OF_ALL / 2 < len(text) <= MOST_OF_ALL + 5
        assert text.startswith("Traceback")
        assert not {"sEcReT", "AKEY"} & set(one_line(error).split(":")), "hidden before it is cut"
        assert "sEcReT" not in one_line(error) + text
    assert one_line(Mute()) == "Mute"
    assert "Mute" in traceback_of(Mute())
    for cut in range(-30, 30):  # wherever the cut falls, no part of a secret shows
        line = one_line(ValueError("x" * (MOST_CHARACTERS + cut - 20) + " " + secret))
        assert "AKEY" not in line
        assert "sEcReT" not in line
