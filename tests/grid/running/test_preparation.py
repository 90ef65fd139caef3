"""What a run refuses before anything begins, as only the machines say it."""

import pytest

from equigrid.grid.errors import UserError
from equigrid.grid.running import cluster
from equigrid.grid.running.preparation import prepared
from equigrid.grid.spec import load


def test_half_precision_is_refused_where_no_machine_has_a_gpu(mini, store, quiet, monkeypatch):
    """The plan cannot know: `gpus: auto` failed in the first training, cell by cell."""
    mini["execution"]["gpus"] = "auto"
    mini["generators"]["edm"]["compute"] = {"training_precision": "fp16"}
    monkeypatch.setattr(cluster, "gpus_of_a_slot", lambda execution: 0.0)
    with pytest.raises(UserError) as error:
        prepared(load(mini), store, quiet)
    assert str(error.value) == (
        "generators.edm.compute.training_precision: fp16 needs a CUDA device, and no machine here "
        "has one; write fp32, bf16 or auto"
    )
    assert not list(store.list("specs"))
