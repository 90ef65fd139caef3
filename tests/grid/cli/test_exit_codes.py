"""Each exit code by a process of its own, and every kind of trouble as one line without a traceback."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from equigrid.grid.errors import ExitCode
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import Store, lock

EQUIGRID = [sys.executable, "-m", "equigrid.grid.cli"]


def equigrid(*arguments, cwd, command=EQUIGRID, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
        env={**os.environ, "EQUIGRID_STORE_RETRY_S": "0", **environment},
    )


def check(found: subprocess.CompletedProcess, code: ExitCode, said: str) -> None:
    """The code, and as the last line what was wrong; nothing else of a failure."""
    assert found.returncode == code, found.stderr
    lines = found.stderr.strip().splitlines()
    assert re.match(f"equigrid: .*{said}", lines[-1]), found.stderr
    assert [line for line in lines if line.startswith("equigrid: ")] == lines[-1:]
    assert "Traceback" not in found.stdout + found.stderr


@pytest.fixture
def recorded(mini, tmp_path) -> Store:
    """A store that knows the small grid, in which nothing has run."""
    store = Store(tmp_path / "recorded", create=True)
    store.put_json("grids/mini/spec.json", load(mini).model_dump(mode="json"))
    return store


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own with a few kB left."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)],
        capture_output=True,
        check=False,
    )
    if not mounted or mounted.returncode:
        pytest.skip("no right to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


# The codes ----------------------------------------------------------------------------------------


def test_0_all_done(tmp_path):
    found = equigrid("presets", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (ExitCode.DONE, "")
    assert "digits: " in found.stdout


def test_the_package_is_the_command(tmp_path):
    """`python -m equigrid`: its words, its codes, and a failure in one line."""
    package = [sys.executable, "-m", "equigrid"]
    for arguments in (["--version"], ["presets"], ["--help"]):
        found = equigrid(*arguments, cwd=tmp_path, command=package)
        own = equigrid(*arguments, cwd=tmp_path)
        assert (found.returncode, found.stderr) == (ExitCode.DONE, "")
        assert found.stdout == own.stdout
    found = equigrid("rum", cwd=tmp_path, command=package)
    check(found, ExitCode.BAD_INPUT, "No such command 'rum'")


def test_1_failed_cells(mini, recorded, tmp_path):
    job = next(plan(resolve(load(mini), recorded)).of_kind("generator"))
    recorded.put_json(f"failures/{job.id}/1.json", {"error": "Traceback …\nNotFinite: nan"})
    found = equigrid("status", "mini", "--store", recorded.uri, cwd=tmp_path)
    assert found.returncode == ExitCode.FAILED_CELLS, found.stderr
    assert "NotFinite: nan" in found.stdout


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "Missing argument 'SPEC'; see equigrid run --help"),
        (["rum", "digits"], "No such command 'rum'"),
        (["dataset"], "name a command; see equigrid dataset --help"),
        (["dataset", "inspect", "no/such"], "no/such"),
        (["dataset", "inspect", "/dev/null"], "/dev/null"),
        (["run", "digits", "--slots", "-1"], "Invalid value for '--slots'"),
        (["run", "digits", "--slots", "1e99"], "Invalid value for '--slots'"),
        (["run", "digits", "--max-gpu-hours", "nan"], "--max-gpu-hours"),
        (["run", "digits", "--max-gpu-hours", "inf"], "--max-gpu-hours.*inf"),
        (["run", "digits", "--max-gpu-hours", "-1"], "--max-gpu-hours"),
        (["run", "digits", "--gpus", "2"], "--gpus"),
        (["run", "digits", "--store", "file"], "store .*file: is a file; name a folder"),
        (["run", "digits", "--store", "file/store"], "cannot be opened: Not a directory"),
        (["run", "digits", "--out", "file"], "--out: file cannot be written: File exists; name a folder"),
        (["run", "digits", "--out", "file/out"], "--out: file/out cannot be written: Not a directory"),
        (["run", "digits", "--out", "/proc/out"], "--out: /proc/out cannot be written"),
        (["run", "digits", "--out", "~nobody-of-that-name/x"], "--out: .*home directory"),
        (["status", "digits", "--store", "nowhere"], "holds no grid yet"),
        (["equiv", "--n-base", "5", "--n-real", "5", "--paper", "digits"], "not several"),
        (["equiv", "--n-base", "x", "--n-real", "5"], "--n-base"),
    ],
)  # fmt: skip
def test_2_bad_input(tmp_path, arguments, said):
    (tmp_path / "file").write_text("x")
    check(equigrid(*arguments, cwd=tmp_path), ExitCode.BAD_INPUT, said)
    assert not (tmp_path / "equigrid-store").exists(), "refused before anything is made"


@pytest.mark.long
def test_3_the_budget(mini, write_spec, tmp_path, start):
    command = start(
        "run",
        write_spec(mini),
        "--store",
        tmp_path / "store",
        "--no-dashboard",
        "--max-gpu-hours",
        0,
    )
    assert command.finish() == ExitCode.BUDGET, command.text
    assert "stopped at the budget" in command.text


def test_4_a_store_that_does_not_answer(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = equigrid(
        "status", "digits", "--store", "s3://bucket/x", cwd=tmp_path,
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b",
    )  # fmt: skip
    check(found, ExitCode.UNAVAILABLE, "store s3://bucket/x: cannot be opened: ")


def test_4_a_cluster_that_does_not_answer(tmp_path):
    found = equigrid("run", "digits", "--address", "127.0.0.1:1", cwd=tmp_path)
    check(found, ExitCode.UNAVAILABLE, "--address 127.0.0.1:1: no Ray cluster answers there")


def test_4_a_grid_that_another_driver_runs(mini, write_spec, recorded, tmp_path):
    with lock.acquire(recorded, "mini"):
        found = equigrid("run", write_spec(mini), "--store", recorded.uri, cwd=tmp_path)
    check(found, ExitCode.UNAVAILABLE, f"grid mini: process {os.getpid()} of .* runs it already")


def test_4_a_full_disk_under_out_before_anything_is_trained(small_disk, tmp_path):
    fill(small_disk)
    found = equigrid("run", "digits", "--out", small_disk / "out", cwd=tmp_path)
    check(found, ExitCode.UNAVAILABLE, "No space left on device")
    assert not (tmp_path / "equigrid-store").exists()


@pytest.mark.long
def test_4_a_disk_that_fills_while_the_report_is_written(finished_mini, small_disk, tmp_path):
    """A small file can be written, the figures cannot: the run is done all the same, and says how
    the report is made.
    """
    (spec := tmp_path / "mini.yaml").write_text(yaml.safe_dump(spec_in(finished_mini[0])))
    options = ("--store", finished_mini[0].uri, "--out", small_disk / "out")
    found = equigrid("run", spec, *options, cwd=tmp_path)
    check(found, ExitCode.UNAVAILABLE, "all results are in the store.*equigrid report mini --store")
    found = equigrid("report", "mini", *options, cwd=tmp_path)
    check(found, ExitCode.UNAVAILABLE, "No space left on device")


def spec_in(store: Store) -> dict:
    """The spec that a store has, without the version that wrote it."""
    spec = store.get_json("grids/mini/spec.json")
    return {key: value for key, value in spec.items() if key != "equigrid"}


def test_4_a_full_disk_under_the_store(mini, write_spec, small_disk, tmp_path):
    Store(small_disk / "store", create=True)
    fill(small_disk)
    found = equigrid("run", write_spec(mini), "--store", small_disk / "store", cwd=tmp_path)
    check(found, ExitCode.UNAVAILABLE, "store .*: cannot write check: No space left on device")


FAULTY = """
import sys
from equigrid.grid import spec
from equigrid.grid.cli import main
def presets():
    raise KeyError("a fault\\non two lines")
spec.presets = presets
sys.argv = ["equigrid", "presets"]
main()
"""


def test_70_a_fault_of_our_own_keeps_its_traceback(tmp_path):
    faulty = [sys.executable, "-c", FAULTY]
    found = equigrid(cwd=tmp_path, command=faulty, TMPDIR=str(tmp_path))
    check(found, ExitCode.FAULT, "a fault of equigrid itself: KeyError")
    (file,) = tmp_path.glob("equigrid-fault-*.txt")
    assert str(file) in found.stderr
    assert "KeyError" in file.read_text()
    assert "Traceback (most recent call last)" in file.read_text()
    shown = equigrid(cwd=tmp_path, command=faulty, TMPDIR=str(tmp_path), EQUIGRID_DEBUG="1")
    assert shown.returncode == ExitCode.FAULT
    assert "Traceback (most recent call last)" in shown.stderr


def test_130_interrupted(recorded, tmp_path):
    command = [*EQUIGRID, "status", "mini", "--watch", "--store", recorded.uri]
    with subprocess.Popen(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline()  # it has shown something, and waits or is about to
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == ExitCode.INTERRUPTED
    assert said.splitlines()[-1] == "equigrid: interrupted"
    assert "Traceback" not in said


EARLY_AND_LATE = """
import atexit, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Finder:
    def find_spec(self, name, *_):
        if name == "equigrid.grid.cli.entry":
            signal.raise_signal(signal.SIGINT)
if sys.argv[1] == "early":
    sys.meta_path.insert(0, Finder())
else:
    atexit.register(signal.raise_signal, signal.SIGINT)
import equigrid.grid.cli
sys.argv = ["equigrid", "presets"]
equigrid.grid.cli.main()
"""


@pytest.mark.parametrize("when", ["early", "late"])
def test_interrupted_before_and_after_the_work_there_is_no_traceback(tmp_path, when):
    found = equigrid(when, cwd=tmp_path, command=[sys.executable, "-c", EARLY_AND_LATE])
    assert (found.returncode, found.stderr) == (-signal.SIGINT, "")
    assert bool(found.stdout) == (when == "late")


@pytest.mark.long
def test_130_interrupted_while_ray_starts(mini, write_spec, start, tmp_path):
    command = start("run", write_spec(mini), "--store", tmp_path / "store", "--no-dashboard")
    command.wait_until(lambda: any("raylet" in line for line in command.descendants().values()))
    os.killpg(command.process.pid, signal.SIGINT)
    assert command.finish(30) == ExitCode.INTERRUPTED
    said = command.err_path.read_text()
    assert said.splitlines()[-1].startswith(("equigrid: interrupted", "stopped: "))
    assert "Traceback" not in said


# Folders without a right --------------------------------------------------------------------------


@pytest.fixture
def powerless() -> list[str]:
    """The command by a user who may not write everywhere, also where the tests are run by root."""
    if os.getuid():
        return EQUIGRID
    if not shutil.which("setpriv"):
        pytest.skip("no setpriv: root may write everywhere")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *EQUIGRID]


@pytest.mark.long
def test_a_working_folder_that_is_read_only(powerless, recorded, tmp_path):
    (folder := tmp_path / "read-only").mkdir(mode=0o500)
    found = equigrid("run", "digits", "--store", recorded.uri, cwd=folder, command=powerless)
    check(
        found, ExitCode.BAD_INPUT, "--out: equigrid-out/digits cannot be written: Permission denied"
    )
    found = equigrid("run", "digits", "--out", tmp_path / "out", cwd=folder, command=powerless)
    check(
        found, ExitCode.UNAVAILABLE, "store .*equigrid-store: cannot be opened: Permission denied"
    )
    found = equigrid("plan", "digits", cwd=folder, command=powerless)
    assert found.returncode == ExitCode.DONE, found.stderr
    (spec := tmp_path / "secret.yaml").write_text("name: x")
    spec.chmod(0)
    found = equigrid("plan", spec, cwd=folder, command=powerless)
    check(found, ExitCode.BAD_INPUT, "secret.yaml: cannot be read: Permission denied")


@pytest.mark.long
def test_a_home_that_cannot_be_written_or_found(powerless, tmp_path):
    (folder := tmp_path / "read-only").mkdir(mode=0o500)
    for home in (folder, "/nonexistent", "/dev/null"):
        found = equigrid("plan", "digits", cwd=tmp_path, command=powerless, HOME=str(home))
        assert found.returncode == ExitCode.DONE, found.stderr


# Standard streams ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "out"),
    [
        ("presets >&-", 0, ""),
        ("presets 2>&-", 0, "digits: "),
        ("presets <&-", 0, "digits: "),
        ("presets <&- >&- 2>&-", 0, ""),
        ("nosuch >&- 2>&-", 2, ""),
        ("presets > /dev/full", 4, ""),
        ("presets 2> /dev/full", 0, "digits: "),
        ("nosuch 2> /dev/full", 2, ""),
        ("--version", 0, "equigrid "),
    ],
)
def test_closed_and_full_streams(tmp_path, line, code, out):
    found = equigrid(
        "-c", f'"{sys.executable}" -m equigrid.grid.cli {line}', cwd=tmp_path, command=["bash"]
    )
    assert found.returncode == code, found.stderr
    assert out in found.stdout
    assert bool(found.stdout) == bool(out)
    assert found.stderr.count("\n") <= 1
    assert "Traceback" not in found.stderr


@pytest.mark.long
@pytest.mark.parametrize("line", ["presets --json", "plan digits", "--help"])
def test_a_reader_that_goes_away_changes_no_exit_code(tmp_path, line):
    """Also where it goes before the first byte comes."""
    for reader in ("head -1", "true"):
        script = (
            f'"{sys.executable}" -m equigrid.grid.cli {line} | {reader}; echo "${{PIPESTATUS[0]}}"'
        )
        found = equigrid("-c", script, cwd=tmp_path, command=["bash"])
        assert found.stdout.splitlines()[-1] == "0", found.stderr
        assert found.stderr == ""


@pytest.mark.long
def test_watching_ends_with_its_reader(recorded, tmp_path):
    script = f'"{sys.executable}" -m equigrid.grid.cli status mini --watch --store "{recorded.uri}" | head -1; echo "${{PIPESTATUS[0]}}"'
    found = equigrid("-c", script, cwd=tmp_path, command=["bash"])
    assert found.stdout.splitlines()[-1] == "0", found.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"},
        {"TERM": "dumb"}, {"TERM": ""}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1"}, {"COLUMNS": "1"}, {"COLUMNS": "0"},
        {"COLUMNS": "-7"}, {"COLUMNS": "wide"}, {"LINES": "0", "COLUMNS": "99999"},
    ],
    ids=lambda environment: " ".join(f"{k}={v}" for k, v in environment.items()),
)  # fmt: skip
def test_poor_terminals(tmp_path, environment):
    for arguments in (["--help"], ["plan", "digits"]):
        found = equigrid(*arguments, cwd=tmp_path, **environment)
        assert found.returncode == 0, (arguments, found.stderr)
        assert found.stdout
        assert found.stderr == ""


def test_what_an_encoding_lacks_is_written_in_ascii(tmp_path):
    code = "from equigrid.grid.cli import streams; streams.prepare(); print('2 × ≈ 3 … τ → é')"
    command = [sys.executable, "-c", code]
    found = equigrid(cwd=tmp_path, command=command, PYTHONIOENCODING="ascii")
    assert found.stdout == "2 x ~ 3 ... tau -> ?\n"
    assert (
        equigrid(cwd=tmp_path, command=command, PYTHONIOENCODING="utf-8").stdout
        == "2 × ≈ 3 … τ → é\n"
    )


def test_help_and_version_answer_at_once(tmp_path):
    """In processor time, which other processes do not change; measured 0.15 s."""
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=-3, check=True); u = resource.getrusage(resource.RUSAGE_CHILDREN); print(u.ru_utime + u.ru_stime)"
    for option in ("--help", "--version"):
        found = equigrid(option, cwd=tmp_path, command=[sys.executable, "-c", code, *EQUIGRID])
        assert float(found.stdout) < 0.8


@pytest.mark.long
@pytest.mark.parametrize(
    "place",
    ["hf://datasets/nobody/nothing", "s3://bucket/x?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1"],
)  # fmt: skip
def test_4_images_on_a_server_that_does_not_answer(mini, tmp_path, place):
    """Asked of a port on which nobody listens: no network is needed, and none is used."""
    mini["dataset"] = {"parquet": place}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(mini))
    nobody = {
        "HF_ENDPOINT": "http://127.0.0.1:1",
        "NO_PROXY": "127.0.0.1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    found = equigrid("plan", "spec.yaml", cwd=tmp_path, **nobody, **keys)
    check(found, ExitCode.UNAVAILABLE, "dataset: parquet: .* cannot be listed")


def test_2_images_under_an_address_that_is_none(mini, tmp_path):
    mini["dataset"] = {"parquet": "nonsense://x"}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(mini))
    check(
        equigrid("plan", "spec.yaml", cwd=tmp_path), ExitCode.BAD_INPUT, "Unrecognized filesystem"
    )
