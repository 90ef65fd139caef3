"""The user's module, imported and called; what goes wrong there says so in its first line."""

import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from equigrid.generators.python.config import PythonConfig
from equigrid.generators.python.source import Source

MOST_CHARACTERS = 20_000  # of what an error says
_imported: dict[str, str] = {}  # the digest of each module's files when it was imported here


def imported(config: PythonConfig) -> ModuleType:
    """The module; imported anew where its files changed since this process did.

    Its folder comes last in Python's search path, so that no file in it takes the place of a
    library. Raises ValueError, one line, if the import fails or gives another file.
    """
    source = config.source()
    digest = source.digest()
    if str(source.root) not in sys.path:
        sys.path.append(str(source.root))
    if _imported.get(config.module) != digest:
        _forget(source)
        importlib.invalidate_caches()
    with calling(config, "import"):
        _take_from(source, config.module.partition(".")[0])
        module = importlib.import_module(config.module)
    if not os.path.samefile(getattr(module, "__file__", None) or os.devnull, source.file):
        raise ValueError(
            f"module {config.module}: Python has another one of this name, "
            f"{module.__file__}, not {source.file}; rename yours"
        )
    _imported[config.module] = digest
    return module


def _forget(source: Source) -> None:
    """Lets go of what was imported of these files."""
    files = {str(source.root / name) for name in source.files}
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) in files and name != "__main__":
            del sys.modules[name]


def _take_from(source: Source, top: str) -> None:
    """Imports the module's first part from its own root, whatever else has that name."""
    if top in sys.modules:
        return
    spec = importlib.machinery.PathFinder.find_spec(top, [str(source.root)])
    if spec is None or spec.loader is None:  # a folder without __init__.py
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[top] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[top]
        raise


@contextmanager
def calling(config: PythonConfig, what: str) -> Iterator[None]:
    """What the module raises becomes a ValueError that names module and call, with the module's own
    traceback behind it, `sys.exit` too, which would end the process without a word; but for what
    another attempt may mend (memory, connections), and for what ends this process from outside.
    """
    try:
        yield
    except (MemoryError, ConnectionError):
        raise
    except BaseException as error:
        # A device's, of whatever library.
        if "OutOfMemory" in type(error).__name__ or _comes_from_outside(error):
            raise
        raise ValueError(f"module {config.module}: {what}: {_said(error)}") from error


def _said(error: BaseException) -> str:
    try:
        first = next(iter(str(error)[:MOST_CHARACTERS].strip().splitlines()), "")
    except Exception:  # it is the module's class too
        first = ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _comes_from_outside(error: BaseException) -> bool:
    """Whether it is Ctrl-C, or what Ray raises in a process that it ends."""
    if isinstance(error, KeyboardInterrupt):  # slots ignore the signal
        return signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return isinstance(error, SystemExit) and where.partition(".")[0] == "ray"


def accepted(function: Callable, offered: dict[str, Any]) -> dict[str, Any]:
    """Of what is offered, by name, the part that a function has parameters for."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # a compiled function may not say
        return {}
    return {name: value for name, value in offered.items() if name in parameters}
