"""`equigrid dataset inspect`: what a set looks like to us, without a store."""

import json
import subprocess
import sys

import numpy as np
import pytest

from equigrid.grid.authoring import looking
from equigrid.grid.datasets import catalogue, inspection
from equigrid.grid.errors import UserError


def run(*arguments, cwd=None) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "equigrid.grid.cli",
        "dataset",
        "inspect",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture
def flowers(tmp_path, write_tree, encode, painted):
    root = write_tree(
        tmp_path / "flowers",
        [
            f"{s}/{c}/{i}.png"
            for s in ("train", "test")
            for c in ("aster", "rose")
            for i in range(4)
        ],
    )
    (root / "train/rose/9.png").write_bytes((root / "train/aster/0.png").read_bytes())
    (root / "train/rose/8.png").write_bytes(b"broken")
    (root / "test/rose/9.png").write_bytes(encode(painted(3, size=(9, 12))))
    (root / "train/rose/notes.txt").write_text("x")
    return root


def test_a_folder(flowers):
    done = run(flowers, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["classes"] == ["aster", "rose"]
    assert found["counts"] == {"train": [4, 5], "test": [4, 5]}
    assert found["sizes"] == {"8×8": 17, "9×12": 1}
    assert (found["duplicates"]["train"], found["duplicates"]["labels"]) == (1, 1)
    assert found["n_broken"] == 1 and "train/rose/8.png" in found["broken"][0]
    assert found["passed_over"] == ["train/rose/notes.txt"]
    text = run(flowers).stdout
    for part in (
        "flowers: 19 images, 2 classes", "aster", "8×8 (17), 9×12 (1)", "several sizes: set size",
        "1 train images repeat an earlier one, 1 under another class", "broken: 1, such as train: train/rose/8.png",
        "passed over as no images: 1",
    ):  # fmt: skip
        assert part in text


@pytest.mark.long
def test_options_specs_tables_and_files(tmp_path, flowers, write_parquet):
    found = json.loads(
        run(
            flowers, "-o", "class_names={rose: Rosa, aster: Aster}", "-o", "size=8", "--json"
        ).stdout
    )
    assert found["classes"] == ["Aster", "Rosa"]
    assert "class names: aster is Aster, rose is Rosa" in found["told"]
    write_parquet(tmp_path / "repo/data/all.parquet", list("ab") * 10)
    found = json.loads(run(tmp_path / "repo", "-o", "test=0.2", "--json").stdout)
    assert found["counts"] == {"train": [8, 8], "test": [2, 2]}
    assert found["dataset"] == {"parquet": str(tmp_path / "repo"), "test": 0.2}
    # Without a word of ours it is split too, and that is said.
    text = run(tmp_path / "repo").stdout
    assert f"in a spec: dataset: {{parquet: {tmp_path / 'repo'}, test: 0.2}}" in text
    assert "test: there is no test split: this part of each class is held back" in text
    (flowers / "t.csv").write_text("file,label,split\n" + "".join(
        f"{s}/{c}/{i}.png,{c},{s}\n" for s in ("train", "test") for c in ("aster", "rose") for i in range(3)))  # fmt: skip
    assert json.loads(run(flowers / "t.csv", "--json").stdout)["counts"]["train"] == [3, 3]
    images, labels = np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 0, 1])
    np.savez(
        tmp_path / "x.npz",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
    )
    found = json.loads(run(tmp_path / "x.npz", "--json").stdout)
    assert (found["duplicates"]["train"], found["grey"]) == (3, 8)
    head = "name: t\nrecipe: digits\nclassifiers: [digits-cnn]\nblocks: [{n_base: [4]}]\n"
    (tmp_path / "spec.yaml").write_text(f"{head}dataset: {{imagefolder: flowers, size: 8}}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert json.loads(run(tmp_path / "spec.yaml", "--json", cwd=elsewhere).stdout)["stored"] == [
        8,
        8,
        3,
    ]


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere, and no set is called 'nowhere'"),
        (["digist"], "did you mean 'digits'"),
        (["notes.md"], "notes.md is none of these; name a folder, a table of labels"),
        (["digits", "-o", "size"], "--option 'size': write NAME=VALUE"),
        (["digits", "-o", "size=[1"], "not YAML"),
        (["digits", "-o", "size=3"], "dataset.size: digits takes no such option"),
        (["."], "has no class folders"),
        (["a\nb"], "there is no"),
    ],
)
def test_refusals_are_one_line(tmp_path, arguments, message):
    (tmp_path / "notes.md").write_text("x")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_every_set_goes_by_its_name():
    for name in ("digits", "cifar10", "bloodmnist"):
        assert looking.look(name).dataset == name
    with pytest.raises(UserError, match="and no set is called"):
        looking.look("x" * 5000)
    found = inspection.inspect(catalogue.source("digits"))
    assert sum(found["counts"]["train"]) == 1200 and found["grey"] == 1797
