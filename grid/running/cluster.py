"""The Ray cluster that a run lives on: the connection to it, the room it has, and which of its
machines died.
"""

import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from equigrid.grid.errors import ClusterError, StoreError, UserError
from equigrid.grid.jobs.failures import one_line
from equigrid.grid.jobs.ray_train import TRAIN_ENVIRONMENT
from equigrid.grid.running import autoscaler, session_folder, token, watch
from equigrid.grid.running.autoscaler import Declared, room
from equigrid.grid.running.interrupts import terminating_signals_interrupt
from equigrid.grid.spec import Execution
from equigrid.grid.store import Store, layout

LOOK_EVERY_S = 5.0  # at the list of nodes
DEATH_KNOWN_S = 30.0  # a machine's, after its processes died; Ray's health checks take less
FEWEST_FILES = 1024  # that a process of Ray's must be allowed to open
STARTUP_ENVIRONMENT = {
    **TRAIN_ENVIRONMENT,
    "RAY_USAGE_STATS_ENABLED": "0",
    # Actors of fractional GPUs and CPU slots keep their own view of the devices; silences a notice
    # of Ray's.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@contextmanager
def connected(
    address: str | None,
    *,
    dashboard: bool = True,
    last_word: Callable[[str], None] | None = None,
    **local_options: Any,
) -> Iterator[None]:
    """A connection to Ray: a cluster at `address` (or RAY_ADDRESS), else one of this process's own,
    ended with it. A connection that the process has already serves where no address is asked for,
    and stays.

    local_options go to `ray.init` where the cluster is our own. last_word: what to do where a part
    of Ray died and this process cannot leave it, see `Watch`. Raises ClusterError if nothing
    answers or starts, and if a part dies that no run can do without; UserError for an address where
    there is a connection already.
    """
    if ray.is_initialized():
        if address is not None:
            raise UserError(
                f"--address {address}: this process is connected to Ray already; leave the address "
                "out, or call ray.shutdown() before"
            )
        yield
        return
    for name, value in STARTUP_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    said = f"--address {address}" if address else f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}"
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    said = "--address local" if address == "local" else said
    if address == "local":  # its head is on this machine: once dead it does not come back
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
        token.prepare()
        local_options.setdefault("_temp_dir", session_folder.prepare())
        _check_files()
    _check_reachable(address, said)
    options = {"include_dashboard": dashboard, **local_options} if address == "local" else {}
    watched = watch.Watch(watch.parts_of_ray, last_word, watch.processes_of_ray)
    with terminating_signals_interrupt(), watched, _quiet():
        try:
            with terminating_signals_interrupt():  # what Ray sets goes again
                ray.init(
                    address=address, logging_level=logging.ERROR, log_to_driver=False, **options
                )
        except SystemExit as error:  # of the handler of SIGTERM that Ray sets
            raise KeyboardInterrupt from error
        except Exception as error:  # Ray has no narrower one for a node that does not come up
            what = (
                "Ray did not start here" if address == "local" else "no Ray cluster answers there"
            )
            raise ClusterError(f"{said}: {what}: {one_line(error)}") from error
        try:
            yield
        finally:
            if watched.lost is None:
                watched.stop()
            if watched.lost is None or last_word is None:  # a command ends with its process
                ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray prints a page to standard output for every process that dies, where a command's JSON may
    stand; what died and what becomes of it, the run says in a line.
    """
    from ray._private import worker

    before = worker._worker_logs_enabled
    worker._worker_logs_enabled = False
    try:
        yield
    finally:
        worker._worker_logs_enabled = before


def _check_files() -> None:
    """Ray's raylet dies without a word where it may open too few files. Raises ClusterError."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < FEWEST_FILES:
        what = f"a process may open {most:,} files here, and Ray needs {FEWEST_FILES:,}"
        raise ClusterError(f"--address local: {what}: ulimit -n {FEWEST_FILES}")
    if least < FEWEST_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEWEST_FILES, most))


def _check_reachable(address: str, said: str) -> None:
    """Ray itself would try for minutes. said: the address, and where it was given.

    Raises UserError for what is no address, ClusterError where nothing answers.
    """
    if address == "auto" and (found := _left_behind()):
        address, said = found, f"{said} ({found}, as Ray last had it here)"
    if address in ("local", "auto"):
        return
    scheme, _, place = address.rpartition("://")
    host, _, port = place.rpartition(":")
    # Ray's own client and whatever schemes its plugins have are left to it.
    if scheme in ("", "ray") and not (host and port.isdigit() and int(port) < 2**16):
        raise UserError(f"{said}: is no address; write HOST:PORT of a Ray head, auto, or local")
    if port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            why = error.strerror or error
            raise ClusterError(f"{said}: no Ray cluster answers there: {why}") from error


def _left_behind() -> str | None:
    """The address that Ray would take for the present cluster where none runs on this machine: a
    file says so, which outlives the cluster.
    """
    from ray._private import services

    if os.environ.get("RAY_ADDRESS") or services.find_gcs_addresses():
        return None
    return services.find_bootstrap_address(None)


def check_all_nodes_see(store: Store) -> None:
    """A folder that is another one on another node would lose that node's results without a word.

    (Nodes that come later are asked as their slots come up.) Raises StoreError that names the
    nodes.
    """
    nodes = alive_nodes()
    if len(nodes) == 1:
        return
    task = ray.remote(num_cpus=0, max_retries=0)(_trouble_with)
    asked = []
    for node in nodes:
        there = on_node(node["NodeID"])
        looking = task.options(name="check:store", scheduling_strategy=there)
        asked.append((node["NodeManagerHostname"], looking.remote(store)))
    if blind := [f"{host} ({trouble})" for host, ref in asked if (trouble := _answer(ref))]:
        raise StoreError(f"store {store.uri}: cannot be used on {', '.join(blind)}")


def _trouble_with(store: Store) -> str | None:
    try:
        store.check_identity()
        store.exists(layout.CHECK)
    except StoreError as error:
        return str(error)
    return None


def _answer(ref: ray.ObjectRef) -> str | None:
    try:
        return ray.get(ref)
    except ray.exceptions.RayError:  # the node died meanwhile: nothing will run there
        return None


def on_node(node: str, *, or_elsewhere: bool = False) -> NodeAffinitySchedulingStrategy:
    """Where Ray is to run something, by its name of the machine."""
    return NodeAffinitySchedulingStrategy(node, soft=or_elsewhere)


def here() -> NodeAffinitySchedulingStrategy:
    """The driver's own machine: for what lasts as long as the run and would hold another one."""
    return on_node(ray.get_runtime_context().get_node_id())


def alive_nodes() -> list[dict]:
    return [node for node in ray.nodes() if node["Alive"]]


def declared() -> Declared:
    """What the cluster's autoscaler was told, where that can be known."""
    return autoscaler.declared(ray.get_runtime_context().gcs_address)


def promised_slots(cpus: float, gpus: float) -> int:
    """How many slots there may be once the cluster's autoscaler has brought all that it may; 0
    where none is known.
    """
    if promised := declared().slots(cpus, gpus):
        heads = [node for node in alive_nodes() if "node:__internal_head__" in node["Resources"]]
        promised += sum(room(node["Resources"], cpus, gpus) for node in heads)
    return promised


def gpus_of_a_slot(execution: Execution) -> float:
    """The GPU or the share of one that a slot holds: `auto` is a whole one if there are any, or may
    be.
    """
    if execution.gpus == "auto":
        return float(ray.cluster_resources().get("GPU", 0) > 0 or declared().has_gpus)
    return execution.gpus


class Room:
    """How many slots the present nodes have room for; looked up now and then, since clusters grow
    and shrink.
    """

    def __init__(self, cpus: float, clock: Callable[[], float] = time.monotonic):
        self._cpus, self._clock = cpus, clock
        self._looked_s, self._gpus, self._slots = float("-inf"), 0.0, 0

    def slots(self, gpus: float) -> int:
        """Slots of `gpus` GPUs each."""
        now = self._clock()
        if now - self._looked_s >= LOOK_EVERY_S or gpus != self._gpus:
            self._looked_s, self._gpus = now, gpus
            each = [room(node["Resources"], self._cpus, gpus) for node in alive_nodes()]
            self._slots = sum(each)
        return self._slots


class _Loss(NamedTuple):
    job_id: str
    nodes: frozenset[str]
    at_s: float


class Orphans:
    """Placement groups whose maker was killed: Ray Train's controller, where the task that started
    a worker group is lost. Ray keeps them, and what they hold, until the job ends; Ray Train's own
    helper asks the dashboard whether the controller lives, and waits for ever where there is none.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_s = float("-inf")

    def free(self) -> int:
        """Removes those of this job, of runs before this one too; returns how many. That a maker is
        dead Ray knows only later: to be called in every round of the driver's loop.
        """
        now = self._clock()
        if now - self._looked_s < LOOK_EVERY_S:
            return 0
        self._looked_s = now
        found = _orphaned_placement_groups()
        for group in found:
            ray.util.remove_placement_group(group)
        return len(found)


def _orphaned_placement_groups() -> list[PlacementGroup]:
    # Ray's public table does not say who made a group.
    from ray._private.state import state
    from ray.core.generated import gcs_pb2

    Row = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]  # noqa: N806
    job = ray.get_runtime_context().get_job_id()
    rows = map(Row.FromString, state._connect_and_get_accessor().get_placement_group_table())
    return [
        PlacementGroup(ray.PlacementGroupID(row.placement_group_id))
        for row in rows
        if row.creator_job_id.hex() == job
        and row.creator_actor_dead
        and not ray.ActorID(row.creator_actor_id).is_nil()  # a driver's counts as dead
        and row.state != Row.REMOVED
    ]


class Losses:
    """Jobs whose process died. Whether its machine died too, which uses up no try of theirs, Ray
    knows only later.
    """

    def __init__(
        self,
        nodes: Callable[[], list[dict]] = alive_nodes,
        clock: Callable[[], float] = time.monotonic,
        own: Callable[[], str] = lambda: ray.get_runtime_context().get_node_id(),
    ) -> None:
        """own: Ray's name of the driver's own machine, which lives while the driver does."""
        self._nodes, self._clock, self._own = nodes, clock, own
        self._losses: list[_Loss] = []
        self._looked_s = float("-inf")

    def add(self, job_id: str, nodes: frozenset[str]) -> None:
        """nodes: where the process was, as Ray calls its machine; of a worker group, all that it
        may have been on.
        """
        self._losses.append(_Loss(job_id, nodes, self._clock()))

    def is_certain(self, nodes: frozenset[str]) -> bool:
        """Whether these machines live, as far as can be said at once: nobody has to wait then."""
        return nodes == {self._own()}

    def of_living_machines(self) -> list[str]:
        """The jobs whose machines turn out to live on, each told once. Called in every round of the
        driver's loop.
        """
        now = self._clock()
        if not self._losses or now - self._looked_s < LOOK_EVERY_S:
            return []
        self._looked_s = now
        alive = {node["NodeID"] for node in self._nodes()}
        doubtful = [loss for loss in self._losses if loss.nodes <= alive]
        self._losses = [loss for loss in doubtful if now - loss.at_s < DEATH_KNOWN_S]
        return [loss.job_id for loss in doubtful if now - loss.at_s >= DEATH_KNOWN_S]
