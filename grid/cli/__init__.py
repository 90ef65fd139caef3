"""The `equigrid` command.

A group of commands is a module here; `entry` lists them, and turns every kind of failure into one
line and an exit code (`equigrid.grid.errors.ExitCode`). A command returns its exit code, or None
for 0, and imports what is heavier than its options inside itself: `--help` must answer at once.
"""

import signal

__all__ = ["main"]


def main() -> None:
    """Runs the command that `sys.argv` names, and ends the process with its exit code."""
    # Python's own handler would show a traceback of whatever it is that loads just then.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from equigrid.grid.cli import entry

    entry.main()
