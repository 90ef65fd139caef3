"""`equigrid init` on sets as people have them: whatever it writes, `plan` accepts."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from equigrid.generators.quality.config import METRICS
from equigrid.grid.authoring import machine, proposing, writing
from equigrid.grid.authoring.machine import Machine
from equigrid.grid.cli import entry
from equigrid.grid.errors import UserError
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load

LAPTOP, WORKSTATION = Machine(2), Machine(16, ("NVIDIA H200",))


def save(path: Path, seed: int, size: tuple[int, int] = (32, 32), *, grey: bool = False) -> Path:
    """A PNG of noise; size: (height, width)."""
    shape = size if grey else (*size, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)
    return path


def folders(root: Path, counts: dict[str, int], **options) -> Path:
    """CLASS/NAME for each count, under names that say nothing of groups."""
    words = [
        "apple",
        "stone",
        "river",
        "cloud",
        "tower",
        "plant",
        "night",
        "glass",
        "paper",
        "field",
    ]
    for label, (name, n) in enumerate(counts.items()):
        for i in range(n):
            word = "".join(words[int(digit)] for digit in f"{i:03d}")
            save(root / name / f"{word}.png", 1000 * label + i, **options)
    return root


def rows_of_images(n: int, classes: int = 2, size: tuple[int, int] = (16, 16)) -> dict[str, list]:
    import io

    cells = []
    for i in range(n):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    return {"image": cells, "label": [i % classes for i in range(n)]}


def write_parquet(path: Path, columns: dict[str, list]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


# Places -------------------------------------------------------------------------------------------


def split_folders(root: Path) -> Path:
    folders(root / "train", {"cat": 30, "dog": 30})
    folders(root / "test", {"cat": 5, "dog": 5})
    return root


def folders_with_val(root: Path) -> Path:
    folders(root / "train", {"0": 20, "1": 20, "2": 20}, size=(28, 28), grey=True)
    folders(root / "val", {"0": 5, "1": 5, "2": 5}, size=(28, 28), grey=True)
    return root


def bare_folders(root: Path) -> Path:
    return folders(root, {"rose": 40, "tulip": 40}, size=(64, 64))


def mixed_sizes(root: Path) -> Path:
    folders(root, {"a": 20}, size=(120, 90))
    return folders(root, {"b": 20}, size=(70, 200))


def forty_images(root: Path) -> Path:
    return folders(root, {"ein Haus": 20, "größer": 20}, size=(24, 24))


def uneven(root: Path) -> Path:
    return folders(root, {"common": 110, "rare": 30, "rarest": 6}, size=(16, 16))


def oblong(root: Path) -> Path:
    return folders(root, {"a": 20, "b": 20}, size=(24, 48))


def odd(root: Path) -> Path:
    return folders(root, {"a": 20, "b": 20}, size=(27, 27))


def tiny(root: Path) -> Path:
    return folders(root, {"a": 20, "b": 20}, size=(6, 6))


def huge(root: Path) -> Path:
    return folders(root, {"a": 8, "b": 8}, size=(480, 640))


def table_beside(root: Path) -> Path:
    lines = ["file,label"]
    for i in range(40):
        save(root / "images" / f"{'abcdefghij'[i % 10]}{'klmn'[i // 10]}.png", i)
        lines.append(
            f"images/{'abcdefghij'[i % 10]}{'klmn'[i // 10]}.png,{'yes no'.split()[i % 2]}"
        )
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def the_table_itself(root: Path) -> Path:
    return table_beside(root) / "labels.csv"


def table_with_patients(root: Path) -> Path:
    lines = ["image\tdiagnosis\tpatient_id".replace("diagnosis", "class")]
    for i in range(60):
        save(root / f"{i}.png", i)
        lines.append(f"{i}.png\t{'ill well'.split()[i % 2]}\tp{i // 3}")
    (root / "table.tsv").write_text("\n".join(lines) + "\n")
    return root


def table_in_parquet(root: Path) -> Path:
    names = [f"{i}.png" for i in range(40)]
    for i, name in enumerate(names):
        save(root / name, i)
    split = ["test" if i % 5 == 0 else "train" for i in range(40)]
    write_parquet(
        root / "labels.parquet",
        {"file": names, "label": ["ab"[i // 2 % 2] for i in range(40)], "split": split},
    )
    return root


def patients_in_names(root: Path) -> Path:
    for i in range(60):
        save(root / "ab"[i % 2] / f"patient{i // 4:02d}_{i % 4}.png", i)
    return root


def patients_in_folders(root: Path) -> Path:
    for i in range(60):
        save(root / "ab"[i % 2] / f"case-{i // 4}" / f"{i % 4}.png", i)
    return root


def series(root: Path) -> Path:
    for i in range(60):
        save(root / "ab"[i % 2] / f"{'uvwxyz'[i // 10]}q{'mn'[i // 4 % 2]}_{i}.png", i)
    return root


def npz(root: Path) -> Path:
    draw = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 60), ("val", 10), ("test", 20)):
        arrays[f"{split}_images"] = draw.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 4)[:, None]
    root.mkdir(parents=True)
    np.savez(root / "set.npz", **arrays)
    return root / "set.npz"


def folder_of_an_npz(root: Path) -> Path:
    return npz(root).parent


def parquet(root: Path) -> Path:
    write_parquet(root / "train-00000-of-00001.parquet", rows_of_images(40))
    write_parquet(root / "test-00000-of-00001.parquet", rows_of_images(10))
    return root


def cloned_repository(root: Path) -> Path:
    parquet(root / "data")
    (root / "README.md").write_text("a set\n")
    return root


def parquet_without_test(root: Path) -> Path:
    write_parquet(root / "train-00000-of-00001.parquet", rows_of_images(60, classes=3))
    return root


def one_parquet_file(root: Path) -> Path:
    return write_parquet(root / "all.parquet", rows_of_images(60))


def parquet_with_patients(root: Path) -> Path:
    columns = rows_of_images(60)
    columns["patient"] = [f"p{i // 4}" for i in range(60)]
    return write_parquet(root / "scans.parquet", columns)


def imagenet(root: Path) -> Path:
    for split, n in (("train", 8), ("val", 2)):
        folders(root / split, {"n02108915": n, "n02114367": n}, size=(300, 400))
    return root


PLACES = [
    split_folders, folders_with_val, bare_folders, mixed_sizes, forty_images, uneven, oblong, odd,
    tiny, huge, table_beside, the_table_itself, table_with_patients, table_in_parquet,
    patients_in_names, patients_in_folders, series, npz, folder_of_an_npz, parquet,
    cloned_repository, parquet_without_test, one_parquet_file, parquet_with_patients, imagenet,
]  # fmt: skip


# Tests --------------------------------------------------------------------------------------------


def command(*arguments: object) -> int:
    """An `equigrid` command in this process; its exit code. Raises what it would tell."""
    return entry.app([str(one) for one in arguments], standalone_mode=False) or 0


@pytest.mark.parametrize("place", PLACES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("here", [LAPTOP, WORKSTATION], ids=["laptop", "workstation"])
def test_what_init_writes_plan_accepts(place, here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "this_machine", lambda: here)
    at = place(tmp_path / "set")
    file = tmp_path / "out.yaml"
    assert command("init", at, "--out", file) == 0
    assert command("plan", file, "--store", tmp_path / "store", "--json") == 0
    out = capsys.readouterr().out
    content = json.loads(out[out.index("\n{") :])
    assert content["cells"] >= 6, "a base, real, synthetic and copied images"
    assert all(len(line) <= 100 for line in file.read_text().splitlines() if line[:1] == "#")


def test_a_known_set_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command("init", "digits") == 0
    assert load(tmp_path / "digits.yaml").dataset == "digits"


def test_the_text_says_what_the_mapping_says(tmp_path):
    for place in (bare_folders, table_with_patients, parquet):
        proposal = proposing.propose(str(place(tmp_path / place.__name__)), LAPTOP)
        assert yaml.safe_load(writing.text(proposal)) == proposal.spec
        assert load(yaml.safe_load(writing.text(proposal))) == proposing.checked(proposal)


def options(place: Path, here: Machine = LAPTOP, **asked) -> dict:
    found = proposing.propose(str(place), here, **asked).spec["dataset"]
    return dict(list(found.items())[1:])


def test_a_split_is_made_where_there_is_none_alone(tmp_path):
    assert options(bare_folders(tmp_path / "a"))["test"] == 0.2
    assert "test" not in options(split_folders(tmp_path / "b"))
    assert "test" not in options(parquet(tmp_path / "c"))
    assert options(one_parquet_file(tmp_path / "d"))["test"] == 0.2


def test_patients_stay_on_one_side(tmp_path):
    assert options(table_with_patients(tmp_path / "a"))["group"] == "patient_id"
    assert options(parquet_with_patients(tmp_path / "b"))["group"] == "patient"
    for make, n in ((patients_in_names, 15), (patients_in_folders, 15), (series, 6)):
        place = make(tmp_path / make.__name__)
        spec = proposing.checked(proposing.propose(str(place), LAPTOP))
        source = resolve(spec, None).source
        assert source.grouped
        told = " ".join(source.told)
        assert f"{n} " in told or "groups" in told, told
    assert options(patients_in_names(tmp_path / "c"), group="none")["group"] == "none"


def test_what_is_so_already_is_no_reason_to_refuse(tmp_path):
    """`--group none` for a set that knows no groups, `--size` for one of that size. A group that
    it cannot have is refused still.
    """
    place = npz(tmp_path / "a")
    assert options(place, group="none") == options(place)
    assert options(split_folders(tmp_path / "b"), group="none")["group"] == "none"
    known = proposing.propose("digits", LAPTOP, group="none", size=8).spec["dataset"]
    assert known == proposing.propose("digits", LAPTOP).spec["dataset"]
    with pytest.raises(UserError, match="npz takes no such option"):
        options(place, group="patient")
    with pytest.raises(UserError, match="leave --size out"):
        proposing.propose("digits", LAPTOP, size=16)


def test_groups_that_no_pattern_finds_are_refused_not_split(tmp_path):
    """All names tell of one patient: any split leaks, so none is proposed."""
    for i in range(40):
        save(tmp_path / "ab"[i % 2] / f"patient1_{'xyz'[i % 3]}{i}.png", i)
    with pytest.raises(UserError, match="has images of 1 groups"):
        proposing.propose(str(tmp_path), LAPTOP)


def test_sizes_are_what_the_machine_can_learn(tmp_path):
    large = mixed_sizes(tmp_path / "a")
    assert options(large)["size"] == 32
    assert options(large, WORKSTATION)["size"] == 64
    assert "size" not in options(forty_images(tmp_path / "b"))
    assert options(large, size=48)["size"] == 48
    with pytest.raises(UserError, match="leave --size out"):
        options(npz(tmp_path / "c"), size=16)


def test_pools_are_measured_where_they_are_large_enough(tmp_path):
    large = uneven(tmp_path / "a")
    asked = [
        proposing.checked(proposing.propose(str(large), each)) for each in (LAPTOP, WORKSTATION)
    ]
    assert [each.quality.metrics for each in asked] == [METRICS, METRICS]
    # What a laptop would wait for is not downloaded.
    assert [each.quality.extractor for each in asked] == ["classifier", "auto"]
    few = folders(tmp_path / "b", {"a": 7, "b": 7})
    assert proposing.checked(proposing.propose(str(few), LAPTOP)).quality.metrics == ()


def test_grey_images_stay_grey(tmp_path):
    assert options(folders_with_val(tmp_path / "a"))["channels"] == 1
    assert "channels" not in options(bare_folders(tmp_path / "b"))
    tinted = folders(tmp_path / "c", {"a": 20}, grey=True)
    folders(tmp_path / "c", {"b": 20})
    assert "channels" not in options(tinted), "half of the set has colours"


def test_bases_have_every_class_and_images_left_to_add(tmp_path):
    proposal = proposing.propose(str(uneven(tmp_path / "a")), LAPTOP)
    the_plan = plan(resolve(proposing.checked(proposal), None))
    assert any("uneven" in line for line in proposal.about)
    arms = {cell.arm for cell in the_plan.cells}
    assert {"base", "real", "syn", "copies"} <= arms


def test_what_cannot_be_is_said_in_a_line(tmp_path):
    folder = tmp_path / "photos"
    save(folder / "one.png", 1)
    note = tmp_path / "notes.docx"
    note.write_text("labels")
    for place, text in (
        (tmp_path / "nowhere", "there is no"),
        (folder, "in no class folder"),
        (note, "none of these"),
    ):
        with pytest.raises(UserError, match=text):
            proposing.propose(str(place), LAPTOP)


def test_no_file_is_replaced_unasked(tmp_path):
    place, file = bare_folders(tmp_path / "set"), tmp_path / "mine.yaml"
    file.write_text("mine")
    with pytest.raises(UserError, match="--force"):
        command("init", place, "--out", file)
    assert file.read_text() == "mine"
    assert command("init", place, "--out", file, "--force", "--name", "mine") == 0
    assert load(file).name == "mine"


def test_init_is_light(tmp_path):
    """Neither torch nor Ray is imported: it must answer fast."""
    place = bare_folders(tmp_path / "set")
    code = (
        f"import sys; sys.argv = ['equigrid', 'init', {str(place)!r}, '--out', '-']\n"
        "import equigrid.grid.cli\n"
        "try: equigrid.grid.cli.main()\n"
        "except SystemExit: print(sorted({'torch', 'ray'} & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ran.stderr.strip() == "[]"
    assert yaml.safe_load(ran.stdout)["name"] == "set"
