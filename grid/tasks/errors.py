"""Which failures another attempt may mend, and how a failure is said in a line."""

from grid.store import StoreError
from grid.training import Leaving


def is_infrastructure(error: BaseException) -> bool:
    """Whether another attempt, here or elsewhere, may well succeed: stores, lost objects and nodes, memory."""
    if isinstance(error, StoreError | ConnectionError | MemoryError | Leaving) or is_out_of_memory(error):
        return True
    import ray.exceptions as gone

    return isinstance(error, gone.RayError) and not isinstance(error, gone.RayTaskError)


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "OutOfMemory")


def one_line(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
