"""Parquet sets that say different things in different files or columns: understood, or refused by
name; never a traceback, never silently another set.
"""

import io
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from equigrid.generators.registry import config
from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.errors import UserError

NAMES = ("cat", "dog", "eel")
TRAIN = [0, 1, 2] * 4
TEST = [0, 1, 2]


def source(folder, **options):
    return catalogue.source({"parquet": str(folder), **options})


def refused(folder, message, **options):
    with pytest.raises(UserError, match=message) as error:
        source(folder, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def pair(tmp_path, write_parquet):
    """Writes a train and a test file."""

    def write(train, test, *, train_names=None, test_names=None, **more):
        folder = tmp_path / "set"
        for split, labels, names in (("train", train, train_names), ("test", test, test_names)):
            own = {name: column[: len(labels)] for name, column in more.items()}
            write_parquet(
                folder / f"{split}-00000-of-00001.parquet", labels, names=names,
                start=len(split), **own,
            )  # fmt: skip
        return folder

    return write


# Classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test_names", [("eel", "dog", "cat"), ("dog", "eel", "cat", "never used")])
def test_classes_are_matched_by_name(pair, store, test_names, images_of, painted):
    folder = pair(TRAIN, TEST, train_names=NAMES, test_names=test_names)
    dataset = ingest.ingest(store, source(folder))
    assert dataset.shape.classes == NAMES
    found = [dataset.shape.classes[label] for label in catalogue.labels(store, dataset, "test")]
    assert found == list(test_names[:3])
    assert (images_of(store, dataset.test)[2] == painted(4, 2)).all()
    assert "0 cat, 1 dog, 2 eel" in dataset.told[0]


def test_names_and_text_are_one_form(pair, store):
    dataset = ingest.ingest(store, source(pair(TRAIN, ["eel", "cat", "dog"], train_names=NAMES)))
    assert catalogue.labels(store, dataset, "test").tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("train", "test", "options", "message"),
    [
        (TRAIN, TEST, {"train_names": NAMES, "test_names": ("cat", "dog", "fox")},
         "test-.* has class 'fox', which train-.* does not name .it names cat, dog, eel"),
        (TRAIN, ["cat", "dog", "ant"], {"train_names": NAMES}, "test-.* has class 'ant'"),
        (TRAIN, TEST, {"train_names": ("cat", "cat", "eel")}, "train-.* names the class 'cat' twice"),
        (TRAIN, TEST, {"train_names": ("caf\u00e9", "cafe\u0301", "eel")}, "names the class 'café' twice"),
        (TRAIN, TEST, {"train_names": ("cat", " ", "eel")}, "names a class ' '"),
        (TRAIN, TEST, {"train_names": NAMES}, "numbers with names in train-.* and numbers in test-"),
        (TRAIN, list("abc"), {}, "'label' is numbers in train-.* and text in test-.*; write the classes in one form"),
        ([True, False], [1, 0], {}, "true and false in train-.* and numbers in test-"),
        (TRAIN, [0, 1, 3], {"train_names": NAMES, "test_names": NAMES},
         "test-.*: label 3 in 'label'; it names 3 classes, so labels are 0 to 2"),
        (TRAIN, [0, 1, -1], {"train_names": NAMES, "test_names": NAMES}, "test-.*: label -1"),
        (list("aabbcc"), list("aab"), {}, "column 'label': no image in test has class 'c'"),
        (list("aabb"), list("abz"), {}, "no image in train has class 'z'"),
        (["a", "b", None], list("ab"), {}, "train-.*: 1 of 3 rows have no label"),
        (["a", "b", ""], list("ab"), {}, "'label' has the class ''"),
        (["a", "b", "x\ny"], list("ab"), {}, r"'label' has the class 'x\\ny'"),
        ([0.0, 1.0, 0.5], [0.0, 1.0], {}, "train-.*: 'label' holds 0.5; classes are whole numbers"),
        ([0.0, 1.0, float("nan")], [0.0, 1.0], {}, "1 of 3 rows have no label"),
        ([[0], [0, 1], [1]], [[0], [1]], {}, "'label' is list.*: several labels an image"),
        (pa.array([2**63, 1], pa.uint64()), [0, 1], {}, "'label' holds 9223372036854775808; labels are 0 to k-1"),
    ],
)  # fmt: skip
def test_what_cannot_be_matched_is_refused_by_file_and_class(pair, train, test, options, message):
    refused(pair(train, test, **options), message)


@pytest.mark.parametrize(
    ("train", "test", "classes"),
    [
        (["eel", "cat", "dog"], ["cat", "dog", "eel"], NAMES),
        (["caf\u00e9", "tea"], ["cafe\u0301", "tea"], ("caf\u00e9", "tea")),
        ([True, False, True], [False, True], ("False", "True")),
        ([1.0, 0.0, 1.0], [0.0, 1.0], ("0", "1")),
        (pa.array(["b", "a"]).dictionary_encode(), ["a", "b"], ("a", "b")),
        (pa.array([1, 0], pa.uint8()), pa.array([0, 1], pa.int32()), ("0", "1")),
        (pa.array(["b", "a"], pa.large_string()), ["a", "b"], ("a", "b")),
    ],
)
def test_text_categories_and_truth_become_classes_by_name(pair, store, train, test, classes):
    dataset = ingest.ingest(store, source(pair(train, test)))
    assert dataset.shape.classes == classes
    assert all(dataset.shape.test_counts)


# Columns ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["is_flipped", "image_id", "label_id", "fine_label"])
def test_a_column_called_label_is_used_whatever_its_type(pair, store, other):
    text = [NAMES[i] for i in TRAIN]
    folder = pair(text, text[:3], **{other: [0, 1] * 6})
    dataset = ingest.ingest(store, source(folder))
    assert dataset.shape.classes == NAMES
    assert dataset.told[0].startswith(
        "images are column 'image', classes column 'label': 3 classes"
    )
    assert catalogue.lookup(store, source(folder).key).told == dataset.told  # in the manifest


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"breed": list("abab"), "is_flipped": [0, 1, 0, 1]}, {}, "which column is the label\\? Say label: NAME, of breed, is_flipped"),
        ({"image_id": [7, 8, 9, 10]}, {}, "which column is the label.* of image_id"),
        ({"label": [None] * 4, "flag": [0, 1, 0, 1]}, {}, "'label' is null; classes are"),
        ({"Label": [{"a": 1}] * 4, "flag": [0, 1, 0, 1]}, {}, "'Label' is struct"),
        ({"label": [0, 1, 0, 1]}, {"label": "lable"}, "no column 'lable'; there are image, label; did you mean 'label'"),
        ({"label": [0, 1, 0, 1]}, {"image": "label"}, "image: 'label' is int64; encoded images are needed"),
        ({"label": [0, 1, 0, 1], "image": list("abcd")}, {}, "'image' is text .paths or addresses"),
        ({"label": [0, 1, 0, 1], "image": [[[1, 2]]] * 4}, {}, "'image' is list"),
        ({"label": [0, 1, 0, 1], "image": None}, {}, "no column can be the image; there are label"),
        ({"label": [0, 1, 0, 1], "image": None, "a": [b"1"] * 4, "b": [b"1"] * 4}, {}, "which column is the image\\? .* of a, b"),
        ({"label": [9, 10, 11, 12]}, {}, "column 'label': 13 classes .label 12. and 4 images in train"),
    ],
)  # fmt: skip
def test_columns_that_are_none_or_several(tmp_path, encode, painted, columns, options, message):
    images = [{"bytes": encode(painted(i)), "path": None} for i in range(4)]
    table = {name: column for name, column in ({"image": images} | columns).items() if column}
    for split in ("train", "test"):
        pq.write_table(pa.table(table), tmp_path / f"{split}.parquet")
    refused(tmp_path, message, **options)


def test_bare_bytes_are_images(tmp_path, write_parquet, store, images_of, painted):
    for split, labels in (("train", TRAIN), ("test", TEST)):
        write_parquet(tmp_path / f"{split}.parquet", labels, bare=True, start=len(split))
    dataset = ingest.ingest(store, source(tmp_path))
    assert (images_of(store, dataset.train)[7] == painted(5, 7)).all()


def test_every_file_needs_the_columns(tmp_path, write_parquet):
    write_parquet(tmp_path / "train-0.parquet", TRAIN)
    write_parquet(tmp_path / "train-1.parquet", TRAIN, label="labels", start=1)
    write_parquet(tmp_path / "test-0.parquet", TEST, start=2)
    refused(tmp_path, "train-1.parquet has no column 'label'; all files need it")
    table = pq.read_table(tmp_path / "train-0.parquet")
    twice = pa.Table.from_arrays(
        [*table.columns, table["label"]], names=["image", "label", "label"]
    )
    pq.write_table(twice, tmp_path / "train-1.parquet")
    refused(tmp_path, "train-1.parquet has 2 columns 'label'; rename all but one")


def test_a_column_with_a_dot_in_its_name(tmp_path, write_parquet, store):
    for split, labels in (("train", TRAIN), ("test", TEST)):
        write_parquet(
            tmp_path / f"{split}.parquet",
            labels,
            label="a.label",
            image="an.image",
            start=len(split),
        )
    dataset = ingest.ingest(store, source(tmp_path))
    assert dataset.shape.train_counts == (4, 4, 4)


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train-00000-of-00003", "test-00000-of-00001"],
         "1 of 3 files of train are there; train-00001-of-00003.parquet, train-00002-of-00003.parquet missing"),
        (["train-00000-of-00001", "test-00001-of-00002"], "1 of 2 files of test are there; test-00000-of-00002"),
        (["train-00000-of-00001", "train-00000-of-00002", "train-00001-of-00002", "test"],
         "of two different numbers of files: old and new"),
        (["train-00000-of-00001-0123456789abcdef", "train-00000-of-00001-fedcba9876543210", "test"],
         "are both number 0 of 1; remove one"),
        (["train-00000-of-00001", "train-00000-of-00001 (1)", "test"], "looks like a second copy of train-00000-of-00001.parquet"),
        (["train-00000-of-00001 (1)", "test"], "train-00000-of-00001 .1..parquet looks like a second copy"),
        (["train-00000-of-00001", "train-00000-of-00001 - Copy", "test"], "looks like a second copy"),
        (["train-00000-of-00001", "train-00000-of-00001_old", "test"], "has something behind its number"),
        (["train", "train (2)", "test"], "train .2..parquet looks like a second copy of train.parquet"),
        (["train-00000-of-00001", "train-00003-of-00001", "test"], "train-00003-of-00001.parquet is beyond"),
    ],
)  # fmt: skip
def test_files_that_are_missing_or_doubled(tmp_path, write_parquet, files, message):
    for i, name in enumerate(files):
        write_parquet(tmp_path / f"{name}.parquet", TRAIN, start=i)
    refused(tmp_path, message)
    with pytest.raises(ValueError, match=message):
        config({"kind": "imported", "path": str(tmp_path)}).capacity(("0", "1", "2"))


def test_the_same_content_under_two_names_is_refused(tmp_path, write_parquet):
    write_parquet(tmp_path / "train-a.parquet", TRAIN)
    shutil.copy(tmp_path / "train-a.parquet", tmp_path / "train-b.parquet")
    write_parquet(tmp_path / "test-0.parquet", TEST, start=1)
    refused(tmp_path, "train-a.parquet and train-b.parquet have the same content; remove one")


@pytest.mark.parametrize("names", [(0, 1), (1, 2)])
def test_whole_uploads_are_taken(tmp_path, write_parquet, names):
    for k in names:
        write_parquet(tmp_path / f"train-{k:05d}-of-00002-0a1b2c3d4e5f.parquet", TRAIN, start=k)
    write_parquet(tmp_path / "test.parquet", TEST, start=3)
    (tmp_path / "._train-00000-of-00002.parquet").write_text("AppleDouble")
    assert source(tmp_path).shape.n_train == 24


@pytest.mark.parametrize(
    "layout",
    ["data/{}-00000-of-00001.parquet", "data/{}/0000.parquet", "{}/0000.parquet", "plain_text/{}.parquet",
     "default/{}/0000.parquet"],
)  # fmt: skip
def test_a_cloned_repository_is_found(tmp_path, write_parquet, store, layout):
    for split, labels in (("train", TRAIN), ("test", TEST)):
        write_parquet(tmp_path / "repo" / layout.format(split), labels, start=len(split))
    (tmp_path / "repo" / "README.md").write_text("a card")
    (tmp_path / "repo" / ".git").mkdir()
    dataset = ingest.ingest(store, source(tmp_path / "repo"))
    assert (dataset.shape.n_train, dataset.shape.n_test) == (12, 3)
    made = config({"kind": "imported", "path": str(tmp_path / "repo"), "split": "train"})
    assert made.capacity(("0", "1", "2")) == 12
    assert len(list(made.listing().read([made.listing().images[5].place]))) == 1


def test_a_column_that_names_splits_is_followed(tmp_path, write_parquet):
    """Also where `split:` does not say so; test: would divide anew what is divided."""
    root = tmp_path / "set"
    for k in range(2):
        splits = ["train"] * 8 + ["test"] * 4
        write_parquet(root / f"part{k}.parquet", [0, 1] * 6, start=k, subset=splits)
    found = catalogue.source({"parquet": str(root)})
    assert (found.shape.train_counts, found.shape.test_counts) == ((8, 8), (4, 4))
    assert "splits are column 'subset'" in found.told
    assert found.key == catalogue.source({"parquet": str(root), "split": "subset"}).key
    with pytest.raises(UserError, match="dataset.test: .* has the column 'subset' of splits"):
        catalogue.source({"parquet": str(root), "test": 0.2})


@pytest.mark.parametrize(
    "cells", [["train"] * 12, ["train", "b"] * 6, ["train"] * 11 + [None], list(range(12))]
)
def test_a_column_of_other_words_is_no_split(tmp_path, write_parquet, cells):
    write_parquet(tmp_path / "all.parquet", [0, 1] * 6, subset=cells)
    found = catalogue.source({"parquet": str(tmp_path), "test": 0.25})
    assert found.split_here and found.shape.n_test == 4


def test_a_column_of_cases_is_a_group_where_they_come_back(tmp_path, write_parquet):
    """One image a case leaks nothing; several do, whatever word says it."""
    labels = [0, 1] * 12
    write_parquet(tmp_path / "one/a.parquet", labels, case_id=[f"c{i}" for i in range(24)])
    found = catalogue.source({"parquet": str(tmp_path / "one"), "test": 0.25})
    assert found.shape.test_counts == (3, 3)
    for i, column in enumerate(("Case", "study_uid", "slide", "video_id")):
        root = tmp_path / str(i)
        write_parquet(root / "a.parquet", labels, **{column: [f"c{i // 4}" for i in range(24)]})
        with pytest.raises(UserError, match=f"there is a column '{column}'.*set group: {column}"):
            catalogue.source({"parquet": str(root), "test": 0.25})
    gaps = [None if i % 3 else f"c{i // 12}" for i in range(24)]
    write_parquet(tmp_path / "gaps/a.parquet", labels, patient=gaps)
    with pytest.raises(UserError, match="there is a column 'patient'"):
        catalogue.source({"parquet": str(tmp_path / "gaps"), "test": 0.25})


def test_two_configurations_are_not_guessed_between(tmp_path, write_parquet):
    for name in ("large", "small"):
        write_parquet(tmp_path / name / "train.parquet", TRAIN)
    refused(tmp_path, r"Parquet files in several folders \(large, small\); name one of them")


def test_files_of_no_split_are_told(tmp_path, write_parquet, store):
    for i, name in enumerate(("train", "test", "extra")):
        write_parquet(tmp_path / f"{name}.parquet", TRAIN, start=i)
    assert ingest.ingest(store, source(tmp_path)).skipped == (
        "extra.parquet (named after no split)",
    )


# Splits -------------------------------------------------------------------------------------------


def test_a_split_of_ones_own(tmp_path, write_parquet, store, images_of, painted):
    write_parquet(tmp_path / "all.parquet", [0, 1, 2] * 20)
    src = source(tmp_path, test=0.2, val=0.1)
    assert src.shape.test_counts == (4, 4, 4)
    assert src.shape.val_counts == (2, 2, 2)
    dataset = ingest.ingest(store, src)
    assert dataset.shape == src.shape
    everything = np.concatenate(
        [images_of(store, part) for part in (dataset.train, dataset.val, dataset.test)]
    )
    assert {image.tobytes() for image in everything} == {painted(0, i).tobytes() for i in range(60)}
    for split, refs in (("train", dataset.train), ("test", dataset.test)):
        labels = catalogue.labels(store, dataset, split)
        for image, label in zip(images_of(store, refs), labels):
            (i,) = [i for i in range(60) if (painted(0, i) == image).all()]
            assert label == i % 3
    again = source(tmp_path / "all.parquet", test=0.2, val=0.1)
    assert ingest.ingest(store, again).fingerprint == dataset.fingerprint
    other = ingest.ingest(store, source(tmp_path, test=0.2, val=0.1, split_seed=1))
    assert other.fingerprint != dataset.fingerprint
    assert "split here with seed 0, by class: 42 train, 6 val, 12 test images" in dataset.told


def test_a_column_of_splits(tmp_path, write_parquet, store):
    split = ["train", "Training", "test"] * 4
    write_parquet(tmp_path / "all.parquet", [0, 0, 0, 1, 1, 1] * 2, split=split)
    assert source(tmp_path, split="split").shape.test_counts == (2, 2)
    refused(
        tmp_path, "all.parquet has no column 'spilt'; it has image, label, split", split="spilt"
    )
    write_parquet(tmp_path / "all.parquet", [0, 1] * 6, split=["train", "holdout", "test"] * 4)
    refused(
        tmp_path, "column 'split': 'holdout' is no split; write train, val or test", split="split"
    )


def test_patients_stay_on_one_side(tmp_path, write_parquet, store):
    patient = [f"p{i // 3}" for i in range(60)]
    write_parquet(tmp_path / "all.parquet", [i // 3 % 2 for i in range(60)], patient_id=patient)
    message = refused(tmp_path, "there is a column 'patient_id': if these are groups", test=0.2)
    assert "set group: patient_id, or group: none if they are not" in message
    src = source(tmp_path, test=0.2, group="patient_id")
    assert src.grouped
    rows = src.contents.args[0].rows
    sides = {split: {patient[i] for i in places} for split, places in rows.items()}
    assert not sides["train"] & sides["test"]
    assert len(sides["test"]) == 4
    assert src.shape.test_counts == (6, 6)
    assert source(tmp_path, test=0.2, group="none").shape.n_test == 12
    refused(tmp_path, "dataset.group: all.parquet has no column 'patent'", test=0.2, group="patent")


def test_patients_on_two_sides_of_a_given_split(tmp_path, write_parquet):
    write_parquet(tmp_path / "train.parquet", [0, 1] * 3, patient=list("aabbcc"))
    write_parquet(tmp_path / "test.parquet", [0, 1], patient=list("cd"), start=1)
    refused(tmp_path, "1 groups, such as 'c', have images in train and in test", group="patient")
    (told,) = source(tmp_path).told[1:]
    assert told.startswith("1 of the 2 values of 'patient' in test are in train too")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 20}, "dataset.test: 20; write the part of the images to hold back, such as 0.2"),
        ({"test": 1.5}, "dataset.test: 1.5"),
        ({"test": 0.6, "val": 0.5}, "leave nothing to train on"),
        ({"test": 0.2, "split_seed": -1}, "dataset.split_seed: -1"),
        ({"split_seed": "a"}, "dataset.split_seed: 'a'"),
        ({"test": 0.2, "group": ""}, "dataset.group: ''"),
        ({"duplicates": "dorp"}, "dataset.duplicates: 'dorp'; write keep, drop, refuse"),
        ({"range": [5, 5]}, "dataset.range: .5, 5.; write the lowest and the highest grey level"),
        ({"range": [0]}, "dataset.range"),
        ({"range": "0-4095"}, "dataset.range"),
        ({"channels": 4}, "dataset.channels: 4; 1 keeps grey images grey, 3 makes all RGB"),
    ],
)
def test_wrong_options(tmp_path, write_parquet, options, message):
    write_parquet(tmp_path / "all.parquet", TRAIN)
    refused(tmp_path, message, **options)


def test_a_test_split_that_is_there_is_not_made_again(pair):
    refused(pair(TRAIN, TEST), "test-00000-of-00001.parquet already; leave test out", test=0.2)


def test_a_class_of_one_image_cannot_be_split(tmp_path, write_parquet):
    write_parquet(tmp_path / "all.parquet", [*"aaaaabbbbb", "c"])
    refused(
        tmp_path, "class 'c' has one image, which cannot be both in train and in test", test=0.2
    )


# Sizes --------------------------------------------------------------------------------------------


def test_mixed_sizes_are_found_before_anything_runs(pair):
    folder = pair(TRAIN, TEST)
    assert source(folder).check() is None
    large = io.BytesIO()
    Image.new("RGB", (9, 12)).save(large, "PNG")
    table = pq.read_table(folder / "test-00000-of-00001.parquet").to_pydict()
    table["image"][1]["bytes"] = large.getvalue()
    pq.write_table(pa.table(table), folder / "test-00000-of-00001.parquet")
    with pytest.raises(UserError, match="the first is 8×8, test-.* row 1 is 12×9.*set size"):
        source(folder).check()
    assert source(folder, size=8).check is None


# Pools --------------------------------------------------------------------------------------------


def test_a_pool_of_two_files_with_names_in_another_order(tmp_path, write_parquet):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", TRAIN, names=NAMES)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", TRAIN, names=NAMES[::-1], start=1)
    listing = config({"kind": "imported", "path": str(tmp_path)}).listing()
    expected = [NAMES[i] for i in TRAIN] + [NAMES[::-1][i] for i in TRAIN]
    assert [image.label for image in listing.images] == expected
    path = tmp_path / "train-00001-of-00002.parquet"
    os.remove(path)
    write_parquet(path, TRAIN, start=1)
    with pytest.raises(
        ValueError, match="numbers with names in train-00000.* and numbers in train-00001"
    ):
        config({"kind": "imported", "path": str(tmp_path), "split": "train"}).capacity(NAMES)


def test_metadata_that_is_no_list_of_names_is_passed_over(tmp_path, write_parquet):
    for text in (
        "not json",
        "[]",
        '{"info": 3}',
        json.dumps({"info": {"features": {"label": {"names": 3}}}}),
    ):
        for split, labels in (("train", TRAIN), ("test", TEST)):
            path = write_parquet(tmp_path / f"{split}.parquet", labels, start=len(split))
            table = pq.read_table(path).replace_schema_metadata({"huggingface": text})
            pq.write_table(table, path)
        assert source(tmp_path).classes == ("0", "1", "2")


def test_pointers_and_damage_are_told_by_file(tmp_path, write_parquet):
    path = write_parquet(tmp_path / "train-00000-of-00001.parquet", TRAIN)
    write_parquet(tmp_path / "test.parquet", TEST, start=1)
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    refused(tmp_path, "train-00000-of-00001.parquet cannot be read as Parquet")
    column = pq.ParquetFile(tmp_path / "test.parquet").metadata.row_group(0).column(2)
    start = column.dictionary_page_offset or column.data_page_offset
    path.write_bytes(data)
    assert column.path_in_schema == "label"
    damaged = bytearray((tmp_path / "test.parquet").read_bytes())
    damaged[start : start + 20] = b"\xff" * 20
    (tmp_path / "test.parquet").write_bytes(bytes(damaged))
    refused(tmp_path, "test.parquet: 'label' cannot be read")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(
        tmp_path,
        "train-00000-of-00001.parquet is a pointer of Git LFS, not the file; run git lfs pull",
    )


def test_a_name_that_claims_endless_files(tmp_path, write_parquet):
    write_parquet(tmp_path / "train-00000-of-9999999999999.parquet", TRAIN)
    write_parquet(tmp_path / "test.parquet", TEST, start=1)
    refused(tmp_path, "1 of 9999999999999 files of train are there")
