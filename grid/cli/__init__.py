"""The `equigrid` command.

A group of commands is a module here; `entry` lists them, and turns every kind of failure into one
line and an exit code (`equigrid.grid.errors.ExitCode`). A command returns its exit code, or None
for 0, and imports what is heavier than its options inside itself: `--help` must answer at once.
"""

from equigrid.grid.cli.entry import main

__all__ = ["main"]
