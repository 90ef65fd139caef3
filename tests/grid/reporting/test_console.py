"""Nothing that is not ours is printed as markup, steers the terminal or tells a secret."""

import ast
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import ray
from rich.console import Group
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from equigrid.grid.cli import entry
from equigrid.grid.errors import ExitCode
from equigrid.grid.reporting.console import PlainConsole
from equigrid.grid.reporting.progress import Progress, Stage
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, results

ROOT = Path(__file__).parents[3]
SECRET = "sEcReT"
HOSTILE = (
    "[/data/x] shape [batch, 3] [bold]b[/bold] [link=http://x]:smile: "
    f"\x1b[2J\x1b]0;owned\x07\rdone s3://KEY:{SECRET}@bucket/x?sas={SECRET}"
)
SHOWN = "[/data/x] shape [batch, 3] [bold]b[/bold] [link=http://x]:smile: "


def console(**options) -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=250, **options)


def check(text: str) -> None:
    assert SHOWN in text
    assert SECRET not in text
    assert "\x07" not in text
    assert "\r" not in text
    assert "\x1b[2J" not in text
    assert r"\x1b[2J" in text


def table(cell: object) -> Table:
    found = Table(title=HOSTILE, caption=HOSTILE)
    found.add_column(HOSTILE)
    found.add_row(cell)
    return found


@pytest.mark.parametrize(
    "printed",
    [
        HOSTILE, Text(HOSTILE), Text(HOSTILE, style="bold"), table(HOSTILE), table(Text(HOSTILE)),
        Group(HOSTILE, Text(HOSTILE)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("terminal", [True, False])
def test_every_way_to_print_is_plain(printed, terminal):
    shown = console(force_terminal=terminal, _environ={"TERM": "xterm-256color"})
    shown.print(printed, soft_wrap=True)
    check(shown.file.getvalue())


def test_progress_is_plain_too():
    for terminal in (True, False):
        shown = console(force_terminal=terminal, _environ={"TERM": "xterm"})
        with Progress({HOSTILE: Stage(total=1, running=1)}, shown) as progress:
            progress.message(HOSTILE)
        text = shown.file.getvalue()
        assert SECRET not in text
        assert SHOWN in text
        assert "owned\x07" not in text


def test_logs_of_rays_processes_are_plain_too():
    """Titles, errors and tracebacks, as whoever reads the file in a terminal sees them."""
    code = (
        "import logging\n"
        "from equigrid.grid.reporting import logs\n"
        "logs.prepare()\n"
        f"hostile = {HOSTILE!r}\n"
        "logging.getLogger('x').info('%s', hostile)\n"
        "try:\n"
        "    raise ValueError(hostile)\n"
        "except ValueError:\n"
        "    logging.getLogger('x').exception('of a job')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    lines = done.stderr.decode().split("\n")
    assert "of a job" in lines[1]
    for line in (lines[0], lines[-2]):  # the message, and the end of the traceback
        check(line)
    for path in sorted((ROOT / "grid").rglob("*.py")):
        assert "basicConfig" not in path.read_text() or path.name == "logs.py", path


def test_what_is_ours_still_steers():
    shown = console(force_terminal=True, _environ={"TERM": "xterm-256color"})
    shown.print(Text("bold", style="bold"))
    assert "\x1b[1mbold" in shown.file.getvalue()
    with Bars(console=shown) as bars:
        bars.add_task("x", total=1)
    assert "\x1b[?25l" in shown.file.getvalue()  # the cursor is hidden by a live display


def test_nothing_prints_in_another_way():
    """Texts reach people through `PlainConsole`, `streams.say`, JSON in ASCII, or a notebook's
    escaped HTML.
    """
    wrong = []
    for path in sorted((ROOT / "grid").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("print", "rich.print", "Console", "rich.console.Console"):
                    wrong.append((path.relative_to(ROOT).as_posix(), called))
    # `watch` prints the address of its page, whose token `say` would hide.
    assert wrong == [("grid/cli/grids.py", "print"), ("grid/cli/streams.py", "print")]


def test_a_spec_with_credentials_is_refused_and_not_repeated(write_spec, mini, tmp_path, capsys):
    for place in (
        f"s3://KEY:{SECRET}@bucket/x",
        f"s3://bucket/x?endpoint_override=http://KEY:{SECRET}@host:9000",
        f"abfs://c@a.dfs/x?sas={SECRET}",
    ):
        mini["dataset"] = {"parquet": place, "label": "label"}
        store = tmp_path / "store"
        for command in (["plan"], ["run"]):
            arguments = [*command, str(write_spec(mini)), "--store", str(store)]
            assert entry.outcome(arguments) is ExitCode.BAD_INPUT
            said = capsys.readouterr()
            assert "holds credentials, which do not belong in a spec" in said.err
            assert SECRET not in said.out + said.err
        assert not list(store.rglob("*.json"))
        for command in (["status", "mini"], ["run", "digits"]):
            assert entry.outcome([*command, "--store", place]) is ExitCode.BAD_INPUT
            said = capsys.readouterr()
            assert SECRET not in said.out + said.err


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_a_run_with_hostile_errors_goes_on_and_says_them_as_they_are(
    ray_here, mini, write_spec, tmp_path, plant, capsys
):
    """The error of a training that fails: in the driver, in the store, in every command's words."""
    mini["blocks"], mini["seeds"] = [{"n_base": [60], "real": [1]}], [0, 1]
    plant(
        "from dataclasses import replace\n"
        "from equigrid.grid.jobs.kinds import KINDS\n"
        "real = KINDS['trial'].body\n"
        "def body(store, request):\n"
        "    if request.payload.seed == 1:\n"
        f"        raise ValueError({HOSTILE!r})\n"
        "    return real(store, request)\n"
        "KINDS['trial'] = replace(KINDS['trial'], body=body)\n"
    )
    store, shown = Store(tmp_path / "store", create=True), console(force_terminal=False)
    summary, _ = driver.run(load(mini), store, console=shown)
    assert len(summary.failures) == 2
    check(shown.file.getvalue())
    arguments = ["--store", store.uri]
    for command, code in (
        (["status", "mini"], ExitCode.FAILED_CELLS),
        (["status", "mini", "--json"], ExitCode.FAILED_CELLS),
        (["report", "mini", "--out", str(tmp_path / "out")], ExitCode.DONE),
        (["run", str(write_spec(mini)), "--out", str(tmp_path / "o")], ExitCode.FAILED_CELLS),
    ):
        assert entry.outcome([*command, *arguments]) is code
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err
        if "--json" in command:
            (error, _) = (one["error"] for one in json.loads(said.out)["failures"])
            assert error.startswith(f"ValueError: {SHOWN}")
        elif command[0] in ("status", "run"):
            check(said.out + said.err)
    rows = results.read(store).to_pylist()
    assert any(SHOWN in (row["error"] or "") for row in rows)
    logs = Path(ray._private.worker._global_node.get_logs_dir_path())
    assert any(b"shape [batch, 3]" in path.read_bytes() for path in logs.glob("worker-*"))
    for path in [*Path(store.uri).rglob("*"), *(tmp_path / "out").rglob("*"), *logs.rglob("*")]:
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
