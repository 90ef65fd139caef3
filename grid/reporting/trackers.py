"""Optional trackers by their own packages: each trial becomes a run in TensorBoard, Trackio, MLflow
or Weights & Biases.

A spec names the place, `trackers: {tensorboard: FOLDER, trackio: PROJECT, mlflow: TRACKING_URI,
wandb: PROJECT}`;
keys and passwords are the packages' own business (their environment variables and files). Nothing
here is needed: what was not tracked, for a slow server or a dead actor, the grid's next run tracks
from the store.
"""

import contextlib
import importlib.util
import io
import logging
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from equigrid.grid.jobs import trial
from equigrid.grid.planning.graph import Cell, Plan
from equigrid.grid.reporting import logs
from equigrid.grid.spec.trackers import TRACKER_PACKAGES, validate_trackers
from equigrid.grid.store import Store
from equigrid.grid.text import in_a_line

log = logging.getLogger("equigrid.trackers")
PAUSE_S = 60.0  # before a package that raised is tried again
FINISH_S = 60.0  # the driver's patience at the end
ERROR_LENGTH = 5000  # characters of a traceback, its end; MLflow takes no more than 8,000 in a tag
PARAMS = (
    "dataset", "fingerprint", "arm", "augmentation", "setting", "generator", "classifier",
    "recipe", "n_total", "n_base", "n_nominal", "n_real_added", "n_syn", "n_copies", "subset_seed",
    "generator_seed", "seed", "rev",
)  # fmt: skip
METRICS = (
    "top1", "top5", "loss", "val_top1", "epochs", "steps", "seconds", "images_per_s",
    "peak_device_bytes", "energy_kwh", "co2_kg",
)  # fmt: skip
TAGS = ("grid", "trial_id", "attempt", "status", "node", "device", "world_size", "code")
COLUMNS = [*PARAMS, *METRICS, *TAGS, "error", "started_at", "finished_at"]


@dataclass(frozen=True)
class TrackedRun:
    """A row of the results as trackers want it.

    key: the trial's id; of a failed attempt its own besides, since a success may follow. Times in
    seconds since 1970, UTC. error: the end of the traceback, None if the trial succeeded.
    """

    key: str
    name: str
    params: dict[str, str | int]
    metrics: dict[str, float]
    tags: dict[str, str]
    started_s: float
    finished_s: float
    error: str | None


def tracked_run(row: dict) -> TrackedRun:
    """From a row of the results schema; what is null in it is left out."""
    failed = row["status"] == "failed"
    words = str(Cell._make(row.get(name) for name in Cell._fields))
    return TrackedRun(
        key=f"{row['trial_id']}-{row['attempt']}" if failed else row["trial_id"],
        name=f"{words}: failed" if failed else words,
        params={name: row[name] for name in PARAMS if row.get(name) is not None},
        metrics={name: float(row[name]) for name in METRICS if row.get(name) is not None},
        tags={name: str(row[name]) for name in TAGS if row.get(name) is not None},
        started_s=row["started_at"].timestamp(),
        finished_s=row["finished_at"].timestamp(),
        error=row["error"][-ERROR_LENGTH:] if failed else None,
    )


def check(places: Mapping[str, str]) -> None:
    """Raises ValueError as `validate_trackers`, and for a package that is not installed here."""
    validate_trackers(places)
    for name in places:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"trackers: {name} is not installed; pip install {TRACKER_PACKAGES[name]}"
            )


class TensorBoard:
    """A folder per run, `FOLDER/GRID/CELL KEY`, with one event file: scalars, hyperparameters, a
    failure's text.
    """

    def __init__(self, folder: str, grid: str):
        self._folder = Path(folder) / grid

    def tracked(self) -> set[str]:
        return {
            path.parent.name.rsplit(" ", 1)[1]
            for path in self._folder.glob("* */events.out.tfevents.*")
        }

    def write(self, run: TrackedRun) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        words = re.sub(r"[^\w +,().-]", "_", run.name)[:150]
        folder = self._folder / f"{words} {run.key}"
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / "part"  # no event file by its name until it is whole
        with open(part, "wb") as file:
            records = RecordWriter(file)
            records.write(
                Event(wall_time=run.started_s, file_version="brain.Event:2").SerializeToString()
            )
            for summary in _summaries(run):
                event = Event(
                    wall_time=run.finished_s, step=int(run.metrics.get("steps", 0)), summary=summary
                )
                records.write(event.SerializeToString())
        os.replace(
            part, folder / f"events.out.tfevents.{run.finished_s:.0f}.{socket.gethostname()}"
        )

    def close(self) -> None:
        """Every file is whole already."""


def _summaries(run: TrackedRun) -> Iterable:
    """What TensorBoard shows of a run, as its protocol buffers."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.text.summary_v2 import text_pb

    yield hparams_pb(run.params, trial_id=run.key, start_time_secs=run.started_s)
    yield Summary(
        value=[Summary.Value(tag=name, simple_value=value) for name, value in run.metrics.items()]
    )
    yield text_pb("tags", "\n".join(f"    {name}: {value}" for name, value in run.tags.items()))
    if run.error:
        # Markdown, verbatim.
        yield text_pb("error", "\n".join(f"    {line}" for line in run.error.splitlines()))
    status = api_pb2.STATUS_FAILURE if run.error else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=run.finished_s)
    about = metadata.create_summary_metadata(
        plugin_data_pb2.HParamsPluginData(session_end_info=end)
    )
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG, metadata=about, tensor=metadata.NULL_TENSOR
    )
    yield Summary(value=[value])


class Trackio:
    """Runs of a project in Trackio's database on this machine (TRACKIO_DIR), grouped by grid. The
    key is in a run's configuration; one that has no metrics yet is gone on with.
    """

    def __init__(self, project: str, grid: str):
        import trackio

        self._trackio, self._project, self._grid = trackio, project, grid

    def tracked(self) -> set[str]:
        from trackio.sqlite_storage import SQLiteStorage

        if self._project not in SQLiteStorage.get_projects():
            return set()
        runs = self._trackio.Api().runs(self._project)
        logged = {run: SQLiteStorage.get_log_count(self._project, run.name) for run in runs}
        keys = ((run.config or {}).get("equigrid_key") for run, n in logged.items() if n)
        return {key for key in keys if key}

    def write(self, run: TrackedRun) -> None:
        about = {**run.params, **run.tags, "equigrid_key": run.key}
        if run.error:
            about["error"] = run.error
        with contextlib.redirect_stdout(io.StringIO()):  # it tells people how to look
            made = self._trackio.init(
                self._project, name=f"{run.name} {run.key}", group=self._grid, config=about,
                resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
            # A failed attempt has few metrics, perhaps none: `failed` makes it a run all the same.
            failed = {"failed": float(run.error is not None)}
            made.log({**run.metrics, **failed}, step=int(run.metrics.get("steps", 0)))
            made.finish()

    def close(self) -> None:
        """Every run is finished already."""


class MLflow:
    """Runs of the experiment that has the grid's name; a run's tag `equigrid.key` says which trial
    it is.
    """

    def __init__(self, uri: str, grid: str):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(grid)
        self._experiment = found.experiment_id if found else self._client.create_experiment(grid)
        self._begun: dict[str, str] = {}  # runs that somebody died over: they are gone on with

    def tracked(self) -> set[str]:
        found, token = set(), None
        while True:
            page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
            for run in page:
                key = run.data.tags.get("equigrid.key")
                if run.info.status in ("FINISHED", "FAILED"):
                    found.add(key)
                elif key:
                    self._begun[key] = run.info.run_id
            token = page.token
            if not token:
                return found

    def write(self, run: TrackedRun) -> None:
        from mlflow.entities import Metric, Param

        began, ended = round(1000 * run.started_s), round(1000 * run.finished_s)
        if run.key not in self._begun:
            tags = {
                **run.tags,
                "equigrid.key": run.key,
                **({"error": run.error} if run.error else {}),
            }
            made = self._client.create_run(
                self._experiment, start_time=began, tags=tags, run_name=run.name
            )
            self._begun[run.key] = made.info.run_id
        run_id, step = self._begun[run.key], int(run.metrics.get("steps", 0))
        metrics = [Metric(name, value, ended, step) for name, value in run.metrics.items()]
        params = [Param(name, str(value)) for name, value in run.params.items()]
        self._client.log_batch(run_id, metrics=metrics, params=params)
        self._client.set_terminated(run_id, "FAILED" if run.error else "FINISHED", end_time=ended)
        del self._begun[run.key]

    def close(self) -> None:
        """Nothing is held."""


class WandB:
    """Runs of a project, `PROJECT` or `ENTITY/PROJECT`, grouped by grid. The run's id is the key,
    so that the server has one of each; those with a folder on this machine,
    `wandb/PROJECT/wandb/*run-*`, are not sent again.
    """

    def __init__(self, project: str, grid: str):
        import wandb

        self._wandb, self._grid = wandb, grid
        *entity, self._project = project.split("/", 1)
        self._entity = entity[0] if entity else None
        # WANDB_DIR's, else the driver's.
        self._folder = Path(wandb.setup().settings.root_dir) / "wandb" / project
        self._folder.mkdir(parents=True, exist_ok=True)

    def tracked(self) -> set[str]:
        names = [path.parent.name for path in self._folder.glob("wandb/*run-*/run-*.wandb")]
        return {re.sub(r"^(offline-)?run-\d+_\d+-", "", name) for name in names}

    def write(self, run: TrackedRun) -> None:
        # Nothing of the tracking process: the trial ran elsewhere.
        settings = self._wandb.Settings(
            silent=True, console="off", x_disable_stats=True, x_disable_meta=True,
            x_save_requirements=False, disable_git=True, disable_code=True,
        )  # fmt: skip
        made = self._wandb.init(
            entity=self._entity, project=self._project, id=run.key, name=run.name[:128],
            group=self._grid, job_type=str(run.params["arm"]), config={**run.params, **run.tags},
            dir=self._folder, resume="allow", reinit="create_new", settings=settings,
        )  # fmt: skip
        made.summary.update({**run.metrics, **({"error": run.error} if run.error else {})})
        made.finish(exit_code=1 if run.error else 0)

    def close(self) -> None:
        self._wandb.teardown()


class Tracker(Protocol):
    """What each of the classes above does."""

    def tracked(self) -> set[str]:
        """The keys of the runs that are there already."""

    def write(self, run: TrackedRun) -> None: ...

    def close(self) -> None: ...


OPEN: dict[str, Callable[[str, str], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "mlflow": MLflow,
    "wandb": WandB,
}


class _Queue:
    """One tracker, and the runs that wait for it: while its package raises, all of them do."""

    def __init__(self, name: str, place: str, grid: str):
        self.name, self.place, self.grid = name, place, grid
        self.waiting: deque[TrackedRun] = deque()
        self.known: set[str] = set()
        self.tracker: Tracker | None = None
        self.error: str | None = None
        self.pause_until_s, self.count = float("-inf"), 0

    def flush(self, now_s: float) -> None:
        try:
            if self.tracker is None:
                self.tracker, self.known = self._opened()
            while self.waiting:
                run = self.waiting[0]
                if run.key not in self.known:
                    self.tracker.write(run)
                    self.known.add(run.key)
                    self.count += 1
                self.waiting.popleft()
            self.error = None
        # Whatever a package raises: neither the others nor the grid may suffer from it.
        except Exception as error:
            self.error = f"{type(error).__name__}: {in_a_line(str(error), 300)}"
            log.warning("%s: %s; %d trials wait", self.name, self.error, len(self.waiting))
            self.waiting.rotate(-1)  # should it be one run's fault, the others come first
            self.pause_until_s = now_s + PAUSE_S

    def _opened(self) -> tuple[Tracker, set[str]]:
        """The tracker, and what it has from before."""
        opened = OPEN[self.name](self.place, self.grid)
        return opened, opened.tracked()


class Trackers:
    """The trackers of one grid; knows nothing of Ray. `add` blocks for as long as the packages
    take, and raises for none of them.

    places: tracker to place, as in the spec. Raises ValueError in one line if one is unknown or not
    installed.
    """

    def __init__(
        self, places: Mapping[str, str], grid: str, *, clock: Callable[[], float] = time.monotonic
    ):
        check(places)
        self._clock = clock
        self._queues = [_Queue(name, place, grid) for name, place in places.items()]

    def add(self, rows: list[dict]) -> None:
        """Rows of the results schema, successes and failures; those tracked already are passed
        over.
        """
        runs = [tracked_run(row) for row in rows]
        for queue in self._queues:
            queue.waiting.extend(runs)
            if self._clock() >= queue.pause_until_s:
                queue.flush(self._clock())

    def catch_up(self, store: Store, trial_ids: list[str]) -> None:
        """Adds what the store has of these trials: an earlier run may have ended before it was
        tracked.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        from equigrid.grid.store import results

        table = results.read(store, COLUMNS)
        wanted = table.filter(pc.is_in(table["trial_id"], pa.array(trial_ids, pa.string())))
        for batch in wanted.to_batches(max_chunksize=1000):
            self.add(batch.to_pylist())

    def close(self) -> dict[str, dict]:
        """Tries once more what waits, then lets go. By tracker: runs tracked, runs waiting still,
        the error or None.
        """
        for queue in self._queues:
            if queue.waiting:
                queue.flush(self._clock())
            if queue.tracker:
                queue.tracker.close()
        return {
            q.name: {"tracked": q.count, "waiting": len(q.waiting), "error": q.error}
            for q in self._queues
        }


def start(places: Mapping[str, str], store: Store, plan: Plan) -> Any:
    """The trackers as an actor on the driver's machine, in its folder; catches up first. Raises
    ValueError as `check`.

    Its methods are called without waiting for them, so it holds up nobody, and its death harms
    nothing.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    check(places)

    class TrackersActor(Trackers):
        def __init__(self, folder: str, grid: str):
            logs.prepare()
            os.chdir(folder)  # relative places mean what they mean to the driver
            super().__init__(places, grid)

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    made: Any = ray.remote(TrackersActor)  # the types of its handle are Ray's own making
    actor = made.options(num_cpus=0, scheduling_strategy=here).remote(
        os.getcwd(), plan.resolved.spec.name
    )
    actor.catch_up.remote(store, [job.id for job in plan.of_kind(trial.KIND.name)])
    return actor


def finish(actor: Any, timeout_s: float = FINISH_S) -> list[str]:
    """Waits for the actor to track what it was given, but not for long; a line for each tracker
    that is not done.
    """
    import ray

    try:
        found = ray.get(actor.close.remote(), timeout=timeout_s)
    except ray.exceptions.RayError as error:
        return [f"trackers: {type(error).__name__}; the next run tracks what is missing"]
    finally:
        ray.kill(actor)
    return [
        f"tracker {name}: {state['error']}; {state['waiting']:,} trials are not tracked, "
        "the next run tracks them"
        for name, state in found.items()
        if state["waiting"]
    ]
