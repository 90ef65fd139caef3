"""Trackers with the real packages, each read back as the package itself reads: skipped where one is
missing.
"""

import importlib.util
import os
import sys
from datetime import UTC, datetime, timedelta

import pytest

from equigrid.grid.reporting.trackers import Trackers, check, finish, start, tracked_run
from equigrid.grid.spec.trackers import TRACKER_PACKAGES
from equigrid.grid.store import results

BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TRACEBACK = "Traceback (most recent call last):\n  in train\nNotFinite: the loss became nan in epoch 0, step 1"


def needs(*names: str):
    missing = [
        TRACKER_PACKAGES.get(name, name) for name in names if importlib.util.find_spec(name) is None
    ]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def row(number: int, **changes) -> dict:
    """A trial's row, as the body of the job writes it."""
    made = {
        "trial_id": f"trial-{number:020x}", "attempt": f"attempt{number}", "status": "ok", "error": None, "grid": "mini",
        "dataset": "digits", "fingerprint": "f" * 20, "arm": "syn", "setting": "closed", "generator": "edm",
        "classifier": "digits-cnn", "recipe": "digits", "n_total": 180, "n_base": 60, "n_nominal": 60, "n_real_added": 0,
        "n_syn": 120, "n_copies": 0, "subset_seed": 0, "generator_seed": 1, "seed": number, "rev": 1, "epochs": 5.0,
        "steps": 15, "top1": 87.5 + number, "top5": 99.0, "per_class": [87.5] * 10, "confusion": [1] * 100, "loss": 0.25,
        "val_top1": None, "seconds": 2.5, "images_per_s": 360.0, "peak_device_bytes": None, "device": "CPU",
        "world_size": 1, "threads": 1, "shards": ["a"], "versions": {"torch": "2"}, "code": "0.1.0", "node": "here",
        "started_at": BEGAN, "finished_at": BEGAN + timedelta(seconds=3),
    }  # fmt: skip
    return {**made, **changes}


def failed(number: int) -> dict:
    return row(
        number,
        status="failed",
        error=TRACEBACK,
        top1=None,
        top5=None,
        loss=None,
        steps=None,
        epochs=None,
    )


NAMES = [
    "60 real + 120 edm (generator seed 1), digits-cnn, subset 0, seed 0",
    "60 real + 120 edm (generator seed 1), digits-cnn, subset 0, seed 1: failed",
]
STATE = {"tracked": 2, "waiting": 0, "error": None}


def test_a_row_becomes_a_run_in_words():
    run = tracked_run(row(0))
    assert (run.key, run.name, run.error) == ("trial-" + 20 * "0", NAMES[0], None)
    assert run.params["n_syn"] == 120 and run.params["generator"] == "edm"
    # What is null is left out, and no list is a metric.
    assert run.metrics == {
        "top1": 87.5, "top5": 99.0, "loss": 0.25, "epochs": 5.0, "steps": 15.0, "seconds": 2.5, "images_per_s": 360.0,
    }  # fmt: skip
    assert run.finished_s - run.started_s == 3
    # A success of the same trial may follow.
    assert tracked_run(failed(1)).key == f"trial-{1:020x}-attempt1"
    assert tracked_run(failed(1)).error == TRACEBACK


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"tensorbored": "x"}, "no 'tensorbored'; there are tensorboard, trackio, mlflow, wandb"),
        ({"mlflow": ""}, "mlflow: where to"),
        (
            {"tensorboard": "s3://bucket/x"},
            "a folder of the driver's machine is needed, got s3://bucket/x",
        ),
        ({"mlflow": "postgresql://me:geheim@host/db"}, "no passwords in a spec"),
    ],
)
def test_bad_places_are_refused_in_one_line(places, message):
    with pytest.raises(ValueError, match="tensorboard|mlflow") as error:
        check(places)
    assert (
        message in str(error.value)
        and "\n" not in str(error.value)
        and "geheim" not in str(error.value)
    )


@pytest.mark.parametrize("name", TRACKER_PACKAGES)
def test_a_missing_package_is_named_as_pip_knows_it(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        ValueError,
        match=f"^trackers: {name} is not installed; pip install {TRACKER_PACKAGES[name]}$",
    ):
        Trackers({name: "somewhere"}, "mini")


def track(places: dict, *rows: dict, grid: str = "mini") -> dict:
    trackers = Trackers(places, grid)
    trackers.add(list(rows))
    return trackers.close()


@needs("tensorboard")
def test_tensorboard_reads_back_what_was_tracked(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api_pb2, metadata

    places = {"tensorboard": str(tmp_path / "board")}
    assert track(places, row(0), failed(1)) == {"tensorboard": STATE}
    folders = sorted((tmp_path / "board/mini").iterdir())
    assert [folder.name for folder in folders] == [
        f"{NAMES[0]} trial-{0:020x}", f"{NAMES[1].replace(':', '_')} trial-{1:020x}-attempt1",
    ]  # fmt: skip
    read = [EventAccumulator(str(folder)).Reload() for folder in folders]
    (top1,) = read[0].Scalars("top1")
    assert (top1.step, top1.value) == (15, 87.5)
    assert set(read[0].Tags()["scalars"]) == set(tracked_run(row(0)).metrics)
    assert "top1" not in read[1].Tags()["scalars"]
    plugin = [one.PluginTagToContent("hparams") for one in read]
    start = metadata.parse_session_start_info_plugin_data(
        plugin[0][metadata.SESSION_START_INFO_TAG]
    )
    assert (
        start.hparams["n_syn"].number_value == 120
        and start.hparams["generator"].string_value == "edm"
    )
    ends = [
        metadata.parse_session_end_info_plugin_data(one[metadata.SESSION_END_INFO_TAG]).status
        for one in plugin
    ]
    assert ends == [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE]
    (error,) = read[1].Tensors("error")
    assert b"NotFinite: the loss became nan" in error.tensor_proto.string_val[0]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = track(places, row(0), failed(1))  # as the next run of the grid would
    assert again["tensorboard"]["tracked"] == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    # The trial that failed succeeds after all.
    assert track(places, row(1))["tensorboard"]["tracked"] == 1


@needs("trackio")
def test_trackio_reads_back_what_was_tracked(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    for tracked in (2, 0):  # the second time as the next run of the grid would
        assert track({"trackio": "grids"}, row(0), failed(1)) == {
            "trackio": {**STATE, "tracked": tracked}
        }
        runs = {run.config["equigrid_key"]: run for run in trackio.Api().runs("grids")}
        assert set(runs) == {f"trial-{0:020x}", f"trial-{1:020x}-attempt1"}
    good, bad = runs[f"trial-{0:020x}"], runs[f"trial-{1:020x}-attempt1"]
    assert good.name.startswith(NAMES[0])
    (logged,) = SQLiteStorage.get_logs("grids", good.name)
    metrics = tracked_run(row(0)).metrics
    assert {name: logged[name] for name in metrics} == metrics
    assert (logged["step"], logged["failed"]) == (15, 0)
    assert (bad.config["error"], bad.config["n_syn"], bad.config["_Group"]) == (
        TRACEBACK, 120, "mini"
    )  # fmt: skip
    (logged,) = SQLiteStorage.get_logs("grids", bad.name)
    assert logged["failed"] == 1
    assert "top1" not in logged


@needs("mlflow", "sqlalchemy", "alembic")
def test_mlflow_reads_back_what_was_tracked(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    places = {"mlflow": f"sqlite:///{tmp_path}/mlflow.db"}
    client = MlflowClient(tracking_uri=places["mlflow"])
    experiment = client.create_experiment("mini")
    # somebody died over the first of them
    client.create_run(experiment, tags={"equigrid.key": f"trial-{0:020x}"}, run_name=NAMES[0])
    for tracked in (2, 0):  # the second time as the next run of the grid would
        assert track(places, row(0), failed(1)) == {"mlflow": {**STATE, "tracked": tracked}}
        good, bad = sorted(client.search_runs([experiment]), key=lambda run: run.info.run_name)
        assert [good.info.run_name, bad.info.run_name] == NAMES
        assert [good.info.status, bad.info.status] == ["FINISHED", "FAILED"]
    assert good.data.metrics == tracked_run(row(0)).metrics
    assert good.data.params == {
        name: str(value) for name, value in tracked_run(row(0)).params.items()
    }
    assert client.get_metric_history(good.info.run_id, "top1")[0].step == 15
    assert bad.data.tags["grid"] == "mini" and bad.data.tags["error"] == TRACEBACK
    assert (bad.info.start_time, bad.info.end_time) == (1767323045000, 1767323048000)


@needs("wandb")
def test_wandb_offline_leaves_a_run_folder(tmp_path, monkeypatch):
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "WANDB_CACHE_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    places = {"wandb": "team/grids"}
    assert track(places, row(0), failed(1)) == {"wandb": STATE}
    files = sorted(
        (tmp_path / "wandb/team/grids/wandb").glob("offline-run-*/run-*.wandb"),
        key=lambda p: p.name,
    )
    assert [path.name for path in files] == [
        f"run-trial-{0:020x}.wandb",
        f"run-trial-{1:020x}-attempt1.wandb",
    ]
    good, bad = (path.read_bytes() for path in files)
    for text in (NAMES[0], "grids", "mini", "n_syn", "120", "top1", "87.5"):
        assert text.encode() in good
    assert b"NotFinite: the loss became nan" in bad and b"top1" not in bad
    assert track(places, row(0), failed(1))["wandb"]["tracked"] == 0
    assert len(list((tmp_path / "wandb/team/grids/wandb").glob("offline-run-*"))) == 2


@needs("tensorboard")
def test_a_tracker_that_raises_holds_up_no_other_and_is_tried_again(tmp_path, monkeypatch):
    """MLflow's server refuses, really; then TensorBoard's folder cannot be made, then it can."""
    places, now = {"tensorboard": str(tmp_path / "board")}, [0.0]
    if importlib.util.find_spec("mlflow"):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        places = {"mlflow": "http://127.0.0.1:9", **places}
    (tmp_path / "board").write_text("a file in its place")
    trackers = Trackers(places, "mini", clock=lambda: now[0])
    trackers.add([row(0)])
    os.unlink(tmp_path / "board")
    trackers.add([row(1)])
    assert not (tmp_path / "board").exists()  # it pauses
    now[0] = 61
    trackers.add([row(2)])
    assert len(list((tmp_path / "board/mini").iterdir())) == 3
    state = trackers.close()
    assert state["tensorboard"] == {"tracked": 3, "waiting": 0, "error": None}
    if "mlflow" in places:
        assert (state["mlflow"]["tracked"], state["mlflow"]["waiting"]) == (0, 3)
        assert "127.0.0.1" in state["mlflow"]["error"]


@needs("tensorboard")
def test_what_an_earlier_run_did_not_track_is_caught_up_from_the_store(tmp_path):
    from equigrid.grid.store import Store

    store, places = Store(tmp_path / "store", create=True), {"tensorboard": str(tmp_path / "board")}
    for one in (row(0), row(1), row(2)):
        results.write_part(store, one)
    track(places, row(0))
    trackers = Trackers(places, "mini")
    trackers.catch_up(store, [f"trial-{i:020x}" for i in (0, 1, 7)])  # 2 is another grid's
    assert trackers.close()["tensorboard"] == {"tracked": 1, "waiting": 0, "error": None}
    keys = {path.name.rsplit(" ", 1)[1] for path in (tmp_path / "board/mini").iterdir()}
    assert keys == {f"trial-{i:020x}" for i in (0, 1)}


@pytest.mark.long
@needs("tensorboard")
def test_the_actor_tracks_beside_the_grid_and_its_death_is_one_line(
    ray_here, planned, mini, tmp_path, monkeypatch
):
    import ray

    monkeypatch.chdir(tmp_path)  # a relative folder is the driver's
    store, the_plan = planned(mini)
    first, second, third = [job.id for job in the_plan.of_kind("trial")][:3]
    results.write_part(store, row(0, trial_id=first))
    actor = start({"tensorboard": "board"}, store, the_plan)
    actor.add.remote([row(0, trial_id=first), row(1, trial_id=second)])
    assert finish(actor) == []
    assert {path.name.rsplit(" ", 1)[1] for path in (tmp_path / "board/mini").iterdir()} == {
        first,
        second,
    }
    (tmp_path / "taken").write_text("a file in its place")
    actor = start({"tensorboard": "taken"}, store, the_plan)
    actor.add.remote([row(2, trial_id=third)])
    (line,) = finish(actor)
    assert line.startswith("tracker tensorboard: ") and "; 2 trials are not tracked" in line
    dead = start({"tensorboard": "board"}, store, the_plan)
    ray.kill(dead)
    dead.add.remote([row(2, trial_id=third)])  # the driver goes on as if nothing were
    assert finish(dead) == ["trackers: ActorDiedError; the next run tracks what is missing"]
