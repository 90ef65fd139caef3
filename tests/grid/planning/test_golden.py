"""The ids of every preset's jobs, by kind, as a digest: if one changes, finished results in every
store are lost.

A change of results raises the kind's revision, on purpose, and the changelog says so; then
`EQUIGRID_WRITE_GOLDEN=1 make test ARGS=tests/grid/planning/test_golden.py` writes the digests anew.
"""

import hashlib
import json
import os
from pathlib import Path

import pytest

from equigrid.grid.spec import presets

GOLDEN = Path(__file__).parent / "golden" / "job_ids.json"


def digests(the_plan) -> dict[str, dict]:
    """Of a plan's jobs, by kind: how many there are, and a hash of their ids.

    The ingest is left out: before it is read, a source goes by its place, which is another one on
    each machine.
    """
    ids: dict[str, list[str]] = {}
    for job in the_plan.jobs.values():
        ids.setdefault(job.kind, []).append(job.id)
    ids["cell"] = [f"{cell} {cell.arm} {cell.trial_id}" for cell in the_plan.cells]
    del ids["ingest"]
    return {
        kind: {
            "jobs": len(found),
            "digest": hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16],
        }
        for kind, found in sorted(ids.items())
    }


@pytest.fixture(scope="module")
def golden():
    return {} if not GOLDEN.exists() else json.loads(GOLDEN.read_text())


def test_every_preset_has_its_golden_ids(plan_of, golden):
    found = {name: digests(plan_of(name)) for name in presets()}
    if os.environ.get("EQUIGRID_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
        pytest.skip("the golden digests were written anew")
    assert found == golden
    assert all(kinds["trial"]["jobs"] for kinds in found.values())
