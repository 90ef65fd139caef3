"""Trees of image files: a class a folder, and ImageNet's classes by their WordNet ids."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.datasets.sources import imagenet
from equigrid.grid.errors import UserError


def paint(path, seed, size=(8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed, size)).save(path)


def pixels(seed, size=(8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def tree(root, *, splits=("train", "test"), classes=("ant", "bee"), n=3):
    """n images in each class of each split; image i of class c in split s is painted by (s, c,
    i).
    """
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            for i in range(n):
                paint(root / split / name / f"{i}.png", (s, c, i))
    return root


def imagenet_tree(root, wnids, n=2):
    for s, split in enumerate(("train", "val")):
        for c, wnid in enumerate(wnids):
            for i in range(n):
                paint(root / split / wnid / f"{wnid}_{i}.JPEG", (s, c, i), (12, 16))
    return root


def test_classes_are_folders_and_images_come_in_the_order_of_their_names(
    tmp_path, store, images_of
):
    root = tree(tmp_path / "set", classes=("bee", "ant"))
    paint(root / "train" / "bee" / "more" / "deep.png", 7)
    src = catalogue.source({"imagefolder": str(root)})
    dataset = ingest.ingest(store, src)
    assert dataset.name == "set"
    assert dataset.shape == src.shape
    assert dataset.shape.classes == ("ant", "bee")
    assert dataset.shape.train_counts == (3, 4)
    expected = (
        [pixels((0, 1, i)) for i in range(3)] + [pixels((0, 0, i)) for i in range(3)] + [pixels(7)]
    )
    assert (images_of(store, dataset.train) == expected).all()
    assert catalogue.labels(store, dataset, "train").tolist() == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [
        (("train", "test", "val"), (6, 6, 6)),
        (("train", "validation"), (6, 0, 6)),
        (("train", "val"), (6, 0, 6)),
    ],
)
def test_val_is_tested_on_where_there_is_no_test(tmp_path, store, splits, sizes, images_of):
    src = catalogue.source({"imagefolder": str(tree(tmp_path / "set", splits=splits))})
    assert (src.shape.n_train, src.shape.n_val, src.shape.n_test) == sizes
    dataset = ingest.ingest(store, src)
    assert dataset.shape == src.shape
    assert (images_of(store, dataset.test)[0] == pixels((1, 0, 0))).all()


def test_a_moved_folder_is_the_same_dataset_and_a_changed_one_is_not(tmp_path, store):
    root = tree(tmp_path / "set")
    before = catalogue.source({"imagefolder": str(root)})
    assert catalogue.source({"imagefolder": str(root)}).key == before.key
    first = ingest.ingest(store, before)
    shutil.move(root, tmp_path / "moved")
    moved = catalogue.source({"imagefolder": str(tmp_path / "moved")})
    assert catalogue.lookup(store, moved.key) is None
    assert ingest.ingest(store, moved).fingerprint == first.fingerprint
    path = tmp_path / "moved" / "train" / "ant" / "1.png"
    facts = path.stat()
    paint(path, 99)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    changed = catalogue.source({"imagefolder": str(tmp_path / "moved")})
    assert changed.key != moved.key
    assert ingest.ingest(store, changed).fingerprint != first.fingerprint


def test_what_is_no_image_is_passed_over_and_what_claims_to_be_one_is_broken(tmp_path, store):
    root = tree(tmp_path / "set")
    clean = ingest.ingest(store, catalogue.source({"imagefolder": str(root)}))
    for name in (".DS_Store", "Thumbs.db", "notes.txt", "._0.png"):
        (root / "train" / "bee" / name).write_text("x")
    (root / ".hidden").mkdir()
    (root / "train" / ".git").mkdir()
    (root / "train" / "README").write_text("x")
    dataset = ingest.ingest(store, catalogue.source({"imagefolder": str(root)}))
    assert dataset.fingerprint == clean.fingerprint
    assert sorted(dataset.skipped) == [
        f"train/bee/{name}" for name in (".DS_Store", "._0.png", "Thumbs.db", "notes.txt")
    ]
    assert any("4 files are no images" in line for line in dataset.warnings)
    (root / "train" / "ant" / "1b.jpg").write_text("x")
    with pytest.raises(
        ValueError,
        match="1 broken images: train: train/ant/1b.jpg .*; mend or remove them, or set allow_broken: 1",
    ):
        ingest.ingest(store, catalogue.source({"imagefolder": str(root)}))
    allowed = ingest.ingest(store, catalogue.source({"imagefolder": str(root), "allow_broken": 1}))
    assert allowed.fingerprint == clean.fingerprint


def test_mixed_sizes_need_a_size(tmp_path, store):
    root = tree(tmp_path / "set")
    paint(root / "test" / "bee" / "9.png", 9, (9, 12))
    with pytest.raises(
        ValueError, match="the first is 8×8, test/bee/9.png is 9×12 .*; set size, e.g. size: 32"
    ):
        ingest.ingest(store, catalogue.source({"imagefolder": str(root)}))
    assert ingest.ingest(
        store, catalogue.source({"imagefolder": str(root), "size": 6})
    ).shape.image == (6, 6, 3)


def test_no_image_that_decodes(tmp_path, store):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            (tmp_path / "set" / split / name / "0.png").write_text("x")
    src = catalogue.source({"imagefolder": str(tmp_path / "set"), "allow_broken": 4})
    with pytest.raises(UserError, match="none of the first 100 images can be decoded"):
        ingest.ingest(store, src)
    with pytest.raises(ValueError, match="the train split has no images that can be decoded"):
        ingest.ingest(
            store,
            catalogue.source({"imagefolder": str(tmp_path / "set"), "allow_broken": 4, "size": 8}),
        )


def no_images(root):
    for path in (root / "train" / "bee").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root), "is no folder; name one with train/CLASS"),
        (lambda root: shutil.rmtree(root / "train"), "has no folder train; it has test"),
        (lambda root: shutil.rmtree(root / "test"), "has no folder test or val; it has train"),
        (no_images, "train/bee has no images; add some, or remove the class"),
        (
            lambda root: (root / "test" / "cat").mkdir(),
            "class 'cat' is in test and not in train; both need the same",
        ),
        (
            lambda root: shutil.rmtree(root / "test" / "bee"),
            "class 'bee' is in train and not in test",
        ),
        (
            lambda root: paint(root / "train" / "loose.png", 0),
            "has 1 images in no class folder, such as loose.png",
        ),
        (
            lambda root: [shutil.rmtree(root / "test" / c) for c in ("ant", "bee")],
            "test has no class folders",
        ),
        (
            lambda root: [(root / name).mkdir() for name in ("val", "valid")],
            "has val and valid; keep one",
        ),
        (
            lambda root: tree(root, splits=("val",), classes=("dog",)),
            "class 'dog' is in val and not in train",
        ),
        (
            lambda root: (root / "train" / "ant" / "9.png").symlink_to("nowhere"),
            "ant/9.png cannot be read: No such file",
        ),
        (
            lambda root: (root / "train" / "a\nb").mkdir(),
            r"has the class folder 'a\\nb'; give it a name",
        ),
    ],
)
def test_bad_folders(tmp_path, spoil, message):
    root = tree(tmp_path / "set")
    spoil(root)
    with pytest.raises(UserError, match=message) as error:
        catalogue.source({"imagefolder": str(root)})
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_places_that_are_no_folder():
    with pytest.raises(UserError, match="name a folder with train/CLASS"):
        catalogue.source("imagefolder")
    with pytest.raises(
        UserError, match="s3://bucket/x is no local folder; copy it to a folder, or .* use parquet"
    ):
        catalogue.source({"imagefolder": "s3://bucket/x"})
    with pytest.raises(
        UserError,
        match="dataset.sise: imagefolder takes no such option; known: size, .*, class_names, duplicates, keep; did you mean 'size'",
    ):
        catalogue.source({"imagefolder": "x", "sise": 3})


# ImageNet -----------------------------------------------------------------------------------------


def test_the_lists_are_of_imagenets_classes():
    from torchvision.models import ResNet50_Weights

    folder = imagenet.Path(imagenet.__file__).parent
    lists = {
        name: imagenet.read_list(folder / f"{name}.txt")
        for name in ("imagenet", "imagenet100", "imagenet10")
    }
    assert {name: len(items) for name, items in lists.items()} == {
        "imagenet": 1000,
        "imagenet100": 100,
        "imagenet10": 10,
    }
    assert list(lists["imagenet"].values()) == ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    assert list(lists["imagenet"]) == sorted(lists["imagenet"])
    for items in lists.values():
        assert len(set(items.values())) == len(items)  # a name tells its class
    for name in ("imagenet100", "imagenet10"):
        assert all(
            lists["imagenet"][wnid] == text for wnid, text in lists[name].items() if text != "pig"
        )
    paper = "French bulldog, coyote, Egyptian cat, lion, brown bear, fly, bee, hare, zebra, pig"
    assert set(lists["imagenet10"].values()) == set(paper.split(", "))


def test_imagenet10_finds_its_classes_in_a_larger_folder(tmp_path, store):
    wnids = list(imagenet.read_list(imagenet.Path(imagenet.__file__).with_name("imagenet10.txt")))
    root = imagenet_tree(tmp_path / "ilsvrc", ["n01440764", *wnids, "n15075141"])
    src = catalogue.source({"imagenet10": str(root)})
    assert src.shape.image == (256, 256, 3)
    assert src.class_ids == tuple(wnids)
    small = catalogue.source({"imagenet10": str(root), "size": 8})
    dataset = ingest.ingest(store, small)
    assert dataset.name == "imagenet10"
    assert dataset.shape == small.shape
    assert dataset.class_ids == tuple(wnids)
    assert dataset.shape.classes[:2] == ("French bulldog", "coyote")
    assert catalogue.labels(store, dataset, "test").tolist() == [
        c for c in range(10) for _ in range(2)
    ]
    shutil.move(root, tmp_path / "moved")
    moved = ingest.ingest(
        store, catalogue.source({"imagenet10": str(tmp_path / "moved"), "size": 8})
    )
    assert moved.fingerprint == dataset.fingerprint


def test_a_list_of_ones_own(tmp_path, store):
    root = imagenet_tree(tmp_path / "ilsvrc", ["n02124075", "n01440764", "n02129165", "n99999999"])
    (tmp_path / "mine.txt").write_text("# mine\nn02129165\n\nn01440764 fish\nn99999999\n")
    src = catalogue.source(
        {"imagenet": str(root), "classes": str(tmp_path / "mine.txt"), "size": 8}
    )
    assert src.classes == ("fish", "lion", "n99999999")
    assert ingest.ingest(store, src).shape.train_counts == (2, 2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "mine.txt cannot be read: No such file"),
        ("n01440764\nlion\n", "mine.txt:2: 'lion' is no WordNet id such as n01440764"),
        ("n01440764\nn02124075\nn01440764\n", "mine.txt:3: n01440764 is there twice"),
        ("n01440764\n", "names 1 classes; two are the least"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    root = imagenet_tree(tmp_path / "ilsvrc", ["n01440764", "n02124075"])
    if text:
        (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        catalogue.source({"imagenet": str(root), "classes": str(tmp_path / "mine.txt")})


def test_bad_imagenet_folders(tmp_path):
    root = imagenet_tree(tmp_path / "ilsvrc", ["n01440764", "n02124075"])
    with pytest.raises(
        UserError,
        match=r"ilsvrc/train lacks 100 of 100 classes, such as n01558993 \(robin\).*classes: FILE",
    ):
        catalogue.source({"imagenet100": str(root)})
    with pytest.raises(UserError, match=r"imagenet: .*train lacks 998 of 1000 classes"):
        catalogue.source({"imagenet": str(root)})
    shutil.rmtree(root / "val")
    with pytest.raises(UserError, match="has no folder val; it must have train/WNID"):
        catalogue.source({"imagenet100": str(root)})
    (root / "val").mkdir()
    paint(root / "val" / "ILSVRC2012_val_00000001.JPEG", 0)
    (tmp_path / "two.txt").write_text("n01440764\nn02124075\n")
    with pytest.raises(
        UserError,
        match="val has 1 images in no class folder, such as ILSVRC2012_val_00000001.JPEG; put",
    ):
        catalogue.source({"imagenet": str(root), "classes": str(tmp_path / "two.txt")})
