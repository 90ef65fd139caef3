"""Imported sets: the order is balanced, persisted and bound to content; classes map by name or
number.
"""

import hashlib
import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from equigrid.generators import registry
from equigrid.generators.calls import ignore
from equigrid.generators.common import pools
from equigrid.generators.imported.finding import CIFAR10
from equigrid.generators.imported.sampling import fitted
from equigrid.generators.registry import config

NAMES = ("cat", "dog", "eel")
SHAPE = (8, 8, 3)


def png(colour: int, size: tuple[int, int] = (8, 8)) -> bytes:
    """An image of one colour, told by its red."""
    file = io.BytesIO()
    Image.new("RGB", size, (colour, 7, 9)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """CLASS/*.png: 5 cats of red 0..4, 4 dogs of 100..103, 6 eels of 200..205; and what is no
    image.
    """
    for name, first, count in (("cat", 0, 5), ("dog", 100, 4), ("eel", 200, 6)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "set" / name / f"{i}.png").write_bytes(png(first + i))
    (tmp_path / "set" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "set" / ".hidden").mkdir()
    return tmp_path / "set"


def trained(mapping: dict, names=NAMES, seed=3, shape=SHAPE, log=ignore):
    made = config(mapping)
    nothing = np.empty((0, *shape), np.uint8), np.empty(0, np.int64)
    return made, registry.train(
        *nothing, made, classes=len(names), class_names=names, seed=seed, log=log
    )


def reds(made, weights, start, stop, names=NAMES, seed=11, shape=SHAPE):
    images, labels = registry.sample(
        weights,
        made,
        classes=len(names),
        class_names=names,
        shape=shape,
        seed=seed,
        start=start,
        stop=stop,
    )
    return images[:, 0, 0, 0].tolist(), labels.tolist()


class TestOrder:
    def test_every_image_has_its_class_and_comes_once(self, folder):
        rows = []
        made, weights = trained({"kind": "imported", "path": str(folder)}, log=rows.append)
        assert made.capacity(NAMES) == 12  # 4 dogs
        assert (rows[0]["images"], rows[0]["accepted"]) == (15, 12)
        colours, labels = reds(made, weights, 0, 12)
        assert labels == pools.labels(11, 0, 12, 3).tolist()
        assert [colour // 100 for colour in colours] == labels
        assert len(set(colours)) == 12

    def test_a_pool_does_not_depend_on_how_it_is_cut_and_ends(self, folder):
        made, weights = trained({"kind": "imported", "path": str(folder)})
        whole = reds(made, weights, 0, 12)
        parts = [reds(made, weights, *cut) for cut in ((0, 5), (5, 7), (7, 30))]
        assert sum((part[0] for part in parts), []) == whole[0]
        images, labels = registry.sample(
            weights, made, classes=3, class_names=NAMES, shape=SHAPE, seed=11, start=12, stop=16
        )
        assert images.shape == (0, *SHAPE) and labels.shape == (0,)

    def test_the_seed_permutes_within_classes(self, folder):
        orders = {
            tuple(reds(*trained({"kind": "imported", "path": str(folder)}, seed=s), 0, 12)[0])
            for s in range(4)
        }
        assert len(orders) == 4
        again = [
            reds(*trained({"kind": "imported", "path": str(folder)}, seed=1), 0, 12)
            for _ in range(2)
        ]
        assert again[0] == again[1]

    def test_images_that_are_there_twice_are_told(self, folder):
        assert config({"kind": "imported", "path": str(folder)}).remarks() == []
        shutil.copy(folder / "cat/0.png", folder / "cat/again.png")
        shutil.copy(folder / "cat/0.png", folder / "dog/other.png")
        (line,) = config({"kind": "imported", "path": str(folder), "rename": {"x": "y"}}).remarks()
        assert line.startswith("2 of the 17 images in ") and "byte for byte" in line

    def test_splits_are_no_classes(self, folder, tmp_path):
        (tmp_path / "both").mkdir()
        for split in ("train", "test"):
            shutil.copytree(folder, tmp_path / "both" / split)
        whole = config({"kind": "imported", "path": str(tmp_path / "both")})
        with pytest.raises(ValueError, match="are its folders .test and train. splits. Set split"):
            whole.capacity(NAMES)
        part = config({"kind": "imported", "path": str(tmp_path / "both"), "split": "train"})
        assert part.capacity(NAMES) == 12

    def test_weights_survive_a_file(self, folder, tmp_path):
        from safetensors.torch import load, save

        made, weights = trained({"kind": "imported", "path": str(folder)})
        assert reds(made, load(save(weights)), 0, 12) == reds(made, weights, 0, 12)


class TestContent:
    def test_a_moved_set_is_the_same(self, folder, tmp_path):
        before, weights = trained({"kind": "imported", "path": str(folder)})
        payload, colours = before.training_payload(), reds(before, weights, 0, 12)
        shutil.move(folder, tmp_path / "elsewhere")
        after = config({"kind": "imported", "path": str(tmp_path / "elsewhere")})
        assert after.training_payload() == payload
        assert "elsewhere" not in json.dumps(payload)
        assert reds(after, weights, 0, 12) == colours

    @pytest.mark.parametrize("change", ["content", "name", "class", "gone"])
    def test_another_set_is_another(self, folder, tmp_path, change):
        other = shutil.copytree(folder, tmp_path / "other")
        if change == "content":
            (other / "cat" / "0.png").write_bytes(png(50))
        elif change == "name":
            (other / "cat" / "0.png").rename(other / "cat" / "9.png")
        elif change == "class":
            (other / "cat" / "4.png").rename(other / "dog" / "4.png")
        else:
            (other / "eel" / "0.png").unlink()
        payloads = [
            config({"kind": "imported", "path": str(path)}).training_payload()
            for path in (folder, other)
        ]
        assert payloads[0] != payloads[1]

    def test_the_digest_is_of_the_bytes(self, folder):
        _, weights = trained({"kind": "imported", "path": str(folder)})
        wanted = hashlib.blake2b(
            (folder / json.loads(weights["places"].numpy().tobytes())[4]).read_bytes(),
            digest_size=8,
        )
        assert int(weights["digests"][1, 1]) == int.from_bytes(
            wanted.digest(), "little", signed=True
        )

    def test_a_changed_image_is_told(self, folder):
        made, weights = trained({"kind": "imported", "path": str(folder)})
        for label, name in enumerate(NAMES):
            for file in (folder / name).glob("*.png"):
                file.write_bytes(png(77 + label))
        with pytest.raises(ValueError, match=r"png in .*set is not the image it was"):
            reds(made, weights, 0, 12)

    def test_a_missing_image_is_told(self, folder):
        made, weights = trained({"kind": "imported", "path": str(folder)})
        shutil.rmtree(folder / "dog")
        with pytest.raises(ValueError, match=r"dog/\d.png in .* cannot be read: No such file"):
            reds(made, weights, 0, 12)

    def test_a_broken_image_is_named(self, folder):
        for file in (folder / "dog").glob("*.png"):
            file.write_bytes(b"no picture")
        made, weights = trained({"kind": "imported", "path": str(folder)})
        with pytest.raises(ValueError, match=r"dog/\d.png in .* is broken, remove it"):
            reds(made, weights, 0, 12)


class TestShape:
    def test_resized_to_the_dataset(self, tmp_path):
        for name in NAMES:
            (tmp_path / name).mkdir()
            (tmp_path / name / "0.png").write_bytes(png(60, size=(40, 24)))
        made, weights = trained({"kind": "imported", "path": str(tmp_path)}, shape=(12, 10, 1))
        images, _ = registry.sample(
            weights, made, classes=3, class_names=NAMES, shape=(12, 10, 1), seed=0, start=0, stop=3
        )
        assert images.shape == (3, 12, 10, 1)
        assert (images == 23).all()  # 0.299 * 60 + 0.587 * 7 + 0.114 * 9

    def test_the_centre_is_kept(self):
        pixels = np.zeros((4, 8, 3), np.uint8)
        pixels[:, 2:6] = 200
        assert (fitted(pixels, (4, 4, 3)) == 200).all()
        assert fitted(pixels, (4, 8, 3)) is not None and np.array_equal(
            fitted(pixels, (4, 8, 3)), pixels
        )


class TestClasses:
    def test_by_number_where_the_folders_are_numbers(self, folder):
        for number, name in enumerate(NAMES):
            (folder / name).rename(folder / str(number))
        made, weights = trained({"kind": "imported", "path": str(folder)})
        colours, labels = reds(made, weights, 0, 12)
        assert [colour // 100 for colour in colours] == labels

    def test_the_datasets_order_holds_and_names_may_be_mapped(self, folder):
        names = ("eel", "hound", "cat")
        made, weights = trained(
            {"kind": "imported", "path": str(folder), "rename": {"dog": "hound"}}, names=names
        )
        colours, labels = reds(made, weights, 0, 12, names=names)
        assert [{2: 0, 1: 1, 0: 2}[colour // 100] for colour in colours] == labels

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (
                ("cat", "dogs", "eel"),
                "class 'dog' of .* is not in the dataset: did you mean 'dogs'",
            ),
            (("cat", "dog"), "class 'eel' of .* is not in the dataset: it has cat, dog"),
            ((*NAMES, "fox"), "class 'fox' of the dataset has no image in .*cat, dog, eel"),
        ],
    )
    def test_classes_that_differ(self, folder, names, message):
        made = config({"kind": "imported", "path": str(folder)})
        with pytest.raises(ValueError, match=message) as raised:
            made.check(8, 8, 3, len(names), 0, names)
        assert "\n" not in str(raised.value)


@pytest.fixture
def cifake(tmp_path):
    """Kaggle's tree, two images per class; red is the class."""
    for split in ("train", "test"):
        for half in ("FAKE", "REAL"):
            (tmp_path / split / half).mkdir(parents=True)
    for label in range(10):
        for i in range(2):
            suffix = f" ({label + 1})" if label else ""
            Image.new("RGB", (32, 32), (label * 20, 5, 5)).save(
                tmp_path / "train" / "FAKE" / f"{i:04d}{suffix}.jpg"
            )
    return tmp_path


class TestCifake:
    def test_the_class_is_in_the_name(self, cifake):
        made, weights = trained({"kind": "cifake", "path": str(cifake)}, names=CIFAR10)
        assert made.setting == "open" and made.capacity(CIFAR10) == 20
        colours, labels = reds(made, weights, 0, 20, names=CIFAR10, shape=(32, 32, 3))
        assert [round(colour / 20) for colour in colours] == labels

    def test_other_names_and_trees(self, cifake):
        (cifake / "train" / "FAKE" / "7 (11).jpg").write_bytes(png(1))
        with pytest.raises(ValueError, match=r"7 \(11\).jpg has no class of CIFAR-10"):
            config({"kind": "cifake", "path": str(cifake)}).capacity(CIFAR10)
        with pytest.raises(ValueError, match="holds no images"):
            config({"kind": "cifake", "path": str(cifake), "split": "test"}).capacity(CIFAR10)
        with pytest.raises(ValueError, match="has no folder train/FAKE"):
            config({"kind": "cifake", "path": str(cifake / "train")}).capacity(CIFAR10)
        with pytest.raises(ValueError, match="'airplane' of .* is not in the dataset"):
            config(
                {
                    "kind": "cifake",
                    "path": str(
                        shutil.copytree(
                            cifake, cifake / "copy", ignore=lambda d, _: ["copy", "7 (11).jpg"]
                        )
                    ),
                }
            ).capacity(NAMES)


def write(path, labels, colours, names=None, **options):
    """A Parquet file in Hugging Face's layout."""
    table = pa.table({"image": [{"bytes": png(c), "path": None} for c in colours], "label": labels})
    if names:
        told = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, **options)


class TestParquet:
    def test_rows_of_several_files_and_groups(self, tmp_path):
        write(
            tmp_path / "p" / "train-00000.parquet",
            [0, 1, 2] * 3,
            [0, 100, 200, 1, 101, 201, 2, 102, 202],
            row_group_size=2,
        )
        write(tmp_path / "p" / "train-00001.parquet", [2, 1, 0, 0], [203, 103, 3, 4])
        write(tmp_path / "p" / "test-00000.parquet", [0], [9])
        made, weights = trained({"kind": "imported", "path": str(tmp_path / "p"), "split": "train"})
        assert made.capacity(NAMES) == 12
        colours, labels = reds(made, weights, 0, 12)
        assert [colour // 100 for colour in colours] == labels
        assert len(set(colours)) == 12
        assert sum((reds(made, weights, *cut)[0] for cut in ((0, 4), (4, 12))), []) == colours

    def test_names_in_the_file_decide_not_numbers(self, tmp_path):
        write(tmp_path / "p" / "x.parquet", [0, 1, 2], [200, 100, 0], names=("eel", "dog", "cat"))
        made, weights = trained({"kind": "imported", "path": str(tmp_path / "p")})
        colours, labels = reds(made, weights, 0, 3)
        assert [colour // 100 for colour in colours] == labels

    def test_neighbours_in_the_pool_share_row_groups(self, tmp_path):
        """Else each shard of a large set would read all of it."""
        write(tmp_path / "p" / "x.parquet", [0, 1] * 40, [*range(80)], row_group_size=8)
        made, weights = trained({"kind": "imported", "path": str(tmp_path / "p")}, names=NAMES[:2])
        colours, _ = reds(made, weights, 0, 16, names=NAMES[:2])
        assert len({colour // 8 for colour in colours}) <= 3
        assert colours != sorted(colours)

    def test_content_decides_not_the_place(self, tmp_path):
        write(tmp_path / "p" / "x.parquet", [0, 1, 2], [1, 2, 3])
        write(tmp_path / "q" / "x.parquet", [0, 1, 2], [1, 2, 3])
        write(tmp_path / "r" / "x.parquet", [0, 1, 2], [1, 2, 99])
        same, also, other = (
            config({"kind": "imported", "path": str(tmp_path / p)}).training_payload()
            for p in "pqr"
        )
        assert same == also != other

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"split": "val"}, r"has no val-\*.parquet; it has x.parquet"),
            ({"label": "kind"}, "label: no column 'kind'; there are image, label"),
            ({"image": "label"}, "image: 'label' is int64; encoded images are needed"),
        ],
    )
    def test_bad_options(self, tmp_path, options, message):
        write(tmp_path / "p" / "x.parquet", [0, 1, 2], [1, 2, 3])
        with pytest.raises(ValueError, match=message):
            config({"kind": "imported", "path": str(tmp_path / "p"), **options}).capacity(NAMES)


class TestErrors:
    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            ({"kind": "imported"}, "path: field required"),
            ({"kind": "imported", "path": ""}, "path '': name a folder"),
            ({"kind": "cifake", "path": "x", "split": "val"}, "CIFAKE has train and test"),
            ({"kind": "cifake", "path": "x", "label": "y"}, "CIFAKE is a folder"),
            ({"kind": "imported", "path": "x", "spilt": "train"}, "did you mean 'split'"),
        ],
    )
    def test_configurations(self, mapping, message):
        with pytest.raises(ValueError, match=message):
            config(mapping)

    def test_places(self, tmp_path):
        with pytest.raises(ValueError, match="there is no folder .*nowhere"):
            config({"kind": "imported", "path": str(tmp_path / "nowhere")}).capacity(NAMES)
        with pytest.raises(ValueError, match="no folders of classes and no"):
            config({"kind": "imported", "path": str(tmp_path)}).capacity(NAMES)
        with pytest.raises(ValueError, match="address holds credentials"):
            config({"kind": "imported", "path": "s3://key:secret@bucket/x"}).capacity(NAMES)

    def test_other_weights(self, folder):
        made, weights = trained({"kind": "imported", "path": str(folder)})
        with pytest.raises(ValueError, match="of 3 classes, not of 2"):
            registry.sample(
                weights,
                made,
                classes=2,
                class_names=("a", "b"),
                shape=SHAPE,
                seed=0,
                start=0,
                stop=2,
            )
        assert weights["digests"].dtype == torch.int64
