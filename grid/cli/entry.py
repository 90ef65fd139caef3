"""The entry point: which commands there are, and how each of them ends."""

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import typer

from equigrid import __version__
from equigrid.grid.cli import (
    answers,
    datasets,
    drafts,
    grids,
    listings,
    pools,
    storage,
    streams,
    supervisor,
    tuning,
)
from equigrid.grid.errors import ExitCode, UnavailableError, UserError
from equigrid.grid.running import watch
from equigrid.grid.running.interrupts import ctrl_c_interrupts
from equigrid.grid.text import in_a_line, safe, unwritable

COMMANDS: tuple[Callable, ...] = (
    drafts.init,
    grids.plan,
    grids.run,
    tuning.tune,
    grids.demo,
    grids.status,
    grids.watch,
    answers.fit,
    answers.report,
    answers.equiv,
    storage.grids,
    answers.table,
    storage.gc,
    listings.presets,
    drafts.keys,
    answers.paper,
)
DEBUG = "EQUIGRID_DEBUG"
MOST_CHARACTERS = 2000  # of a line: whatever a user gave may be quoted in it
# Wrong usage: typer brings its own copy of click, or uses click's, by its version.
UsageError: Any = typer.BadParameter.__bases__[0]
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

app = typer.Typer(
    name="equigrid",
    help="How many synthetic images is one real image worth? Plans, runs and analyses the"
    " experiment that says.",
    # \b: lines that click must not fill.
    epilog="\b\nExit codes:\n" + "\n".join(f"{code.value:>5}  {code.meaning}" for code in ExitCode),
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(datasets.app)
app.add_typer(pools.app)


@app.callback(invoke_without_command=True)
def _equigrid(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar=DEBUG, help="Show the traceback of every error.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG] = "1"
    if version:
        streams.say(f"equigrid {__version__}")
        raise typer.Exit(ExitCode.DONE)
    if context.invoked_subcommand is None:
        streams.say(context.get_help(), sys.stderr)
        raise typer.Exit(ExitCode.BAD_INPUT)


def main() -> None:
    """See `equigrid.grid.cli.main`. Whatever input, files or the outside did ends as one line and
    its code; so does a fault of our own, whose traceback is kept in a file.
    """
    streams.prepare()
    if supervisor.is_wanted(sys.argv[1:]) and (ended := supervisor.split()):
        if ended.words:
            _tell(ended.words)
        sys.exit(ended.code)
    code = outcome(sys.argv[1:])
    # What is still to be written may fail too, and the interpreter would say so in its own way.
    if unwritten := _ended(sys.stdout.flush):
        streams.silence(1)
    supervisor.will_end_with(code or unwritten)
    if watch.LOST.is_set():
        os._exit(code or unwritten)  # Ray might never let it end
    sys.exit(int(code or unwritten))


def outcome(arguments: list[str]) -> ExitCode:
    """Runs a command; nothing but SystemExit is raised."""

    def command() -> int | None:
        for argument in arguments:
            if found := unwritable(argument):
                raise UserError(f"{argument[:100]!r} holds {found}, which no name can")
        with ctrl_c_interrupts():
            return app(arguments, prog_name="equigrid", standalone_mode=False)

    return _ended(command)


def _ended(action: Callable[[], int | None]) -> ExitCode:
    """How `action` ends; whatever is raised in it is told in one line."""
    try:
        ended = action() or 0
        if ended == ExitCode.INTERRUPTED and not isinstance(ended, ExitCode):
            raise KeyboardInterrupt  # typer caught one; commands that say so give a member
        return ExitCode(ended)  # type: ignore[call-arg]  # of a member, its value is all
    except (KeyboardInterrupt, typer.Abort):
        _tell("interrupted")
        return ExitCode.INTERRUPTED
    except Exception as error:
        _debug()
        told = _cause(error)
        if (code := _code_of(told)) is ExitCode.FAULT:
            _tell_fault(told)
        else:
            _tell(_one_line(told))
        return code


def _cause(error: BaseException) -> BaseException:
    """What a task of Ray's raised, without Ray's word for it, which is a page."""
    inner = getattr(error, "cause", None)
    return inner if _is_of_ray(error) and isinstance(inner, BaseException) else error


def _is_of_ray(error: BaseException) -> bool:
    """By name: commands that need no Ray do not import it."""
    return any(kind.__module__ == "ray.exceptions" for kind in type(error).__mro__)


def _code_of(error: BaseException) -> ExitCode:
    if isinstance(error, UserError | UsageError):
        return ExitCode.BAD_INPUT
    # Of the operating system's errors, what is the user's to mend is a UserError by now.
    # Ray's, once without their cause: a machine, a process or an object that is lost.
    if isinstance(error, UnavailableError | OSError | MemoryError) or _is_of_ray(error):
        return ExitCode.UNAVAILABLE
    return ExitCode.FAULT


def _one_line(error: Any) -> str:
    if isinstance(error, UsageError):
        context = getattr(error, "ctx", None)
        see = f"see {context.command_path} --help" if context else "see equigrid --help"
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help, a page
            return f"name a command; {see}"
        return f"{error.format_message().rstrip('.')}; {see}"
    if isinstance(error, MemoryError):
        text = f"not enough memory: {error}" if str(error) else "not enough memory"
    elif isinstance(error, OSError) and not isinstance(error, UnavailableError):
        text = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        if error.errno in DISK_FULL and not error.filename:
            text = f"standard output or a file cannot be written: {error.strerror}"
    else:
        text = str(error)
    return in_a_line(text, MOST_CHARACTERS)


def _tell(text: str) -> None:
    """To standard error. Where that cannot be written either, the exit code is all there is."""
    try:
        streams.say(f"equigrid: {text}", sys.stderr)
    except OSError:
        streams.silence(2)


def _debug() -> None:
    if os.environ.get(DEBUG, "").lower() in (
        "1",
        "true",
        "t",
        "yes",
        "y",
        "on",
    ):  # as typer reads it
        _tell(traceback.format_exc())


def _tell_fault(error: BaseException) -> None:
    what = f"a fault of equigrid itself: {type(error).__name__}: {in_a_line(str(error), 300)}"
    try:
        number, name = tempfile.mkstemp(prefix="equigrid-fault-", suffix=".txt")
        with open(number, "w", encoding="utf-8") as file:
            command = f"{' '.join(sys.argv)!a}"
            file.write(safe(f"equigrid {__version__}\n{command}\n{traceback.format_exc()}"))
        _tell(f"{what}; its traceback is in {name}: please report it")
    except OSError:
        _tell(f"{what}; {DEBUG}=1 shows its traceback: please report it")
