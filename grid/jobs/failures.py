"""Which failures another attempt may mend, and how a failure is said in a line."""

import traceback
from collections.abc import Iterator

from equigrid.grid.errors import StoreError
from equigrid.grid.jobs.checkpoints import Leaving
from equigrid.grid.text import in_a_line, redacted

MOST_CHARACTERS = 2000  # of a line
MOST_OF_ALL = 200_000  # characters of a traceback
# Where Ray, or Ray Train around it, keeps what went wrong inside. (The last is what a worker of a
# group raised.)
WRAPPERS = ("cause", "controller_failure", "health_check_failure", "_base_exc")


def cause_of(error: BaseException) -> BaseException:
    """What is behind an error that Ray or Ray Train wrapped.

    Of a worker group's failures the most telling: one that another attempt mends, since a rank that
    lost another one to a dead machine fails too; else a rank's own error before what follows from
    it in the other ranks.
    """

    def rank(cause: BaseException) -> int:
        if is_broken_group(cause):
            return 2
        return 0 if is_infrastructure(cause) else 1

    return min(_causes(error), key=rank)


def _causes(error: BaseException) -> Iterator[BaseException]:
    failures = getattr(error, "worker_failures", None)
    inner = [getattr(error, name, None) for name in WRAPPERS]
    found = [
        cause for cause in (*(failures or {}).values(), *inner) if isinstance(cause, BaseException)
    ]
    for cause in found:
        yield from _causes(cause)
    if not found:
        yield error


def is_infrastructure(error: BaseException) -> bool:
    """Whether another attempt, here or elsewhere, may well succeed: stores, lost objects and nodes,
    memory.
    """
    if isinstance(error, StoreError | ConnectionError | MemoryError | Leaving) or is_out_of_memory(
        error
    ):
        return True
    return is_lost_process(error) or is_broken_group(error)


def is_lost_process(error: BaseException) -> bool:
    """Whether Ray lost a process, an object or a machine, or Ray Train its worker group."""
    import ray.exceptions as gone

    if isinstance(error, gone.RayError):
        return not isinstance(error, gone.RayTaskError)
    return type(error).__module__.startswith("ray.train.")


def is_broken_group(error: BaseException) -> bool:
    """Whether a rank could not reach the others: what it says when one of them died. (Gloo's errors
    have no class.)
    """
    return isinstance(error, RuntimeError) and (
        type(error).__name__.startswith("Dist") or "gloo" in str(error).lower()
    )


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ in (
        "OutOfMemoryError",
        "OutOfMemory",
    )


def traceback_of(error: BaseException) -> str:
    """All of it and of what caused it, without secrets; of one that is longer than MOST_OF_ALL
    characters the beginning and the end.
    """
    text = "".join(traceback.format_exception(error))
    if len(text) <= MOST_OF_ALL:
        return redacted(text)
    half = MOST_OF_ALL // 2  # cut twice, as a line is
    return f"{redacted(text[:MOST_OF_ALL])[:half]}\n…\n{redacted(text[-MOST_OF_ALL:])[-half:]}"


def one_line(error: BaseException) -> str:
    """Its class, and the first line of what it says, at most MOST_CHARACTERS of it."""
    try:
        said = str(error)
    except Exception:  # a library's class that cannot say it
        said = ""
    first = in_a_line(
        next(iter(said[: 20 * MOST_CHARACTERS].strip().splitlines()), ""), MOST_CHARACTERS
    )
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
