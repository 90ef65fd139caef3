"""What Ray's autoscaler was told, by the file that its command line names."""

from pathlib import Path

import pytest
import yaml

from equigrid.grid.errors import UserError
from equigrid.grid.running.autoscaler import Declared, NodeType, declared
from equigrid.grid.running.slots import SlotPool
from equigrid.grid.spec import Execution
from equigrid.grid.store import Store

CLUSTER_YAML = Path(__file__).parents[3] / "cluster.yaml"
MONITOR = "/venv/lib/python3.11/site-packages/ray/autoscaler/_private/monitor.py"


@pytest.fixture
def processes(tmp_path):
    """Makes a process of a command line, in a /proc of the test's own."""

    def make(*line: str) -> Path:
        place = tmp_path / "proc" / str(len(list(tmp_path.glob("proc/*"))) + 100)
        place.mkdir(parents=True)
        (place / "cmdline").write_bytes("\0".join([*line, ""]).encode())
        return tmp_path / "proc"

    return make


def test_the_autoscaler_of_the_cluster_at_hand_is_asked_and_no_other(processes, tmp_path):
    """cluster.yaml of this repository: 4 machines without a GPU, 8 + 4 with one, 16 at once."""
    config = yaml.safe_load(CLUSTER_YAML.read_text())
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(config | {"max_workers": 1}))
    processes("sleep", "--gcs-address=h:1", f"--autoscaling-config={CLUSTER_YAML}")
    processes("python", MONITOR, "--gcs-address=h:2", f"--autoscaling-config={other}")
    processes("python", MONITOR, "--gcs-address=h:3")  # as of any cluster that does not scale
    found = processes(
        "python", MONITOR, "--gcs-address=h:1", f"--autoscaling-config={CLUSTER_YAML}"
    )
    told = declared("h:1", found)
    assert told.most == 16
    assert told.has_gpus
    assert told.slots(1, 1) == 8 + 4
    assert told.slots(1, 0.5) == 2 * (8 + 4)
    assert told.slots(8, 0) == 4
    assert declared("h:2", found).slots(1, 1) == 1
    assert declared("h:3", found) == Declared()
    assert declared("h:9", found) == Declared()


@pytest.mark.parametrize(
    "text", ["", "[]", "max_workers: many", "max_workers: 3", "{max_workers: 1, x: [", "\x00"]
)
def test_a_file_that_is_not_what_it_should_be_promises_nothing(processes, tmp_path, text):
    (tmp_path / "file").write_text(text)
    found = processes(
        "python", MONITOR, "--gcs-address=h:1", f"--autoscaling-config={tmp_path / 'file'}"
    )
    assert declared("h:1", found) == Declared()
    (tmp_path / "file").unlink()
    assert declared("h:1", found) == Declared()


def test_the_largest_machines_are_counted_first_and_no_more_than_all_types_may_be():
    small, large = NodeType({"CPU": 2.0}, 10), NodeType({"CPU": 8.0}, 2)
    assert Declared((small, large), 5).slots(2, 0) == 2 * 4 + 3
    assert Declared((small, large), 1).slots(2, 0) == 4
    assert Declared((small, large), 50).slots(4, 0) == 4
    assert not Declared((small, large), 50).has_gpus
    assert not Declared((NodeType({"CPU": 4.0, "GPU": 1.0}, 0),), 50).has_gpus


@pytest.mark.parametrize(
    ("present", "promised", "slots", "capacity"),
    [(0, 0, None, 0), (0, 12, None, 12), (3, 2, None, 3), (3, 12, None, 12), (0, 12, 5, 5)],
)
def test_a_pool_may_have_what_is_promised_unless_the_spec_says(
    store: Store, present, promised, slots, capacity
):
    pool = SlotPool(
        store, cpus=1, gpus=0, threads=1, most=slots, room=lambda gpus: present, promised=promised
    )
    assert pool.capacity == capacity
    if capacity:
        pool.check_room(Execution(slots=slots))
        return
    with pytest.raises(UserError) as raised:
        pool.check_room(Execution())
    assert "room for 0 slots" in str(raised.value)
    assert "execution.slots" in str(raised.value)
    assert "\n" not in str(raised.value)
