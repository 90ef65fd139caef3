"""Drills that trainings of several kinds go through."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKER = """
import json, sys
import numpy as np, torch, torch.distributed as dist
from equigrid.generators import registry
rank, place = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{place}/rendezvous", rank=rank, world_size=2)
with np.load(f"{place}/data.npz") as data:
    images, labels = data["images"], data["labels"]
rows, states, call = [], [], json.load(open(f"{place}/call.json"))
made = registry.train(images, labels, registry.config(call["config"]), **call["options"], log=rows.append,
                      checkpoint=lambda step, make_state: states.append(make_state()))
assert bool(rows) == bool(states) == (rank == 0)
torch.save({"weights": made, "states": states}, f"{place}/out{rank}")
dist.barrier()  # one that leaves early takes the connection of the other with it
dist.destroy_process_group()
"""


@pytest.fixture
def in_two_workers(tmp_path):
    """Trains in two processes with gloo; weights and states of each rank. Rank 0 alone has states
    and log rows.
    """

    def train(chosen, data, **options) -> list[dict]:
        import json

        import numpy as np
        import torch

        np.savez(tmp_path / "data.npz", images=data[0], labels=data[1])
        (tmp_path / "call.json").write_text(
            json.dumps({"config": chosen.model_dump(mode="json"), "options": options})
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
        commands = [[sys.executable, "-c", WORKER, str(rank), str(tmp_path)] for rank in range(2)]
        workers = [subprocess.Popen(command, env=environment) for command in commands]
        assert [worker.wait(timeout=600) for worker in workers] == [0, 0]
        return [torch.load(tmp_path / f"out{rank}", weights_only=True) for rank in range(2)]

    return train
