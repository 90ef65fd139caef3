"""A failure's name and reason are told at once, while other tests run, as `make test` runs them."""

import shutil
import subprocess
import sys
from pathlib import Path

FILES = {
    "test_fails.py": "def test_it():\n    raise ValueError('no such device\\nand more')\n",
    "test_lacks.py": "import no_such_package\n",
    "test_lasts.py": """
import pathlib, time

def test_it():
    end_s = time.monotonic() + 60
    while not pathlib.Path("told").exists():
        assert time.monotonic() < end_s, "nothing was told"
        time.sleep(0.05)
""",
}
TOLD = {
    "FAILED test_lacks.py: ModuleNotFoundError: No module named 'no_such_package'",
    "FAILED test_fails.py::test_it: ValueError: no such device",
}


def test_failures_are_told_while_others_run(tmp_path):
    """Those of an import too; into a pipe, in which nothing may wait."""
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile"]
    said = []
    with subprocess.Popen(
        [*command, "-p", "no:cacheprovider"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            said.append(line.strip())
            if set(said) >= TOLD:
                (tmp_path / "told").touch()
    assert process.returncode == 1
    assert "1 failed, 1 passed, 1 error in" in said[-1], said
