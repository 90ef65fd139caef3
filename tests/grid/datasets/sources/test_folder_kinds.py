"""Folders as people have them: names, formats, links, junk, splits, groups and tables of labels."""

import errno
import io
import os
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from equigrid.generators import registry
from equigrid.generators.registry import config
from equigrid.grid.authoring import looking
from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.datasets.sources import splitting
from equigrid.grid.errors import UserError

BOTH = [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in "ab" for i in range(3)]


def source(folder, **options):
    return catalogue.source({"imagefolder": str(folder), **options})


def refused(folder, message, **options):
    with pytest.raises(UserError, match=message) as error:
        source(folder, **options)
    assert "\n" not in str(error.value)


@pytest.fixture
def both(tmp_path, write_tree):
    return write_tree(tmp_path / "set", BOTH)


# Names and formats --------------------------------------------------------------------------------


def test_a_class_is_one_in_any_unicode_form(tmp_path, write_tree, store):
    names = ["train/caf\u00e9/1.png", "train/cafe\u0301/2.png", "train/tea/1.png"]
    root = write_tree(tmp_path / "set", [*names, "test/cafe\u0301/1.png", "test/tea/1.png"])
    src = source(root)
    assert src.classes == ("caf\u00e9", "tea")
    assert src.shape.train_counts == (2, 1)
    assert ingest.ingest(store, src).shape == src.shape
    made = config({"kind": "imported", "path": str(root / "test")})
    assert made.capacity(("caf\u00e9", "tea")) == 2


FORMS = {
    ".avif": "AVIF",
    ".jfif": "JPEG",
    ".tif": "TIFF",
    ".webp": "WEBP",
    ".JPE": "JPEG",
    ".tga": "TGA",
    ".j2k": "JPEG2000",
}


@pytest.mark.parametrize("ending", FORMS)
def test_all_that_pillow_decodes_is_an_image(both, encode, painted, ending):
    if ending == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    (both / "train/a" / f"x y{ending}").write_bytes(encode(painted(9), FORMS[ending]))
    assert source(both).shape.train_counts == (4, 3)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.heic"], "train/a: 1 of 4 files are no images that can be read here, such as 0.heic .ending '.heic'"),
        (["0.nii", "1.nii"], "2 of 5 files .*'.nii'.; convert them"),
        (["0007"], "1 of 4 files .*such as 0007 .without an ending.; rename them, e.g. to .png"),
        (["3.png.bak"], "ending '.bak'"),
    ],
)  # fmt: skip
def test_a_class_that_would_shrink_stops(both, names, message):
    for name in names:
        (both / "train/a" / name).write_bytes(b"x")
    refused(both, message)
    with pytest.raises(ValueError, match=message.replace("train/a: ", "")):
        config({"kind": "imported", "path": str(both / "train")}).capacity(("a", "b"))


def test_what_desktops_and_servers_leave_is_no_class(both):
    for name in ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "$RECYCLE.BIN", "#recycle"):
        (both / "train" / name).mkdir()
        (both / "train/a" / name).mkdir()
        (both / "train/a" / name / "0.png").write_bytes(b"a thumbnail")
    src = source(both)
    assert src.classes == ("a", "b")
    assert src.shape.n_train == 6
    assert config({"kind": "imported", "path": str(both / "train")}).capacity(("a", "b")) == 6


# What no reader survives --------------------------------------------------------------------------


def circle(root):
    (root / "train/a/again").symlink_to(root / "train")


def pipe(root):
    os.mkfifo(root / "train/a/9.png")


def plug(root):
    with socket.socket(socket.AF_UNIX) as opened:
        here = os.getcwd()
        os.chdir(root / "train/a")  # a socket's path is short
        try:
            opened.bind("9.png")
        finally:
            os.chdir(here)


def link_to_itself(root):
    (root / "train/a/9.png").symlink_to(root / "train/a/9.png")


def class_that_is_a_circle(root):
    (root / "train/loop").symlink_to(root / "train/loop")


def class_that_is_not_mounted(root):
    (root / "train/c").symlink_to(root / "elsewhere/c")


def zero_width(root):
    (root / "train/a\u200b").mkdir()


def not_utf8(root):
    os.mkdir(os.fsencode(root / "train") + b"/\xff\xfe")


def blank(root):
    (root / "train/ ").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (circle, "train/a/again is a link to a folder that it lies in; remove the link"),
        (pipe, "train/a/9.png is no file .a pipe"),
        (plug, "train/a/9.png is no file .a pipe, a socket"),
        (link_to_itself, "train/a/9.png cannot be read: Too many levels"),
        (class_that_is_a_circle, "train/loop cannot be read: Too many levels"),
        (
            class_that_is_not_mounted,
            "train/c cannot be read: No such file.*; mend or remove the link",
        ),
        (zero_width, r"class folder 'a\\u200b'"),
        (not_utf8, r"class folder '\\udcff\\udcfe'"),
        (blank, "class folder ' '"),
    ],
)
def test_links_pipes_and_names_that_nobody_can_print(both, spoil, message):
    spoil(both)
    refused(both, message)


def test_a_link_to_nowhere_that_an_editor_left_is_none_of_the_set(both):
    (both / "train/.#a").symlink_to("me@here.123")
    (both / "train/a/.#0.png").symlink_to("me@here.123")
    assert source(both).classes == ("a", "b")


def test_a_file_that_the_disk_does_not_give_is_named(both, store, monkeypatch):
    read = Path.read_bytes

    def failing(path: Path) -> bytes:
        if path.name == "0.png" and path.parent.parent.name == "test":
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", failing)
    with pytest.raises(UserError, match=r"test/a/0.png cannot be read: Input/output error"):
        ingest.ingest(store, source(both))


def test_pools_refuse_circles_and_pipes(both):
    circle(both)
    pool = {"kind": "imported", "path": str(both / "train")}
    with pytest.raises(ValueError, match="is a link to a folder that it lies in"):
        config(pool).capacity(("a", "b"))
    (both / "train/a/again").unlink()
    pipe(both)
    with pytest.raises(ValueError, match="9.png is no file"):
        config(pool | {"rename": {"x": "y"}}).capacity(("a", "b"))


@pytest.mark.parametrize("place", ["x" * 5000, "a\0b", "~nobody-of-this-name/x", 3, ["a"]])
def test_places_that_are_none(place):
    with pytest.raises(UserError):
        source(place) if isinstance(place, str) else catalogue.source({"imagefolder": place})


# Class names --------------------------------------------------------------------------------------


@pytest.fixture
def numbered(tmp_path, write_tree):
    names = [f"{split}/{k}/0.png" for split in ("train", "test") for k in range(12)]
    return write_tree(tmp_path / "numbered", [*names, *(f"train/{k}/1.png" for k in range(12))])


def test_a_list_of_names_follows_the_numbers(numbered, store):
    src = source(numbered, class_names=[f"n{i}" for i in range(12)])
    assert src.classes == tuple(f"n{k}" for k in sorted(range(12), key=str))
    dataset = ingest.ingest(store, src)
    assert "2 is n2" in dataset.told[0] and "10 is n10" in dataset.told[0]


def test_a_mapping_names_each_class(numbered):
    names = {k: f"n{k}" for k in range(12)}
    assert source(numbered, class_names=names).classes[2] == "n10"
    for change, message in (
        ({0: "n1"}, "11 different names; numbered has 12 classes"),
        ({12: "x"}, "'12' is no class; name each of the 12 classes once: 0, 1, 10"),
        ({0: ""}, "write a list of 12 names"),
        ({0: 3}, "write a list of 12 names"),
    ):
        with pytest.raises(UserError, match=message):
            source(numbered, class_names=names | change)
    del names[7]
    with pytest.raises(UserError, match="'7' is not in the mapping"):
        source(numbered, class_names=names)


def test_numbers_among_words_have_no_order(tmp_path, write_tree):
    root = write_tree(
        tmp_path, [f"{s}/{c}/0.png" for s in ("train", "test") for c in ("10", "2", "x")]
    )
    refused(
        root,
        "classes are numbers .'10'. and words .'x'., which have no order",
        class_names=list("abc"),
    )
    assert source(root, class_names={"10": "a", "2": "b", "x": "c"}).classes == ("a", "b", "c")


# Splits and groups --------------------------------------------------------------------------------


def test_folders_of_classes_alone(tmp_path, write_tree, store):
    root = write_tree(tmp_path / "set", [f"{c}/{c}{i:03d}.png" for c in "ab" for i in range(20)])
    refused(root, "has no folder train; it has a, b; add one, or set test: 0.2")
    src = source(root, test=0.2)
    assert (src.shape.train_counts, src.shape.test_counts) == ((16, 16), (4, 4))
    dataset = ingest.ingest(store, src)
    assert dataset.shape == src.shape
    assert source(root, test=0.2).key == src.key
    other = source(root, test=0.2, split_seed=1)
    assert ingest.ingest(store, other).fingerprint != dataset.fingerprint
    shutil.move(root, tmp_path / "moved")
    moved = ingest.ingest(store, source(tmp_path / "moved", test=0.2))
    assert moved.fingerprint == dataset.fingerprint


def test_train_alone_and_words_for_splits(tmp_path, write_tree):
    root = write_tree(tmp_path / "set", [f"Training/{c}/{i}.png" for c in "ab" for i in range(10)])
    assert source(root, test=0.3).shape.test_counts == (3, 3)
    write_tree(root, [f"Testing/{c}/{i}.png" for c in "ab" for i in range(2)])
    assert source(root).shape.test_counts == (2, 2)
    refused(root, "has a folder Testing already; leave test out", test=0.3)
    (root / "train").mkdir()
    refused(root, "has Training and train; keep one")


PATIENTS = [f"{'ab'[p % 2]}/patient{p:02d}_{i}.png" for p in range(10) for i in range(4)]


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (PATIENTS, "40 names tell whom they are of, such as"),
        ([f"{c}/{c}{p}_{i}.png" for c in "ab" for p in range(5) for i in range(3)], "3 names begin with 'a0'"),
        ([f"{c}/{p}/{i}.png" for c in "ab" for p in range(5) for i in range(3)], "images of a class lie in 5 folders, such as"),
        ([f"{c}/S{p}-slice{i}.png" for c in "ab" for p in range(5) for i in range(3)], "names begin with 'S0'"),
    ],
)  # fmt: skip
def test_what_looks_like_patients_is_not_split_at_random(tmp_path, write_tree, why, names):
    root = write_tree(tmp_path / "set", names)
    refused(root, f"{why}.*a random split leaks them; set group: to a pattern", test=0.2)
    assert source(root, test=0.2, group="none").shape.n_test >= 6


@pytest.mark.parametrize(
    "stem", ["{i:04d}", "img_{i}", "IMG-{i}", "{c}_{i}", "image{i}", "photo ({i})"]
)
def test_plain_numbers_are_no_patients(tmp_path, write_tree, stem):
    names = [f"{c}/{stem.format(c=c, i=i)}.png" for c in "ab" for i in range(10)]
    assert source(write_tree(tmp_path / "set", names), test=0.2).shape.n_test == 4


def test_patients_stay_whole_and_classes_near_their_part(tmp_path, write_tree, store):
    root = write_tree(tmp_path / "set", PATIENTS)
    src = source(root, test=0.2, val=0.2, group=r"(patient\d+)")
    assert (src.shape.test_counts, src.shape.val_counts) == ((4, 4), (4, 4))
    tree = src.contents.args[0]
    patients = {s: {f.name.split("/")[1][:9] for f in files} for s, files in tree.files.items()}
    assert not any(
        patients[a] & patients[b] for a, b in (("train", "test"), ("train", "val"), ("val", "test"))
    )
    assert (
        "groups by '(patient\\\\d+)' kept together (groups: 6 train, 2 val, 2 test)"
        in ingest.ingest(store, src).told[-1]
    )
    refused(root, "finds no group in 'a/patient", test=0.2, group=r"person(\d+)")
    refused(root, "is no regular expression", test=0.2, group="(patient")


def test_a_pattern_that_would_take_for_ever_is_refused(monkeypatch):
    monkeypatch.setattr(splitting, "_PATTERN_S", 0.1)
    begin_s = time.monotonic()
    with pytest.raises(UserError, match="takes too long for 'a{40}b': write it without"):
        splitting.groups_by_pattern(["aa", "a" * 40 + "b"], "(a|a)*$")
    assert time.monotonic() - begin_s < 5, "of some 2^40 steps"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?R)?p", "is no regular expression"),  # it took all memory until the time was up
        ("(" * 3000 + "p" + ")" * 3000, "is no regular expression"),
        ("(?a)(?u)p", "is no regular expression"),
        ("(a?){99999999}p", "repeats by a count more than 100,000 times; write"),
        ("(?:(?:a{999}){99}){99}", "repeats by a count"),
    ],
)
def test_a_pattern_that_regex_cannot_bear_is_refused(pattern, why):
    with pytest.raises(UserError, match=why):
        splitting.groups_by_pattern(["patient1"], pattern)


def test_patterns_with_counts_are_none_of_those():
    name = "6ba7b810-9dad-11d1-80b4-00c04fd430c8_20261201T235959_000001"
    uuid = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    found = splitting.groups_by_pattern([name], rf"^({uuid})_\d{{8}}T\d{{6}}_\d{{6}}$")
    assert found == [name[:36]]


def test_a_class_of_one_patient_cannot_be_split(tmp_path, write_tree):
    names = [name for name in PATIENTS if name.startswith("a/")] + [
        f"b/patient99_{i}.png" for i in range(5)
    ]
    root = write_tree(tmp_path / "set", names)
    refused(
        root,
        "class 'b' has images of 1 groups, which cannot be both",
        test=0.2,
        group=r"(patient\d+)",
    )


def test_a_given_split_is_checked_for_patients(tmp_path, write_tree):
    root = write_tree(
        tmp_path, ["train/a/p1_0.png", "train/b/p2_0.png", "test/a/p1_1.png", "test/b/p3_0.png"]
    )
    assert source(root).shape.n_train == 2
    refused(root, "1 groups, such as 'p1', have images in train and in test", group=r"(p\d+)_")


def test_forty_images_are_a_set(tmp_path, write_tree):
    root = write_tree(tmp_path / "set", [f"{c}/{i} x.png" for c in "abcd" for i in range(10)])
    assert source(root, test=0.2).shape.train_counts == (8, 8, 8, 8)


# A table of labels --------------------------------------------------------------------------------


@pytest.fixture
def tabled(tmp_path, write_tree):
    """Twenty images in one folder, and a way to write their table."""
    root = write_tree(tmp_path / "set", [f"images/{i:02d}.png" for i in range(20)])

    def write(text: str, name: str = "labels.csv"):
        (root / name).write_text(text)
        return root

    return write


def lines(header: str, row) -> str:
    return "\n".join([header, *(row(i) for i in range(20))]) + "\n"


@pytest.mark.parametrize(
    ("name", "separator"), [("labels.csv", ","), ("labels.tsv", "\t"), ("labels.csv", ";")]
)
def test_a_table_says_which_class_each_image_is_of(
    tabled, store, name, separator, images_of, painted
):
    rows = lines(
        separator.join(("file", "label")),
        lambda i: separator.join((f"images/{i:02d}.png", "dog" if i % 2 else "cat")),
    )
    src = source(tabled(rows, name), labels=name, test=0.2)
    assert src.classes == ("cat", "dog")
    assert (src.shape.train_counts, src.shape.test_counts) == ((8, 8), (2, 2))
    dataset = ingest.ingest(store, src)
    first = images_of(store, dataset.train)[0]
    (i,) = [i for i in range(20) if (painted(77, i) == first).all()]
    assert catalogue.labels(store, dataset, "train")[0] == i % 2


def test_tables_with_splits_groups_and_other_names(tabled):
    rows = lines(
        "file_name,kind,part,who",
        lambda i: f"images/{i:02d},{'xy'[i % 2]},{'train' if i < 14 else 'test'},{i // 2}",
    )
    root = tabled(rows)
    src = source(root, labels="labels.csv", label="kind", split="part", group="who")
    assert (src.shape.n_train, src.shape.n_test) == (14, 6)
    assert (
        "files are column 'file_name', classes column 'kind', splits column 'part', groups column 'who'"
        in src.told[0]
    )
    split_across = rows.replace("images/13,y,train", "images/13,y,test")
    refused(
        tabled(split_across),
        "1 groups, such as '6'",
        labels="labels.csv",
        label="kind",
        split="part",
        group="who",
    )


def test_a_patient_column_of_a_table_is_not_passed_over(tabled):
    root = tabled(
        lines("file,label,patient_id", lambda i: f"images/{i:02d}.png,{'xy'[i % 2]},{i // 4}")
    )
    refused(
        root, "there is a column 'patient_id'.*set group: patient_id", labels="labels.csv", test=0.2
    )
    src = source(root, labels="labels.csv", test=0.2, group="patient_id")
    assert src.shape.n_test == 4 and src.grouped


def test_a_parquet_table(tabled):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tabled("", "unused.csv")
    columns = {
        "file": [f"images/{i:02d}.png" for i in range(20)],
        "label": [i % 2 for i in range(20)],
    }
    pq.write_table(pa.table(columns), root / "labels.parquet")
    assert source(root, labels="labels.parquet", test=0.2).classes == ("0", "1")


GOOD = lines("file,label", lambda i: f"images/{i:02d}.png,{'xy'[i % 2]}")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (GOOD, {"labels": "label.csv"}, "there is no file label.csv in .*set"),
        ("", {}, "labels.csv has no rows"),
        ("file,label\n", {}, "labels.csv has no rows"),
        (GOOD.replace("file,label", "a,b"), {}, "has no column of the file; it has a, b; call it 'file'"),
        (GOOD.replace("file,label", "file,b"), {}, "has no column of the label; it has file, b; call it 'label', or say label: COLUMN"),
        (GOOD, {"label": "lable"}, "has no column 'lable'; it has file, label; did you mean 'label'"),
        (GOOD.replace("file,label", "label,label"), {}, "has the column 'label' twice"),
        (GOOD.replace("images/03.png", "images/33.png"), {}, "labels.csv:5: there is no image 'images/33.png'"),
        (GOOD.replace("images/03.png", "images/02.png"), {}, "labels.csv:5: images/02.png is in row 4 too"),
        (GOOD.replace("images/03.png", "../../03.png"), {}, "there is no image"),
        (GOOD.replace("03.png,y", "03.png,"), {}, "labels.csv:5: no label; fill it in"),
        (GOOD.replace("03.png,y", "03.png,y,z"), {}, "labels.csv:5: 3 cells, and the first line names 2"),
        (GOOD.replace("03.png,y", "03.png,y\x07"), {}, r"labels.csv:5: the class 'y\\x07' cannot be printed"),
        (GOOD, {"test": None}, "labels.csv has no test split; name a column of splits"),
        (GOOD, {"split": "part"}, "has no column 'part'"),
        (GOOD, {"group": "who"}, "dataset.group: labels.csv has no column 'who'"),
        (GOOD.replace("00.png,x", "00.png,z"), {}, "class 'z' has one image, which cannot be both in train and in test"),
    ],
)  # fmt: skip
def test_bad_tables(tabled, text, options, message):
    refused(tabled(text), message, **{"labels": "labels.csv", "test": 0.2, **options})


def test_a_table_that_is_no_text(tabled):
    root = tabled("")
    (root / "labels.csv").write_bytes(b"file,label\n\xff\xfe\x00")
    refused(
        root,
        "labels.csv cannot be read: .*write a CSV file in UTF-8",
        labels="labels.csv",
        test=0.2,
    )


def test_images_in_no_row_are_told(tabled):
    src = source(tabled("\n".join(GOOD.split("\n")[:11])), labels="labels.csv", test=0.2)
    assert "10 image files are in no row of it" in src.told
    refused(tabled(GOOD), "names a column of a table; say labels: FILE too", label="kind")


# Grey levels --------------------------------------------------------------------------------------


def deep(path, levels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(levels, np.uint16)).save(path)


@pytest.fixture
def scans(tmp_path):
    """16-bit files that hold 12 bits: a ramp from 0 to 4095."""
    ramp = np.linspace(0, 4095, 64).reshape(8, 8)
    for i, name in enumerate(BOTH):
        deep(tmp_path / "scans" / name, np.roll(ramp, i))
    return tmp_path / "scans"


def test_twelve_bits_in_sixteen_are_told_and_windowed(scans, store, images_of):
    dark = ingest.ingest(store, source(scans))
    assert len(np.unique(images_of(store, dark.train))) < 20
    assert any(
        "0 to 4,095 of 65,535 levels are used by 12 images" in line
        and "set range: [0, 4095]" in line
        for line in dark.told
    )
    good = ingest.ingest(store, source(scans, range=[0, 4095]))
    found = images_of(store, good.train)
    assert len(np.unique(found)) == 64
    assert (found.min(), found.max()) == (0, 255)
    assert (found == found[..., :1]).all()  # grey stays grey
    assert not any("grey levels" in line for line in good.told)
    assert good.fingerprint != dark.fingerprint
    again = ingest.ingest(store, source(scans))
    assert again.told == dark.told  # from shards that are there


def test_a_window_clips_and_one_channel_stays_one(scans, store, images_of):
    dataset = ingest.ingest(store, source(scans, range=[1000, 2000], channels=1))
    assert dataset.shape.image == (8, 8, 1)
    ramp = np.rint(
        ((np.linspace(0, 4095, 64).astype(np.uint16).astype(float) - 1000) * 0.255).clip(0, 255)
    )
    assert (images_of(store, dataset.train)[0].ravel() == ramp).all()


def test_a_window_is_for_grey_images(both, store):
    with pytest.raises(
        ValueError, match="range is for grey images, and this is RGB; leave range out"
    ):
        ingest.ingest(store, source(both, range=[0, 100], size=8))


def test_a_hot_pixel_does_not_hide_that_a_set_is_nearly_black(scans, store):
    for path in (scans / "train").rglob("*.png"):
        levels = np.array(Image.open(path)).repeat(4, 0).repeat(4, 1)
        levels[3, 3] = 65_535
        deep(path, levels)
    told = ingest.ingest(store, source(scans, size=8)).told
    assert any("levels are used by 12 images" in line for line in told)


def test_sixteen_bit_colours_that_hold_twelve_are_told(tmp_path, store):
    """Pillow keeps the highest eight of sixteen bits: no range can bring back what is gone."""
    tifffile = pytest.importorskip("tifffile")
    for i, name in enumerate(BOTH):
        path = (tmp_path / name).with_suffix(".tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = np.random.default_rng(i).integers(0, 4096, (8, 8, 3), dtype=np.uint16)
        tifffile.imwrite(path, colours, photometric="rgb")
    told = ingest.ingest(store, source(tmp_path)).told
    assert any("hardly any contrast; save them with 8 bits" in line for line in told)


def test_floating_point_pixels_have_a_range_once_it_is_said(tmp_path, store, images_of):
    for i, name in enumerate(BOTH):
        path = tmp_path / name.replace(".png", ".tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), i / 12, np.float32)).save(path)
    with pytest.raises(
        ValueError,
        match="floating-point numbers of no known range; save it with 8 or 16 bits, or set range",
    ):
        ingest.ingest(store, source(tmp_path, size=8))
    dataset = ingest.ingest(store, source(tmp_path, range=[0, 1]))
    assert images_of(store, dataset.train)[3, 0, 0, 0] == round(255 * 3 / 12)


def test_stacks_are_told(both, store, painted):
    pages = [Image.fromarray(painted(50, i)) for i in range(3)]
    buffer = io.BytesIO()
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    (both / "train/a/9.tiff").write_bytes(buffer.getvalue())
    told = ingest.ingest(store, source(both)).told
    assert told == (
        "1 images have several pages or frames, such as train/a/9.tiff: the first of each is taken; page: 2 would take the second",
    )


def stack(path, pages, size=(8, 8)) -> None:
    """Page k, counted from 1, is of the grey 40 k."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = [Image.new("L", size, 40 * k) for k in range(1, pages + 1)]
    shown[0].save(path, save_all=True, append_images=shown[1:])


@pytest.fixture
def stacks(tmp_path):
    for name in BOTH:
        stack((tmp_path / "stacks" / name).with_suffix(".tiff"), 3)
    return tmp_path / "stacks"


def test_a_page_is_taken_and_is_another_dataset(stacks, store, images_of):
    first, second = source(stacks), source(stacks, page=2)
    assert first.key != second.key and first.key == source(stacks, page=None).key
    assert set(images_of(store, ingest.ingest(store, first).train).ravel()) == {40}
    dataset = ingest.ingest(store, second)
    assert set(images_of(store, dataset.train).ravel()) == {80}
    assert any("page 2 of each is taken" in line for line in dataset.told)


def test_a_page_that_some_have_not_is_told(stacks, store):
    stack(stacks / "train/a/0.tiff", 1)
    with pytest.raises(
        ValueError, match="train/a/0.tiff .it has 1 pages or frames; page 3 is none"
    ):
        ingest.ingest(store, source(stacks, page=3))
    for wrong in (0, -1, "middle", 1.5, True):
        refused(
            stacks, "dataset.page: .*; write which image of a stack, 1 for the first", page=wrong
        )


def test_an_imported_pool_has_a_page_and_a_range_too(stacks, scans):
    """As sampled: of the same generator, another pool."""
    for folder, option, expected in (
        (stacks, {"page": 3}, {120}),
        (scans, {"range": [0, 4095]}, set(np.rint(np.linspace(0, 255, 64)).astype(int))),
    ):
        plain = config({"kind": "imported", "path": str(folder / "train")})
        chosen = config({"kind": "imported", "path": str(folder / "train"), **option})
        assert plain.trained_identity() == chosen.trained_identity()
        assert plain.sampling_payload() != chosen.sampling_payload()
        nothing = np.empty((0, 8, 8, 1), np.uint8), np.empty(0, np.int64)
        names = {"classes": 2, "class_names": ("a", "b")}
        weights = registry.train(*nothing, chosen, seed=0, **names)
        images, _ = registry.sample(
            weights, chosen, shape=(8, 8, 1), seed=1, start=0, stop=6, **names
        )
        assert set(images.ravel()) == expected
    with pytest.raises(ValueError, match="range.*write the lowest and the highest"):
        config({"kind": "imported", "path": "x", "range": [5, 5]})


def test_a_folder_of_dicom(tmp_path, store, images_of):
    dicom = pytest.importorskip("tests.generators.common.test_dicom").dicom
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 65
    for i, name in enumerate(BOTH):
        path = (tmp_path / name).with_suffix(".dcm")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom(np.roll(ramp, i), WindowCenter="2048", WindowWidth="1024"))
    src = source(tmp_path, channels=1)
    src.check()
    found = images_of(store, ingest.ingest(store, src).train)[0, ..., 0]
    assert np.array_equal(found, np.rint(255 * ((ramp - 2047.5) / 1023 + 0.5).clip(0, 1)))
    (tmp_path / "train/a/0.dcm").rename(tmp_path / "train/a/IM000001")
    refused(tmp_path, "1 of 3 files are DICOM; rename them to end in .dcm, such as .*IM000001")


def test_mixed_sizes_are_found_before_anything_runs(both, encode, painted):
    source(both).check()
    (both / "test/b/2.png").write_bytes(encode(painted(1, size=(9, 12))))
    with pytest.raises(UserError, match="the first is 8×8, test/b/2.png is 9×12 .*; set size"):
        source(both).check()
    assert source(both, size=8).check is None


# What newcomers bring -----------------------------------------------------------------------------


def test_files_are_found_however_a_table_writes_them(tmp_path, write_tree):
    root = write_tree(
        tmp_path, [f"cafe\u0301/{i}.png" for i in range(6)] + [f"tea/{i}.png" for i in range(6)]
    )
    rows = [*(f"caf\u00e9/{i}.png,a" for i in range(6)), *(f"tea\\{i},b" for i in range(6))]
    (root / "t.csv").write_text("file,label\n" + "\n".join(rows))
    assert source(root, labels="t.csv", test=0.2).shape.train_counts == (5, 5)
    shutil.copy(root / "tea/3.png", root / "tea/3.jpg")
    refused(root, "t.csv:11: 'tea.*3' may be tea/3.* or tea/3", labels="t.csv", test=0.2)


def test_a_column_that_names_splits_is_followed_whatever_it_is_called(tmp_path, write_tree):
    """Dividing anew what its owner has divided would put his test images into train."""
    root = write_tree(tmp_path, [f"{i}.png" for i in range(12)])
    rows = [f"{i}.png,{'ab'[i % 2]},{'TEST' if i < 4 else 'train'}" for i in range(12)]
    (root / "t.csv").write_text("file,label,subset\n" + "\n".join(rows))
    src = source(root, labels="t.csv")
    assert src.shape.test_counts == (2, 2) and src.shape.train_counts == (4, 4)
    assert "splits column 'subset'" in src.told[0]
    refused(root, "dataset.test: t.csv has a test split; leave it out", labels="t.csv", test=0.2)


def test_groups_on_both_sides_of_a_table_are_told(tmp_path, write_tree):
    root = write_tree(tmp_path, [f"{i}.png" for i in range(12)])
    rows = [f"{i}.png,{'ab'[i % 2]},{'test' if i < 4 else 'train'},p{i % 5}" for i in range(12)]
    (root / "t.csv").write_text("file,label,split,patient\n" + "\n".join(rows))
    told = source(root, labels="t.csv").told
    assert any("4 of the 4 values of 'patient' in test are in train too" in line for line in told)
    refused(root, "4 groups, such as 'p0'", labels="t.csv", group="patient")


def test_splits_inside_of_classes_are_not_mixed(tmp_path, write_tree):
    names = [
        f"{c}/{s}/{i}.png" for c in "ab" for s, n in (("train", 6), ("test", 3)) for i in range(n)
    ]
    root = write_tree(tmp_path, names)
    refused(root, "a has the splits test and train in it; write test/a and train/a", test=0.2)


@pytest.mark.parametrize(
    ("cells", "classes"),
    [(["1.0", "0.0"], ("0", "1")), (["1.0", "0.5"], ("0.5", "1.0")), (["1.0", "b"], ("1.0", "b"))],
)
def test_numbers_that_were_written_with_a_point_are_the_same_classes(
    tmp_path, write_tree, cells, classes
):
    root = write_tree(tmp_path, [f"{i}.png" for i in range(8)])
    (root / "t.csv").write_text(
        "file,label\n" + "".join(f"{i}.png,{cells[i % 2]}\n" for i in range(8))
    )
    assert source(root, labels="t.csv", test=0.25).classes == classes


@pytest.mark.parametrize("cell", ["NaN", "nan", "<NA>", "null", " "])
def test_what_is_missing_is_no_class(tmp_path, write_tree, cell):
    root = write_tree(tmp_path, [f"{i}.png" for i in range(8)])
    rows = [f"{i}.png,{cell if i in (3, 5) else 'ab'[i % 2]}" for i in range(8)]
    (root / "t.csv").write_text("file,label\n" + "\n".join(rows))
    refused(root, "t.csv:5: no label; fill it in, or remove the row", labels="t.csv", test=0.2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train-000000.tar", "train-000000.tar cannot be read as a tar"),  # of a WebDataset
        ("archive.zip", "is an archive; unpack it, and name the folder"),
        ("data.TAR.GZ", "is an archive; unpack it, and name the folder"),
    ],
)
def test_an_archive_is_to_be_unpacked(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path, f"has no class folders; {name} is an archive: unpack it first", test=0.2)
    with pytest.raises(UserError, match=message):
        looking.look(str(tmp_path / name))


def test_an_address_is_no_file(tmp_path, write_tree):
    root = write_tree(tmp_path, ["0.png"])
    (root / "t.csv").write_text("file,label\nhttps://x.example/0.png,a\n")
    refused(root, "https://x.example/0.png is an address; download", labels="t.csv", test=0.2)


def test_names_in_a_table_may_lack_their_folder(tmp_path, write_tree):
    root = write_tree(tmp_path, [f"images/deep/{i}.png" for i in range(12)])
    rows = [f"{i}.png,{'ab'[i % 2]}" for i in range(6)] + [
        f"{i},{'ab'[i % 2]}" for i in range(6, 12)
    ]
    (root / "t.csv").write_text("file,label\n" + "\n".join(rows))
    assert source(root, labels="t.csv", test=0.2).shape.train_counts == (5, 5)
    shutil.copy(root / "images/deep/3.png", root / "images/3.png")
    refused(root, "t.csv:5: '3.png' may be images/.*; write its folder", labels="t.csv", test=0.2)


def test_a_column_for_each_class_is_told(tmp_path, write_tree):
    root = write_tree(tmp_path, [f"{i}.png" for i in range(4)])
    (root / "t.csv").write_text("image,MEL,NV\n" + "".join(f"{i},{i % 2}.0,{1 - i % 2}.0\n" for i in range(4)))  # fmt: skip
    message = "no column of the label; it has image, MEL, NV; are MEL, NV … a column for each class"
    refused(root, message, labels="t.csv", test=0.2)


def test_one_class_folder_is_no_set(tmp_path, write_tree):
    write_tree(tmp_path / "a", [f"set/images/{c}/{i}.png" for c in "xy" for i in range(4)])
    refused(
        tmp_path / "a", "one class folder, 'set'; did you mean .*a/set, which has images", test=0.2
    )
    write_tree(tmp_path / "b", [f"images/{i}.png" for i in range(4)])
    (tmp_path / "b/t.csv").write_text("nothing")
    refused(tmp_path / "b", "'images'; does t.csv say .*Set labels: t.csv", test=0.2)
    write_tree(tmp_path / "c", [f"{s}/x/{i}.png" for s in ("train", "test") for i in range(4)])
    refused(tmp_path / "c", "one class folder, 'x'; a classifier needs two")


def test_patients_with_one_image_each_leak_nothing(tmp_path, write_tree):
    names = [f"{c}/patient{10 * i + k}.png" for k, c in enumerate("ab") for i in range(8)]
    root = write_tree(tmp_path / "apart", names)
    assert source(root, test=0.25).shape.test_counts == (2, 2)
    root = write_tree(tmp_path / "same", [f"{c}/patient{i}.png" for c in "ab" for i in range(8)])
    refused(root, "16 names tell whom they are of", test=0.25)


def test_the_folder_inside_is_named(tmp_path, write_tree):
    write_tree(tmp_path / "set", BOTH)
    refused(tmp_path, "has no folder train; it has set; did you mean .*/set")


def test_classes_that_differ_in_case_or_a_space_are_told_apart(both):
    shutil.move(both / "test/a", both / "test/A")
    refused(both, "class 'A' is in test and not in train.*; 'a' is another class to us")
    shutil.move(both / "test/A", both / "test/a ")
    refused(both, "class 'a ' is in test .*'a' is another class to us")


def test_the_first_failure_is_told_where_nothing_decodes(tmp_path):
    for name in BOTH:
        path = tmp_path / name.replace(".png", ".tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), -1000, np.int32)).save(path)
    src = source(tmp_path)
    with pytest.raises(UserError, match="can be decoded .its grey levels run from -1000 to -1000"):
        src.contents()
    refused(tmp_path, "dataset.range: .0, inf.", range=[0, float("inf")])
    assert source(tmp_path, range=[-1000, 400]).shape.image == (8, 8, 3)


def test_one_number_written_twice_has_no_order(tmp_path, write_tree):
    root = write_tree(
        tmp_path, [f"{s}/{c}/0.png" for s in ("train", "test") for c in ("01", "1", "2")]
    )
    refused(root, "the classes '01' and '1' are one number", class_names=list("abc"))
