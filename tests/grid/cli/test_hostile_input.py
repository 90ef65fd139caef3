"""Whatever a spec, a file or an address holds ends as bad input in one line, at once. A table of what
people and fuzzers come up with; a case that ends as a fault (70) is one.
"""

import os
import re
import time

import numpy as np
import pytest
import yaml

from equigrid.grid.cli import entry
from equigrid.grid.errors import ExitCode

DEEP = "a: " + "[" * 3000 + "]" * 3000
TENFOLD = "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
MERGED = "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 12))
LONG = 5000 * "x"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "0")


def refused(capsys, *arguments, code: ExitCode = ExitCode.BAD_INPUT, within_s: float = 20) -> str:
    """The line that a command ends with; it must be one, and the code the one for that."""
    began = time.monotonic()
    ended = entry.outcome([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert ended == code, said
    assert re.fullmatch(r"equigrid: [^\n]*\n", said), said
    assert len(said) < 3000
    assert time.monotonic() - began < within_s
    return said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a spec is a mapping"), ("- 1\n", "a spec is a mapping"), ("a: 1\n---\nb: 2\n", "another document"),
        (DEEP, "nested too deeply"),
        ("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + TENFOLD, "aliases unfold to more than 100,000 values"),
        ("a0: &a0 {k: 1}\n" + MERGED, "aliases unfold to more than 100,000 values"),
        ("name: &a [*a]\n", "an alias stands inside what it stands for"),
        ("&a\nname: *a\n", "an alias stands inside what it stands for"),
        ("? [a, b]\n: 1\n", "a key is a word or a number"), ("name: *nobody\n", "undefined alias"),
        ("name: 2020-13-45\n", "not of its type"), (f"name: {'9' * 6000}\n", "a number of 6,000 characters"),
        ("name: !!int x\n", "not of its type"), ("name: !!bool x\n", "not of its type"),
        ("name: !!timestamp x\n", "not of its type"), ("name: !!int ''\n", "not of its type"),
        ("name: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("name: 'abc\n  def\n", "spec.yaml:3: not YAML"), ("name:\t- [\n", "not YAML"),
        (b"name: a\0b\n", "not YAML"), (bytes(range(256)), "no text in UTF-8"), ("name: x".encode("utf-16"), "no text in UTF-8"),
        (b"# " + bytes(2**21), "larger than 1,048,576 bytes"),
    ],
    ids=range(23),
)  # fmt: skip
def test_files_that_are_no_spec(tmp_path, capsys, text, said):
    (tmp_path / "spec.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert said in refused(capsys, "plan", "spec.yaml")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("name", "../..", "name: '../..'"), ("name", LONG, "name:"), ("name", None, "name"),
        ("dataset", {}, "dataset"), ("dataset", {"npz": 5}, "5; write where the set lies, as text"), ("dataset", {"npz": ["a"]}, "as text"),
        ("dataset", {"npz": None}, "npz"), ("dataset", {"imagefolder": "~nobody-of-that-name/x"}, "home directory"),
        ("dataset", {"parquet": "p", "label": 5}, "dataset.label: 5 is no text"),
        ("dataset", {"imagenet": "x", "classes": 5}, "dataset.classes: 5 is no text"),
        ("recipe/extends", [], "extends is the name of a recipe"), ("recipe/extends", {"a": 1}, "extends is the name"),
        ("recipe/steps", -1, "steps"), ("classifiers", [[]], "classifiers"), ("classifiers", [], "classifiers"),
        ("generators/edm/kind", [], "generator kind [] is unknown"), ("generators/edm/preset", {}, "preset {} is unknown"),
        ("generators/edm/training", "x", "training"), ("generators/edm/seeds", [-1], "seeds"),
        ("seeds", [-1], "seeds.0"), ("seeds", [0.5], "seeds.0"), ("execution/gpus", 7, "gpus"), ("execution/cpus", 0, "cpus"),
        ("execution/threads", "many", "threads"), ("blocks", [], "blocks"), ("blocks/0/n_base", [10**12], "n_base"),
        ("blocks/0/real", [1e308], "more than 1,000,000,000,000 is no amount"), ("blocks/0/real", [10**400], "a number of 401 characters"),
        ("blocks/0/real", [float("nan")], "nan is no amount"), ("blocks/0/copies", [float("inf")], "is no amount"),
        ("blocks/0/real", ["9" * 400 + " images"], "is no amount"), ("blocks/0/syn", {"edm": ["-5 images"]}, "is no amount"),
        ("blocks/0/syn", {"edm": ["100000000000 images"]}, "synthetic images; 100,000,000 of a pool are the most"),
        ("blocks/0/syn", {"edm": [1e11]}, "100,000,000,000 times the base? If images were meant, write '100,000,000,000 images'"),
        ("quality", {"images": 10**12}, "quality.images"), ("blocks/0/syn", {"nobody": [1]}, "no such generator"), ("trackers", {"nobody": "x"}, "trackers"),
    ],
)  # fmt: skip
def test_values_beyond_all_sense(mini, tmp_path, capsys, place, value, said):
    *way, last = place.split("/")
    at = mini
    for key in way:
        at = at[int(key) if isinstance(at, list) else key]
    at[last] = value
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(mini, sort_keys=False))
    assert said in refused(capsys, "plan", "spec.yaml")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("folder.yaml", "Is a directory"), ("circle.yaml", "Too many levels of symbolic links"),
        (f"{LONG}.yaml", ""), (LONG, ""), ("", "no such preset"), ("..", "no such preset"),
        ("\udcff.yaml", "No such file"), ("a\nb", "no such preset"), ("/dev/null/x.yaml", "Not a directory"),
    ],
    ids=range(9),
)  # fmt: skip
def test_names_of_no_spec(tmp_path, capsys, spec, said):
    (tmp_path / "folder.yaml").mkdir()
    os.symlink("circle.yaml", "circle.yaml")
    assert said in refused(capsys, "plan", spec)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("", "an empty path; name a folder"), ("file://", "an empty path"), ("circle", "Symlink loop"),
        ("~nobody-of-that-name/x", "home directory"), ("s3://", "Not a valid bucket name"), ("s3://[x", "Invalid IPv6 URL"),
        ("nonsense://x", "Unrecognized filesystem"), ("x\0y", "holds \\x00, which no name can"), ("/dev/null", "is a file"),
        ("/dev/null/x", "Not a directory; name a folder"), ("/proc/x", "cannot be opened"),
    ],
    ids=range(11),
)  # fmt: skip
def test_addresses_of_no_store(capsys, store, said):
    os.symlink("circle", "circle")
    assert said in refused(capsys, "run", "digits", "--store", store)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon", ""])
def test_a_patience_that_is_none(capsys, monkeypatch, seconds):
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", seconds)
    assert "write seconds" in refused(capsys, "run", "digits")


def test_a_recorded_spec_of_another_version(store, capsys):
    store.put_json("grids/old/spec.json", {"name": "old", "colour": "red"})
    for command in (
        ["status", "old"],
        ["fit", "old"],
        ["report", "old"],
        ["equiv", "--n-base", 5, "--n-real", 5],
    ):
        assert "is no spec of this version" in refused(capsys, *command, "--store", store.uri)
    store.put("grids/old/spec.json", b"{")
    said = refused(capsys, "status", "old", "--store", store.uri, code=ExitCode.UNAVAILABLE)
    assert "spec.json is not the spec of a grid: is not JSON" in said


@pytest.mark.parametrize("content", ["npy", "empty", "cut", "text", "folder"])
def test_what_is_given_as_an_npz(mini, tmp_path, capsys, content):
    path = tmp_path / "x.npz"
    if content == "npy":
        with open(path, "wb") as file:
            np.save(file, np.zeros((10, 8, 8), np.uint8))
    elif content == "cut":
        np.savez(path, train_images=np.zeros((10, 8, 8), np.uint8))
        path.write_bytes(path.read_bytes()[:200])
    elif content == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"" if content == "empty" else b"some text")
    mini["dataset"] = {"npz": str(path)}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(mini))
    assert re.search("is no (.npz )?file", refused(capsys, "plan", "spec.yaml"))


@pytest.mark.long
@pytest.mark.parametrize(
    "amounts", [(-1, 5), (5, -1), (0, 0), (10**30, 1), (1, 10**30), (10**400, 1)]
)
def test_questions_without_an_answer(capsys, amounts):
    """Either a line that refuses, or an answer: never a fault."""
    n_base, n_real = amounts
    ended = entry.outcome(
        [
            "equiv",
            "--paper",
            "--dataset",
            "cifar10",
            "--n-base",
            str(n_base),
            "--n-real",
            str(n_real),
        ]
    )
    assert ended in (ExitCode.DONE, ExitCode.BAD_INPUT), capsys.readouterr().err


@pytest.mark.parametrize("where", ["spec", "--store", "--out", "--csv", "--table", "--space"])
@pytest.mark.parametrize("character", ["\0", "\ud800"])
def test_characters_that_no_path_can_hold(capsys, where, character):
    """A shell cannot pass them; who calls from Python, or a spec in YAML (`"\0"`), can."""
    text = f"a{character}b.csv"
    command = {
        "spec": ["plan", text], "--store": ["status", "x", "--store", text], "--out": ["report", "x", "--out", text],
        "--csv": ["table", "x", "--csv", text], "--table": ["fit", "--table", text], "--space": ["tune", "digits", "--space", text],
    }[where]  # fmt: skip
    assert "which no name can" in refused(capsys, *command)


def test_nor_in_a_spec(mini, tmp_path, capsys):
    for text in ("a\0b", "\ud800"):
        mini["dataset"] = {"imagefolder": text}
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(mini))
        assert "which no name can" in refused(capsys, "plan", "spec.yaml")
