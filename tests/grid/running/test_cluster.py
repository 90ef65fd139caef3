"""Lost processes and room for slots, with a clock and nodes of the test's own."""

import time

import pytest

from equigrid.grid.errors import ClusterError, StoreError, UserError
from equigrid.grid.running import cluster
from equigrid.grid.running.cluster import DEATH_KNOWN_S, LOOK_EVERY_S, Losses, Room


class World:
    """Nodes that live, and the time."""

    def __init__(self, *nodes: dict):
        self.now_s, self.nodes, self.looks = 0.0, list(nodes), 0

    def clock(self) -> float:
        return self.now_s

    def alive(self) -> list[dict]:
        self.looks += 1
        return self.nodes


def test_only_losses_on_machines_that_live_on_are_told_and_each_once():
    world = World({"NodeID": "lives"}, {"NodeID": "dies"})
    losses = Losses(world.alive, world.clock)
    for job, nodes in (
        ("a", {"lives"}),
        ("b", {"dies"}),
        ("group", {"lives", "dies"}),
        ("c", {"lives"}),
    ):
        losses.add(job, frozenset(nodes))
    told = []
    while world.now_s < 3 * DEATH_KNOWN_S:
        if world.now_s >= DEATH_KNOWN_S / 2:  # Ray hears late that the second is dead
            world.nodes = [{"NodeID": "lives"}]
        told += [(job, world.now_s) for job in losses.of_living_machines()]
        world.now_s += 1
    assert [job for job, _ in told] == ["a", "c"]
    assert all(DEATH_KNOWN_S <= at_s <= DEATH_KNOWN_S + LOOK_EVERY_S for _, at_s in told)


def test_a_loss_on_the_drivers_own_machine_is_certain_at_once():
    """It lives while the driver does: a job that kills its process would else be tried for 30 s."""
    losses = Losses(World().alive, World().clock, lambda: "own")
    assert losses.is_certain(frozenset({"own"}))
    assert not losses.is_certain(frozenset({"other"}))
    assert not losses.is_certain(frozenset({"own", "other"})), "a group's, of which one died"


def test_nobody_looks_at_the_nodes_while_nothing_is_lost():
    world = World()
    losses = Losses(world.alive, world.clock)
    assert losses.of_living_machines() == []
    assert world.looks == 0


@pytest.mark.parametrize(
    ("cpus", "gpus", "slots"),
    [
        (1, 0, 4 + 96),
        (1, 1, 1 + 8),
        (8, 1, 0 + 8),
        (1, 0.5, 2 + 16),
        (0.1, 0, 40 + 960),
        (16, 1, 0 + 6),
        (1, 0.25, 4 + 32),
    ],
)
def test_room_is_counted_node_by_node(monkeypatch, cpus, gpus, slots):
    """A slot needs its cores and its GPU on one node; a share of a GPU fits as often as it goes
    into one.
    """
    small, large, head = {"CPU": 4.0, "GPU": 1.0}, {"CPU": 96.0, "GPU": 8.0}, {"memory": 1e9}
    world = World(*({"Resources": resources} for resources in (small, large, head)))
    monkeypatch.setattr(cluster, "alive_nodes", world.alive)
    room = Room(cpus, world.clock)
    assert room.slots(gpus) == slots
    world.nodes = []
    assert room.slots(gpus) == slots, "looked up now and then only"
    world.now_s = LOOK_EVERY_S
    assert room.slots(gpus) == 0


@pytest.mark.long
def test_a_node_that_cannot_use_the_store_is_named(ray_here, tmp_path, monkeypatch):
    """Each node is asked by itself; what is wrong there is said in a line."""
    from equigrid.grid.store import Store

    store = Store(tmp_path / "store", create=True)
    (here,) = cluster.alive_nodes()
    monkeypatch.setattr(cluster, "alive_nodes", lambda: [here, here])
    cluster.check_all_nodes_see(store)
    (tmp_path / "store" / "identity").write_text("another\n")
    with pytest.raises(StoreError) as raised:
        cluster.check_all_nodes_see(store)
    said = str(raised.value)
    assert said.count(here["NodeManagerHostname"]) >= 2
    assert "another folder on" in said
    assert "\n" not in said


def test_a_ray_that_does_not_start_is_one_line(monkeypatch):
    """Ray says so with a plain Exception: a machine that is too busy for its 30 s."""
    import ray

    def init(**_):
        raise Exception("The current node timed out during startup.\nMore.")

    # Whatever other tests left in this process.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    said = "^--address local: Ray did not start here: Exception: The current node timed out during startup.$"
    with pytest.raises(ClusterError, match=said), cluster.connected("local"):
        pass


@pytest.mark.parametrize("where", ["--address", "RAY_ADDRESS"])
@pytest.mark.parametrize(
    "address", ["nonsense", "host:port", "ray://", "ray://host:x", ":1", "h:99999"]
)
def test_an_address_that_is_none_is_told_with_where_it_stands(monkeypatch, where, address):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", None)
    monkeypatch.setenv("RAY_ADDRESS", address)
    given = None if where == "RAY_ADDRESS" else address
    said = f"^{where}[ =]{address}: is no address; write HOST:PORT of a Ray head, auto, or local$"
    with pytest.raises(UserError, match=said), cluster.connected(given):
        pass


def test_what_ray_prints_of_its_processes_stays_away(capsys, monkeypatch):
    from ray._private import worker
    from ray._private.worker import print_to_stdstream

    monkeypatch.setattr(worker, "_worker_logs_enabled", True)  # what another test connected has not

    text = {"lines": ["A worker died"], "pid": "raylet", "is_err": False}
    with cluster._quiet():
        print_to_stdstream(text, ignore_prefix=False)
    assert capsys.readouterr().out == ""
    print_to_stdstream({**text, "lines": ["another"]}, ignore_prefix=False)
    assert "another" in capsys.readouterr().out, "in a notebook's own connection it is as before"


def test_a_cluster_that_is_gone_is_not_waited_for(monkeypatch, tmp_path):
    """Ray tried for over a minute to reach what `ray start` had left in its folder."""
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(services, "find_gcs_addresses", set)  # whatever else runs here
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    began_s = time.monotonic()
    said = r"--address auto \(127.0.0.1:1, as Ray last had it here\): no Ray cluster answers there"
    with pytest.raises(ClusterError, match=said):
        cluster._check_reachable("auto", "--address auto")
    assert time.monotonic() - began_s < 10
