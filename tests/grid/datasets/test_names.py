"""Classes that look alike, and lists of names whose order is not clear."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equigrid.grid.authoring import looking
from equigrid.grid.datasets import catalogue
from equigrid.grid.errors import UserError


@pytest.fixture
def folders(tmp_path):
    def make(*names):
        for split in ("train", "test"):
            for name in names:
                folder = tmp_path / split / name
                folder.mkdir(parents=True)
                for i in range(2):
                    buffer = io.BytesIO()
                    Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(buffer, "PNG")
                    (folder / f"{i}.png").write_bytes(buffer.getvalue())
        return str(tmp_path)

    return make


def source(place, **options):
    return catalogue.source({"imagefolder": place, **options})


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (("1", "2", "10"), ("a", "b", "c")),
        (("1.0", "2.0", "10.0"), ("a", "b", "c")),
        (("-2", "-1", "3"), ("a", "b", "c")),
        (("class01", "class02", "class10"), ("a", "b", "c")),
        (("n02085620", "n02085782", "n1"), None),
        (("car-wheel", "car2", "car 3"), ("a", "b", "c")),
    ],
)
def test_a_list_of_names_goes_by_the_numbers_or_is_refused(folders, names, given):
    """Of `class10` before `class2` nobody knows which was meant."""
    place = folders(*names)
    if given is None:
        with pytest.raises(UserError, match="'n02085782' comes before 'n1' by its letters"):
            source(place, class_names=["a", "b", "c"])
        return
    found = source(place, class_names=list(given))
    if names[0].startswith("car"):  # numbers say nothing of these: by letters
        assert found.classes == given
        return
    assert dict(zip(sorted(names), found.classes)) == dict(zip(names, given))


def test_names_with_counted_ends_need_a_mapping(folders):
    place = folders("class1", "class2", "class10")
    with pytest.raises(
        UserError, match="'class10' comes before 'class2' by its letters, and .*mapping"
    ):
        source(place, class_names=["a", "b", "c"])
    mapping = {"class1": "a", "class2": "b", "class10": "c"}
    assert source(place, class_names=mapping).classes == ("a", "c", "b")


def test_one_number_written_twice_is_refused(folders):
    with pytest.raises(UserError, match="the classes '1' and '1.0' are one number"):
        source(folders("1", "1.0", "2"), class_names=["a", "b", "c"])


def test_classes_that_differ_in_spaces_alone_are_refused(folders):
    with pytest.raises(UserError, match="the classes 'cat' and 'cat ' .* differ in spaces alone"):
        source(folders("cat", "cat ", "dog"))


def test_classes_that_differ_in_case_alone_are_told(folders):
    """Letters may be meant: A is not a."""
    found = source(folders("A", "a", "b"))
    assert found.classes == ("A", "a", "b")
    (line,) = [line for line in found.told if "lower case" in line]
    assert "'A' and 'a'" in line


# Folders that are not what they seem --------------------------------------------------------------


def test_a_test_folder_that_is_a_link_to_train_is_refused(folders):
    place = Path(folders("a", "b"))
    shutil.rmtree(place / "test")
    (place / "test").symlink_to(place / "train")
    with pytest.raises(UserError, match="train and .*test are one folder: one is a link"):
        source(str(place))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS.*git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "a web page, not an image"),
        (b"something else", "no kind of image that is known"),
    ],
)
def test_what_lies_in_an_images_place_is_said(folders, content, message):
    place = Path(folders("a", "b"))
    for path in place.glob("*/*/*.png"):
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        source(str(place)).contents()


def test_init_takes_no_table_of_several_by_chance(tmp_path):
    """It took test.csv, and split that."""
    for split, n in (("train", 12), ("test", 4)):
        (tmp_path / split).mkdir()
        rows = [f"{split}/{i}.png,{'ab'[i % 2]}" for i in range(n)]
        for i in range(n):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / split / f"{i}.png")
        (tmp_path / f"{split}.csv").write_text("file,label\n" + "\n".join(rows))
    with pytest.raises(UserError, match="several tables of files, test.csv and train.csv; write"):
        looking.look(str(tmp_path))
    (tmp_path / "test.csv").write_text("file\n" + "\n".join(f"test/{i}.png" for i in range(4)))
    assert looking.look(str(tmp_path)).dataset["labels"] == "train.csv"
