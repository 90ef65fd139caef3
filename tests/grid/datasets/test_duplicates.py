"""Images that are there twice: told, listed, and never on two sides."""

import json

import numpy as np
import pytest

from equigrid.grid.datasets import catalogue, ingest, subsets
from equigrid.grid.errors import UserError
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import Store

CLASSES = 3


@pytest.fixture
def twice(tmp_path, encode, painted):
    """Parquet-free: an .npz of 30 different training images, each of which is there twice, and a
    test set of nine, one of them in train too.
    """
    images = np.stack([painted(i) for i in range(30)])
    labels = np.arange(30) % CLASSES
    test = np.stack([painted(100 + i) for i in range(8)] + [images[4]])
    np.savez(
        tmp_path / "twice.npz",
        train_images=np.concatenate([images, images]),
        train_labels=np.concatenate([labels, labels]),
        test_images=test,
        test_labels=np.arange(9) % CLASSES,
    )
    return {"npz": str(tmp_path / "twice.npz")}


def spec(dataset: dict, **block) -> dict:
    return {
        "name": "t", "dataset": dataset, "recipe": {"extends": "digits", "steps": 2},
        "classifiers": ["digits-cnn"], "seeds": [0], "quality": "off", "execution": {"gpus": 0},
        "blocks": [{"n_base": [10], **block}],
    }  # fmt: skip


def test_copies_within_train_are_told_and_listed(twice, store):
    dataset = ingest.ingest(store, catalogue.source(twice))
    assert dataset.shape.n_train == 60
    assert dataset.repeated == tuple(range(30, 60))
    assert dataset.repeated_counts == (10, 10, 10)
    content = json.loads(store.get(dataset.manifest))
    assert content["duplicates"]["train"] == 30
    assert content["duplicates"]["first"]["train"][:2] == [[0, 30], [1, 31]]
    assert "30 of 60 train images repeat an earlier one: no subset" in dataset.warnings[0]
    assert "1 of 9 test images are in train too" in dataset.warnings[1]


def test_copies_under_another_class_are_told(tmp_path, store, painted):
    images = np.stack([painted(i) for i in (0, 1, 2, 0)])
    np.savez(
        tmp_path / "x.npz", train_images=images, train_labels=np.array([0, 1, 1, 1]),
        test_images=images[:2], test_labels=np.array([0, 1]),
    )  # fmt: skip
    dataset = ingest.ingest(store, catalogue.source({"npz": str(tmp_path / "x.npz")}))
    assert dataset.duplicates["labels"] == 1
    assert "repeat an earlier one, 1 of them under another class" in dataset.warnings[0]


def test_the_fingerprint_is_another_for_sets_with_copies_alone(twice, store):
    assert (
        ingest.ingest(store, catalogue.source("digits")).fingerprint == "data-596ff5ae9c7a219f9d50"
    )
    kept = ingest.ingest(store, catalogue.source(twice))
    dropped = ingest.ingest(store, catalogue.source(twice | {"duplicates": "drop"}))
    assert kept.fingerprint != dropped.fingerprint
    assert kept.train[0].data != dropped.train[0].data


def test_copies_dropped_leave_the_set_as_if_they_had_never_been_there(tmp_path, twice, store):
    with np.load(twice["npz"]) as arrays:
        changed = dict(arrays)
    keep = [i for i in range(30) if i != 4]  # the one that is tested on stays in test
    changed |= {name: changed[name][keep] for name in ("train_images", "train_labels")}
    np.savez(tmp_path / "once.npz", **changed)
    clean = ingest.ingest(store, catalogue.source({"npz": str(tmp_path / "once.npz")}))
    src = catalogue.source(twice | {"duplicates": "drop"})
    assert src.shape is None  # only reading will tell
    dropped = ingest.ingest(store, src)
    assert dropped.fingerprint == clean.fingerprint
    assert dropped.shape == clean.shape
    assert dropped.repeated == ()
    assert (
        "31 copies are left out, such as train: image 4 is held back for testing too"
        in " ".join(dropped.told)
    )
    left_out = json.loads(store.get(dropped.manifest))["left_out"]
    assert len(left_out) == 31
    assert "train: image 4 is held back for testing too" in left_out
    reads = []
    assert ingest.ingest(store, src, report=lambda done, _: reads.append(done)) == dropped
    assert reads[-1] == 38  # what is left out is known, nothing is cut twice


def test_drop_over_several_shards_and_broken_images(tmp_path, store, write_parquet):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = write_parquet(tmp_path / "train-0.parquet", [0, 1] * 600)
    table = pq.read_table(path).to_pydict()
    table["image"][3]["bytes"] = b"broken"
    for at, of in ((700, 5), (1100, 5), (1150, 9)):
        table["image"][at] = table["image"][of]
    pq.write_table(pa.table(table), path)
    write_parquet(tmp_path / "test-0.parquet", [0, 1], start=1)
    spec = {"parquet": str(tmp_path), "allow_broken": 1, "duplicates": "drop"}
    dataset = ingest.ingest(store, catalogue.source(spec))
    left = json.loads(store.get(dataset.manifest))["left_out"]
    assert left == [
        f"train: image {a} is image {b} again" for a, b in ((700, 5), (1100, 5), (1150, 9))
    ]
    assert dataset.shape.n_train == 1196
    assert [ref.n for ref in dataset.train] == [512, 512, 172]


def test_refuse_names_some(twice, store):
    src = catalogue.source(twice | {"duplicates": "refuse"})
    with pytest.raises(
        ValueError,
        match="twice: 31 copies, such as train: image 4 is held back for testing too; remove them",
    ):
        ingest.ingest(store, src)
    assert catalogue.lookup(store, src.key) is None
    clean = ingest.ingest(store, catalogue.source({"digits": None, "duplicates": "refuse"}))
    assert clean.fingerprint == "data-596ff5ae9c7a219f9d50"


# Never on two sides -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_no_copy_is_in_a_base_and_in_what_is_added(seed):
    rng = np.random.default_rng(seed)
    identity = rng.integers(0, 60, 100)  # which picture each image shows
    labels = identity % CLASSES
    _, first = np.unique(identity, return_index=True)
    repeated = np.setdiff1d(np.arange(100), first)
    before = np.empty(0, int)
    for n in range(len(first) - 7 + 1):
        chosen = subsets.subset(labels, n, seed, held_out=7, repeated=repeated)
        assert np.isin(before, chosen).all()  # they nest
        added = np.setdiff1d(chosen, before)
        assert not np.isin(identity[added], identity[before]).any()
        held = subsets.held_out(labels, 7, repeated)
        assert not np.isin(identity[chosen], identity[held]).any()
        assert len(set(identity[chosen])) == n
        before = chosen
    with pytest.raises(ValueError, match="besides 7 held out that differ"):
        subsets.subset(labels, len(first) - 6, seed, held_out=7, repeated=repeated)
    assert len(subsets.subset(labels, 100, seed, repeated=repeated)) == 100  # the whole set


def test_a_plan_counts_different_images(twice, tmp_path):
    store = Store(tmp_path / "store", create=True)

    def planned(**block):
        resolved = resolve(load(spec(twice, **block)), store)
        return plan(resolved.with_dataset(ingest.ingest(store, resolved.source)))

    cells = planned(real=["all"]).cells
    assert [cell.n_total for cell in cells] == [10, 30]
    assert [cell.n_base for cell in planned(n_base=["all"]).cells] == [60]
    with pytest.raises(
        UserError, match="n_base: 45, and twice has 30 different training images, 60 with copies"
    ):
        planned(n_base=[45])
    with pytest.raises(
        UserError, match="21 real images to add to 10; twice has 20 more that differ"
    ):
        planned(real=["21 images"])


def test_a_job_gets_no_copy(twice, tmp_path, planned, request_of):
    from equigrid.grid.jobs import inputs

    store, the_plan = planned(spec(twice, real=[1], copies=[1]))
    for job in the_plan.of_kind("trial"):
        request = request_of(store, the_plan, job)
        payload = job.payload
        real = inputs.real_indices(request, payload.real)
        assert (real < 30).all()
        if payload.copies:
            of = payload.dataset
            again = inputs.copies_indices(request, payload.real, payload.copies.n, dataset=of)
            assert np.isin(again, real).all()


def test_a_split_made_here_has_no_copy_on_two_sides(tmp_path, store, write_tree, encode, painted):
    root = write_tree(tmp_path / "set", [f"{c}/{i}.png" for c in "ab" for i in range(20)])
    for name in "ab":
        for i in range(10):  # half of each class a second time, in another format: other bytes
            again = encode(np.asarray(_open(root / name / f"{i}.png")), "BMP")
            (root / name / f"{i + 100}.bmp").write_bytes(again)
    src = catalogue.source({"imagefolder": str(root), "test": 0.3, "val": 0.2})
    dataset = ingest.ingest(store, src)
    assert not any(n for pair, n in dataset.duplicates.items() if "_" in pair)
    assert any("copies are left out" in line for line in dataset.told)


def _open(path):
    from PIL import Image

    return Image.open(path)


def test_groups_are_not_torn_by_held_out_images(tmp_path, write_tree):
    names = [f"{'ab'[p % 2]}/patient{p:02d}_{i}.png" for p in range(20) for i in range(4)]
    place = {"imagefolder": str(write_tree(tmp_path / "set", names)), "test": 0.2, "val": 0.1}
    grouped = spec(place | {"group": r"(patient\d+)"}) | {"validation": {"images": 5}}
    with pytest.raises(UserError, match="5 images would tear groups of set apart; set val: 0.1"):
        plan(resolve(load(grouped), None))
    grouped["validation"] = {"images": "own"}
    assert plan(resolve(load(grouped), None)).cells
