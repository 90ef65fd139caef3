"""What a store says of a grid does not depend on what became of the places that its spec names."""

import json
import os
import shutil
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equigrid.grid.cli import entry
from equigrid.grid.errors import ExitCode
from equigrid.grid.gc import plan_gc
from equigrid.grid.gc import recorded as recorded_plans
from equigrid.grid.planning import recorded, recording
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import Store, documents, layout, results

CLASSES = ("cat", "dog")


def write_images(folder: Path, n: int, seed: int, splits=("train", "test")) -> None:
    rng = np.random.default_rng(seed)
    for split in splits:
        for name in CLASSES:
            place = folder / split / name if split else folder / name
            place.mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")


@pytest.fixture
def data(tmp_path) -> Path:
    """A data set, and a set of synthetic images beside it: both can go."""
    folder = tmp_path / "places" / "data"
    write_images(folder, 20, seed=1)
    write_images(folder.with_name("made"), 20, seed=2, splits=("",))
    return folder


@pytest.fixture
def spec(mini, data, write_spec, monkeypatch) -> Path:
    monkeypatch.setenv("EQUIGRID_TEST_MADE", str(data.with_name("made")))
    mini |= {
        "dataset": {"imagefolder": str(data)},
        "generators": {"made": {"kind": "imported", "path": "$EQUIGRID_TEST_MADE"}},
        "recipe": {"extends": "digits", "steps": 4},
        "blocks": [{"n_base": 10, "real": [1], "syn": {"made": [1, 2]}, "copies": [1]}],
    }
    return write_spec(mini)


def touch(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        os.utime(path, (1, 1))


def shrink(folder: Path) -> None:
    for path in list(folder.rglob("1*.png")):
        path.unlink()


def move(folder: Path) -> None:
    folder.rename(folder.with_name(f"{folder.name}-elsewhere"))


def unreadable(folder: Path) -> None:
    """As a disk that was unplugged: what root may read all the same is no folder any more."""
    shutil.rmtree(folder)
    folder.write_bytes(b"")
    folder.chmod(0)


BECAME = {
    "touched": touch, "shrunk": shrink, "moved": move, "gone": shutil.rmtree,
    "a file without rights": unreadable,
}  # fmt: skip


@pytest.fixture
def ran(planned, mini, spec) -> tuple[Store, Path]:
    """A store as a run leaves it, with a row for each cell; and its spec file."""
    loaded = load(str(spec))
    store, the_plan = planned(loaded.model_dump(mode="json"))
    store.put_json(layout.spec("mini"), loaded.model_dump(mode="json"))
    recorded.record(loaded, store, the_plan)
    for cells in the_plan.cells_by_trial().values():
        cell = cells[0]._asdict()
        row = {key: value for key, value in cell.items() if key in results.SCHEMA.names}
        accuracy = 50 + np.log(cells[0].n_total) + cells[0].seed
        row |= {
            "attempt": "a", "status": "ok", "grid": "mini", "dataset": "data", "rev": 1,
            "fingerprint": the_plan.resolved.fingerprint, "n_total": cells[0].n_total,
            "top1": accuracy, "confusion": [10, 10, 10, 10],
            "finished_at": datetime(2026, 11, 29, tzinfo=UTC),
        }  # fmt: skip
        results.write_part(store, row)
    return store, spec


def told(capsys, *arguments) -> str:
    assert entry.outcome([*map(str, arguments)]) is ExitCode.DONE, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.long
def test_commands_say_the_same_whatever_became_of_the_data(
    ran, data, tmp_path, capsys, monkeypatch
):
    store, spec = ran
    places, kept = data.parent, tmp_path / "kept"
    shutil.copytree(places, kept)

    def words(grid: object = "mini") -> list[str]:
        out = tmp_path / "table.csv"
        told(capsys, "table", grid, "--store", store.uri, "--csv", out)
        return [
            told(capsys, "status", grid, "--store", store.uri),
            told(capsys, "grids", "--store", store.uri),
            out.read_text(),
            str(plan_gc(store, recorded_plans(store))),
        ]

    def answers() -> list[str]:
        asked = ("equiv", "mini", "--n-base", 10, "--n-real", 10, "--store", store.uri)
        told(capsys, "report", "mini", "--store", store.uri, "--out", tmp_path / "out")
        size = (tmp_path / "out" / "report.html").stat().st_size
        fitted = told(capsys, "fit", "mini", "--store", store.uri, "--json")
        return [fitted, told(capsys, *asked), str(size)]

    before, before_answers = words(), answers()
    assert "10 of 10 cells have a result" in before[0]
    monkeypatch.delenv("EQUIGRID_TEST_MADE")
    for name, mangle in BECAME.items():
        shutil.rmtree(places)
        shutil.copytree(kept, places)
        for place in (data, data.with_name("made")):
            mangle(place)
        assert words() == before, name
        assert words(spec) == before, name
    assert answers() == before_answers
    assert not list((tmp_path / "out").glob("report-*"))


def test_a_recorded_plan_is_the_plan_that_was_recorded(ran):
    store, spec = ran
    loaded = load(str(spec))
    live, kept = plan(resolve(loaded, store)), recorded.as_run(loaded, store)
    assert list(live.jobs) == list(kept.jobs)
    assert live.cells == kept.cells
    assert live.dataset_folders() == kept.dataset_folders()


def test_a_generators_own_module_may_be_gone_too(planned, mini, tmp_path, capsys):
    module = tmp_path / "made" / "noise.py"
    module.parent.mkdir()
    module.write_text("def sample(label, seed):\n    return None\n")
    own = {"kind": "python", "setting": "open", "module": "noise", "path": str(module.parent)}
    mini["generators"] = {"edm": own}
    store, the_plan = planned(mini)
    loaded = load(mini)
    store.put_json(layout.spec("mini"), loaded.model_dump(mode="json"))
    recorded.record(loaded, store, the_plan)
    before = told(capsys, "status", "mini", "--store", store.uri)
    shutil.rmtree(module.parent)
    assert list(recorded.planned("mini", store).jobs) == list(the_plan.jobs)
    assert told(capsys, "status", "mini", "--store", store.uri) == before
    told(capsys, "grids", "--store", store.uri)


def test_what_the_spec_says_now_is_looked_up_now(ran, data, mini):
    """A record is of the words that were run: other words are not answered by it."""
    store, spec = ran
    loaded = load(str(spec))
    write_images(data.with_name("new"), 20, seed=3, splits=("",))
    entry_now = {"kind": "imported", "path": str(data.with_name("new"))}
    changed = loaded.model_copy(update={"generators": {"made": entry_now}})
    ids = {job.id for job in recorded.as_run(changed, store).of_kind("generator")}
    before = {job.id for job in recorded.as_run(loaded, store).of_kind("generator")}
    assert not ids & before
    shutil.rmtree(data)  # of the data set, the words are the same
    assert {job.id for job in recorded.as_run(changed, store).of_kind("generator")} == ids


def test_a_run_looks_at_the_data_as_it_is(ran, data):
    store, spec = ran
    loaded = load(str(spec))
    assert resolve(loaded, store).dataset is not None
    touch(data)
    assert resolve(loaded, store).dataset is None


@pytest.mark.parametrize("content", [[], {}, {"dataset": 1}, {"dataset": {}, "generators": {}}])
def test_a_record_of_another_form_is_none(ran, content):
    store, spec = ran
    store.put_json(layout.planned("mini"), content)
    assert recording.read(store, "mini") is None
    assert len(recorded.planned("mini", store).cells) == 10


# Nothing is no success ----------------------------------------------------------------------------


@pytest.mark.long
def test_no_result_is_no_success_and_replaces_nothing(ran, tmp_path, capsys):
    store, _ = ran
    out = tmp_path / "out"
    told(capsys, "report", "mini", "--store", store.uri, "--out", out)
    told(capsys, "fit", "mini", "--store", store.uri)
    curves = store.get(layout.analysis("mini", "curves.json"))
    report = (out / "report.html").read_bytes()
    store.delete(*store.list(results.PARTS))
    for command in (
        ["fit", "mini"],
        ["equiv", "mini", "--n-base", "10", "--n-real", "10"],
        ["report", "mini", "--out", str(out)],
        ["table", "mini", "--csv", str(tmp_path / "t.csv")],
    ):
        assert entry.outcome([*command, "--store", store.uri]) is ExitCode.BAD_INPUT
        said = capsys.readouterr()
        assert "grid mini: no result of its 10 cells is in " in said.err
        assert not said.out
    assert (out / "report.html").read_bytes() == report
    assert store.get(layout.analysis("mini", "curves.json")) == curves
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.long
def test_a_report_with_more_results_is_kept_beside_one_with_less(ran, tmp_path, capsys):
    store, _ = ran
    out = tmp_path / "out"
    told(capsys, "report", "mini", "--store", store.uri, "--out", out)
    full = (out / "report.html").read_bytes()
    store.delete(*sorted(store.list(results.PARTS))[:3])
    assert entry.outcome(["report", "mini", "--store", store.uri, "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert f"has more results: it is kept in {out / 'report-10-results'}" in said.replace("\n", "")
    assert (out / "report-10-results" / "report.html").read_bytes() == full
    content = json.dumps((out / "report.html").read_text())
    assert 'equigrid-results\\" content=\\"7\\"' in content


@pytest.mark.parametrize(("key", "value"), [
    ("kind", -1), ("kind", "\x1b[31m[/red]"), ("setting", {"a": 1}), ("balance", None), ("path", []),
])  # fmt: skip
def test_a_record_whose_inside_is_wrong_is_told_and_looked_up_anew(ran, capsys, caplog, key, value):
    """Its digest is right: its outer form is all that its model knows."""
    store, spec = ran
    before = told(capsys, "status", "mini", "--store", store.uri, "--json")
    facts = store.get_json(layout.planned("mini"))
    facts["generators"]["made"]["mapping"][key] = value
    store.put_json(layout.planned("mini"), facts)
    documents._told.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert told(capsys, "status", "mini", "--store", store.uri, "--json") == before
    (record,) = caplog.records
    assert "planned.json is not what a grid was planned with" in record.getMessage()
    assert record.getMessage().isprintable()


def test_rows_that_leave_out_what_they_usually_tell_stop_nothing(ran, capsys):
    store, spec = ran
    first, second, *_ = results.read(store).to_pylist(maps_as_pydicts="strict")
    results.write_part(store, {**first, "attempt": "0", "steps": 5, "seconds": None})
    store.delete(*(name for name in store.list(layout.PARTS) if second["trial_id"] in name))
    results.write_part(store, {**second, "attempt": "b", "status": "failed", "error": None})
    told(capsys, "plan", spec, "--store", store.uri)
    assert entry.outcome(["status", "mini", "--store", store.uri]) is ExitCode.FAILED_CELLS
    assert "it failed" in capsys.readouterr().out
