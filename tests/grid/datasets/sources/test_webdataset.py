"""WebDataset's tars: as people have them, and what is wrong with some."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from equigrid.grid.authoring import looking
from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.errors import UserError


def png(grey: int, side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), grey, np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def write(path, numbers, *, label="cls", form="png", classes=4, key="{:06d}", extra=None):
    """A tar with a sample for each number: one grey, of class number modulo `classes`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            name = key.format(number)
            add(tar, f"{name}.{form}", png(number % 256))
            if label == "cls":
                add(tar, f"{name}.cls", str(number % classes).encode())
            elif label:
                fields = {label: f"kind {number % classes}", **(extra(number) if extra else {})}
                add(tar, f"{name}.json", json.dumps(fields).encode())
    return path


@pytest.fixture
def tars(tmp_path):
    """Two tars of train with 20 samples each, and one of test with 12."""
    folder = tmp_path / "set"
    for k in (0, 1):
        write(folder / f"train-{k:04d}.tar", range(20 * k, 20 * k + 20))
    write(folder / "test-0000.tar", range(100, 112))
    return folder


def source(place, **options):
    return catalogue.source({"webdataset": str(place), **options})


def refused(place, message, **options):
    with pytest.raises(UserError, match=message) as caught:
        source(place, **options)
    assert "\n" not in str(caught.value)


def test_images_and_labels_are_those_of_the_samples(store, tars, images_of):
    found = ingest.ingest(store, source(tars))
    for split, numbers in (("train", range(40)), ("test", range(100, 112))):
        assert images_of(store, getattr(found, split))[:, 3, 5, 0].tolist() == [*numbers]
        labels = catalogue.labels(store, found, split)
        assert labels.tolist() == [n % 4 for n in numbers]
    assert found.shape.classes == tuple("0123")


def test_the_plan_knows_the_shape_and_the_fingerprint_is_of_the_content(store, tars, tmp_path):
    assert source(tars).shape == ingest.ingest(store, source(tars)).shape
    one = ingest.ingest(store, source(tars)).fingerprint
    moved = tars.rename(tmp_path / "moved")
    assert ingest.ingest(store, source(moved)).fingerprint == one


def test_text_in_json_becomes_classes_by_name(store, tmp_path):
    write(tmp_path / "train-0.tar", range(20), label="label")
    write(tmp_path / "test-0.tar", range(12), label="label")
    found = ingest.ingest(store, source(tmp_path))
    assert found.shape.classes == ("kind 0", "kind 1", "kind 2", "kind 3")
    named = source(tmp_path, label="label")
    assert named.classes == found.shape.classes and named.key != source(tmp_path).key


def test_a_pattern_and_one_tar_name_the_same_samples(tars):
    pattern = source(tars / "train-{0000..0001}.tar", test=0.25, group="none")
    alone = source(tars / "train-0000.tar", test=0.25, group="none")
    assert pattern.shape.n_train + pattern.shape.n_test == 40
    assert alone.shape.n_train + alone.shape.n_test == 20


def test_splits_are_also_folders_and_words_inside_of_names(tmp_path):
    write(tmp_path / "a" / "train" / "0.tar", range(20))
    write(tmp_path / "a" / "val" / "0.tar", range(8))
    assert source(tmp_path / "a").shape.n_test == 8
    write(tmp_path / "b" / "imagenet1k-train-0000.tar", range(20))
    write(tmp_path / "b" / "imagenet1k-validation-00.tar", range(8))
    assert source(tmp_path / "b").shape.n_train == 20


def test_broken_images_are_counted_where_that_is_allowed(store, tars):
    with tarfile.open(tars / "train-0002.tar", "w") as tar:
        add(tar, "x.jpg", b"no image")
        add(tar, "x.cls", b"1")
    with pytest.raises(ValueError, match=r"train-0002.tar x"):
        ingest.ingest(store, source(tars, size=8))
    found = ingest.ingest(store, source(tars, size=8, allow_broken=1))
    assert found.shape.n_train == 40 and "train-0002.tar x" in found.broken[0]


def test_copies_are_found_as_in_any_set(store, tars):
    write(tars / "train-0002.tar", [3, 100], key="again{}")
    found = ingest.ingest(store, source(tars))
    assert len(found.repeated) == 1 and found.duplicates["train_test"] == 1


def test_groups_stay_together(store, tmp_path):
    def extra(number):
        return {"patient": number // 2 // 4}

    write(tmp_path / "a.tar", range(64), label="label", classes=2, extra=extra)
    refused(tmp_path, "the .json has 'patient'.*set group: patient, or group: none", test=0.25)
    found = source(tmp_path, test=0.25, group="patient")
    assert found.grouped and "groups by 'patient' kept together" in found.told[-1]
    contents = found.contents()
    sides = []
    for split in ("train", "test"):
        unit = contents.unit(split, 0, contents.counts[split])
        sides.append({int(where.split()[1]) // 8 for _, where, _, _ in contents.raw(unit)})
    assert not sides[0] & sides[1] and all(sides)
    looked = looking.look(str(tmp_path))
    assert looked.dataset["group"] == "patient"


def test_init_and_inspect_find_the_set(tars):
    assert looking.look(str(tars)).dataset == {"webdataset": str(tars)}
    one = looking.look(str(tars / "train-0000.tar"), {"group": "none", "test": 0.2})
    assert one.dataset["webdataset"].endswith("train-0000.tar")
    pattern = looking.look(str(tars / "train-{0000..0001}.tar"), {"group": "none", "test": 0.2})
    assert pattern.source.shape.n_train == 32


def test_a_relative_place_is_relative_to_the_spec(tars, monkeypatch):
    from equigrid.grid.spec.paths import rooted

    assert rooted({"dataset": {"webdataset": "set"}}, tars.parent)["dataset"]["webdataset"] == str(
        tars
    )


# What is wrong ------------------------------------------------------------------------------------


def test_a_missing_tar_is_named(tars):
    write(tars / "train-0003.tar", range(200, 210))
    refused(tars, r"3 of 4 files train-N.tar are there; missing: train-0002…: fetch the rest")
    refused(tars / "train-{0000..0003}.tar", "1 of the 4 files are not there: .*train-0002.tar")
    refused(tars / "train-{0003..0000}.tar", r"\{0003..0000\}.tar names 0 files")
    refused(tars / "{0..99999}{0..99999}.tar", "names 10,000,000,000 files; .* 100,000 .* most")
    for name in ("train-0002-of-0004.tar",):
        (tars / "train-0003.tar").rename(tars / name)
    refused(tars, r"1 of 4 files train-N.tar are there; missing: train-0000…, train-0001…")


def test_a_second_copy_is_refused(tars):
    whole = (tars / "train-0001.tar").read_bytes()
    (tars / "train-0001 (1).tar").write_bytes(whole)
    refused(tars, r"train-0001 \(1\).tar looks like a second copy of train-0001.tar")
    (tars / "train-0001 (1).tar").rename(tars / "train-0002.tar")
    refused(tars, "train-0001.tar and train-0002.tar have the same content; remove one")


def test_a_tar_that_ends_early_is_named(tars):
    whole = (tars / "train-0001.tar").read_bytes()
    (tars / "train-0001.tar").write_bytes(whole[:5_300])
    refused(tars, "train-0001.tar cannot be read as a tar: .*; fetch it again")
    (tars / "train-0001.tar").write_bytes(b"<html>404</html>" * 100)
    refused(tars, "train-0001.tar cannot be read as a tar")
    (tars / "train-0001.tar").write_bytes(b"")
    refused(tars, "train-0001.tar cannot be read as a tar")


def test_samples_without_a_label_are_named(tars):
    write(tars / "train-0002.tar", range(300, 305), label=None)
    refused(tars, r"train-0002.tar: 5 of 5 images have no label \(000300, 000301, 000302, …\)")
    write(tars / "train-0002.tar", range(300, 305), label="label")
    refused(tars, "'000000' has the label 0, '000300' has 'kind 0'; write all as numbers or all")


def test_an_archive_of_class_folders_is_told_to_be_unpacked(tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for name in ("cat/1.png", "dog/1.png"):
            add(tar, f"photos/{name}", png(3))
    refused(tmp_path / "photos.tar", "archive of class folders is to be unpacked", test=0.5)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["a.png", "a.jpg", "a.cls"], "the sample 'a' has 2 images"),
        (["a.cls"], r"the sample 'a' has no image \(cls\)"),
        (["a.png", "a.cls", "b.png", "b.cls", "a.png"], "has the sample 'a' twice"),
        (["a.png", "a.png", "a.cls"], "has 'a.png' twice"),
        (["a.png", "a.json"], "a.json is no JSON"),
    ],
)
def test_odd_samples_are_named(tars, members, message):
    with tarfile.open(tars / "train-0002.tar", "w") as tar:
        for name in members:
            add(tar, name, png(7) if name.endswith(("png", "jpg")) else b"1 {")
    refused(tars, message)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        (
            {"label": [1, 2]},
            {},
            r"'label' of the sample 'a' is \[1, 2\]; classes are whole numbers",
        ),
        ({"label": 1.5}, {}, "'label' of the sample 'a' is 1.5"),
        ({"label": None}, {}, "1 of 1 images have no label"),
        ({"species": 1}, {"label": "specie"}, "has no 'specie'; its .json has species; did you"),
    ],
)
def test_odd_labels_are_named(tmp_path, fields, options, message):
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        add(tar, "a.png", png(7))
        add(tar, "a.json", json.dumps(fields).encode())
    write(tmp_path / "test-0.tar", range(4))
    refused(tmp_path, message, **options)


def test_labels_are_0_to_k_minus_1(tars):
    write(tars / "train-0002.tar", [50], classes=60)
    refused(tars, "50")


def test_what_is_no_set_of_tars(tars, tmp_path):
    refused(tmp_path / "nowhere", "there is no .*nowhere; name a tar, a folder or a pattern")
    refused("s3://bucket/set", "fetch the tars")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no .tar; it has nothing")
    (tmp_path / "empty" / "train-0.tar.gz").write_bytes(b"x")
    refused(tmp_path / "empty", "train-0.tar.gz is compressed")
    (tars / "extra.tar").write_bytes((tars / "test-0000.tar").read_bytes()[:-512])
    refused(tars, "extra.tar is named after no split")
    refused(tars / "train-0000.tar", "has no test tar; add some, or set test: 0.2")
    (tars / "extra.tar").unlink()
    refused(tars, "dataset.test: .* has test-0000.tar already; leave test out", test=0.2)
    (tars / "test-0000.tar").unlink()
    refused(tars, "has no test tar; add some, or set test: 0.2")
