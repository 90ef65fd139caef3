"""A generator of the user's own that ends its process, or never ends, with a real run around it."""

import json
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from equigrid.grid.errors import ExitCode
from equigrid.grid.reporting.silence import Silence
from equigrid.grid.running import driver, observers
from equigrid.grid.spec import load
from equigrid.grid.store import Store, results

pytestmark = pytest.mark.long


def test_a_module_that_kills_its_process_costs_its_own_cells(mini, write_spec, start, tmp_path):
    """Ray says so on standard output, a page each time, where the command's JSON stands; and the
    job was tried for half a minute, since a machine might have died.
    """
    (tmp_path / "own_killer.py").write_text("import os\ndef sample(a, b): os.abort()\n")
    own = {"kind": "python", "module": "own_killer", "path": str(tmp_path), "setting": "open"}
    mini["execution"] |= {"slots": 1, "retries": 1}
    mini["generators"], mini["seeds"] = {"own": own}, [0]
    mini["blocks"] = [{"n_base": [60], "real": [1], "syn": {"own": [1]}}]
    store = Store(tmp_path / "store", create=True)
    command = start(
        "run", write_spec(mini), "--store", store.uri, "--json", "--no-dashboard",
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert command.finish(300) == ExitCode.FAILED_CELLS
    found = json.loads(command.out_path.read_text())["summary"]
    said = command.err_path.read_text()
    assert "Traceback" not in said
    assert said.count("its process died") == 4  # two tries, what became of the job, the summary
    assert found["retries"] == 2
    (failure,) = found["failures"]
    assert failure["kind"] == "shard"
    assert failure["error"].startswith("its process died (killed, short of memory")
    assert len(results.read(store)) == 2, "the base and its real images"


@pytest.mark.parametrize("by", [pytest.param("hand", marks=pytest.mark.slow), "hung_after_s"])
def test_one_that_hangs_is_told_of_and_tried_again_once_its_process_is_killed(
    ray_here, mini, tmp_path, quiet, monkeypatch, slot_processes, by
):
    monkeypatch.setattr(observers, "Silence", partial(Silence, after_s=4))
    (tmp_path / "own_sleeper.py").write_text(
        "import os, time\n"
        "def sample(label, seed):\n"
        f"    first = {str(tmp_path / 'first')!r}\n"
        "    if not os.path.exists(first):\n"
        "        open(first, 'w').close()\n"
        "        time.sleep(600)\n"
        "    import numpy as np\n"
        "    return np.random.default_rng(seed).integers(0, 256, (8, 8, 1), np.uint8)\n"
    )
    own = {"kind": "python", "module": "own_sleeper", "path": str(tmp_path), "setting": "open"}
    mini["execution"] |= {"slots": 1, "retries": 1}
    if by == "hung_after_s":
        mini["execution"]["hung_after_s"] = 20
    mini["generators"], mini["seeds"] = {"own": own}, [0]
    mini["blocks"] = [{"n_base": [60], "real": [1], "syn": {"own": [1]}}]
    said: list[str] = []
    message = observers.Observers.message
    monkeypatch.setattr(
        observers.Observers, "message", lambda self, text: (said.append(text), message(self, text))
    )
    killed: list[tuple[str, str]] = []

    def kill() -> None:
        """What the line says to do."""
        end_s = time.monotonic() + 120
        while not killed and time.monotonic() < end_s:
            # Of this job's: another one may be slow to begin on a busy machine.
            told = [t for t in said if "no sign of progress" in t and "(ray::shard:" in t]
            for pid in slot_processes("shard") if told else []:
                title = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
                killed.append((told[0], title))
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    thread = threading.Thread(target=kill, daemon=True)
    if by == "hand":
        thread.start()
    summary, _ = driver.run(load(mini), Store(tmp_path / "store", create=True), console=quiet)
    if by == "hand":
        thread.join(10)
        ((line, title),) = killed
        assert f"({title} in `ps`)" in line
    else:
        line, *_ = [t for t in said if t.startswith("shard:") and "it is ended after" in t]
        assert line.endswith("it is ended after 20 s (execution.hung_after_s)")
        assert any("for execution.hung_after_s: ended; trying again" in text for text in said)
    assert not summary.failures
    assert summary.retries == 1
