"""A run whose trainings find checkpoints that are not what was saved."""

import shutil

import pytest

from equigrid.grid.ids import new_attempt
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, layout
from equigrid.grid.store.layout import GENERATORS


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_they_are_passed_over_and_the_training_begins_anew(
    finished_mini, mini, quiet, tmp_path, outcomes
):
    """Cut short, and with the bytes of another: of every trial and every generator of a grid."""
    folder = tmp_path / "store"
    shutil.copytree(finished_mini[0].uri, folder)
    for name in ("results", "generators", "pools"):
        shutil.rmtree(folder / name)
    store, places = Store(folder), []
    for job in finished_mini[2].jobs.values():
        if job.kind == "trial":
            places.append(layout.checkpoints(job.id))
        elif job.kind == "generator":
            places.append(GENERATORS.checkpoints(job.id))
    assert len(places) == 20
    for place in places:
        for step, content in ((3, b""), (7, b"PK\x03\x04 half a state")):
            store.put(layout.checkpoint(place, step, new_attempt(), "0" * 32), content)
    summary, _ = driver.run(load(mini), store, console=quiet)
    assert not summary.failures
    assert outcomes(store) == outcomes(finished_mini[0])
    assert not [name for place in places for name in store.list(place) if name.endswith(".pt")]
