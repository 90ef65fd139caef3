"""A generator of the user's own that ends its process, with a real run around it."""

import json

import pytest

from equigrid.grid.errors import ExitCode
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
