"""Whatever became of a file in a store, no command ends in a fault, and none says something else
than it said of the whole store: it says what it said, or which file is wrong.

Each kind of file is damaged in every way below, and each command is run over each damage.
"""

import contextlib
import csv
import io
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from equigrid.grid.cli import entry
from equigrid.grid.errors import ExitCode
from equigrid.grid.spec import load
from equigrid.grid.store import Store, documents, layout, lock
from equigrid.grid.store.store import DIGEST, _digest

SEED = 20  # of all that is drawn here
DEEP = b"[" * 100_000 + b"]" * 100_000
HUGE = 10**400
OTHERS = (
    None,
    True,
    -1,
    HUGE,
    "x",
    "../x",
    [],
    {},
    [{}],
    {"a": 1},
    {"a_b_c": 1},
)  # in place of any value


# Damages ------------------------------------------------------------------------------------------


def of_bytes(content: bytes, draw: random.Random, flips: int) -> Iterator[tuple[str, bytes]]:
    """Damages of any file: (what, the bytes then)."""
    yield "empty", b""
    for part in (1, len(content) // 2, len(content) - 1):
        yield f"cut at {part}", content[:part]
    yield "zeros", bytes(len(content))
    yield "binary", draw.randbytes(200)
    yield "twice", content + content
    for _ in range(flips):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        yield f"bit {bit} of byte {place}", bytes(damaged)


def of_json(content: bytes, depth: int = 3) -> Iterator[tuple[str, bytes]]:
    """Damages of a JSON document: every value becomes another one, or goes."""
    tree = json.loads(content)
    yield "deep", DEEP
    yield "a number of 5,000 digits", b"9" * 5000
    for way in [(), *_ways(tree, depth)]:
        for other in OTHERS:
            yield f"{'.'.join(map(str, way))} is {_short(other)}", _with(tree, way, other)
        if way:
            yield f"{'.'.join(map(str, way))} is missing", _with(tree, way, Ellipsis)
    if isinstance(tree, dict):
        yield "one key more", json.dumps({**tree, "colour": "red"}).encode()


def with_a_right_digest(content: bytes, depth: int = 4) -> Iterator[tuple[str, bytes]]:
    """The same, written as we write: then the digest is right, and the models must refuse."""
    for what, damaged in of_json(content, depth):
        with contextlib.suppress(ValueError, RecursionError):
            tree = json.loads(damaged)
            if isinstance(tree, dict) and tree.pop(DIGEST, None) is not None:
                yield f"{what}, with a right digest", sealed(tree)


def sealed(tree: dict) -> bytes:
    return json.dumps({**tree, DIGEST: _digest(tree)}).encode()


def in_place_of(path: Path, others: list[Path]) -> Iterator[str]:
    """What is no such file, one after the other in its place: (what). A command may remove it."""
    for other in others:
        path.write_bytes(other.read_bytes())
        yield f"is {other.name}"
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "x").write_bytes(b"x")
    yield "is a folder"
    shutil.rmtree(path, ignore_errors=True)
    os.mkfifo(path)
    yield "is a pipe"
    path.unlink(missing_ok=True)
    for what, place in (("itself", path.name), ("a device", "/dev/zero"), ("nowhere", "gone")):
        path.symlink_to(place)
        yield f"is a link to {what}"
        path.unlink(missing_ok=True)
    yield "is gone"


def _ways(tree: object, depth: int) -> Iterator[tuple]:
    if not depth:
        return
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree[:1] if isinstance(tree, list) else ())
    )
    for key, value in items:
        yield (key,)
        yield from ((key, *way) for way in _ways(value, depth - 1))


def _with(tree: object, way: tuple, value: object) -> bytes:
    """The tree as JSON with another value in a place; Ellipsis: without the place."""
    if not way:
        return json.dumps(value).encode()
    tree = json.loads(json.dumps(tree))
    *before, last = way
    at = tree
    for key in before:
        at = at[key]
    if value is Ellipsis:
        del at[last]
    else:
        at[last] = value
    return json.dumps(tree).encode()


def _short(value: object) -> str:
    return "10**400" if value == HUGE else json.dumps(value)


# Commands -----------------------------------------------------------------------------------------


def commands(store: str, out: Path) -> dict[str, list[str]]:
    """Every command that reads a store, but `run`."""
    table = str(out / "table.csv")
    return {
        "status": ["status", "mini", "--json"],
        "plan": ["plan", str(out / "mini.yaml"), "--json"],
        "fit": ["fit", "mini", "--json"],
        "equiv": ["equiv", "--n-base", "60", "--n-real", "60", "--json"],
        "table": ["table", "mini", "--csv", table],
        "grids": ["grids", "--json"],
        "gc": ["gc", "--json"],
        "export": ["pool", "export", "mini", "edm", "--n-base", "60", "--to", str(out / "images")],
        "report": ["report", "mini", "--out", str(out / "report")],
    }


class Said:
    """What a command said: its code, its lines to standard error, and what it found."""

    def __init__(self, name: str, arguments: list[str], out: Path):
        shutil.rmtree(out / "images", ignore_errors=True)
        (out / "table.csv").unlink(missing_ok=True)
        found, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(found), contextlib.redirect_stderr(told):
            self.code = entry.outcome(arguments)
        self.told, self.found = told.getvalue(), found.getvalue()
        if name == "table" and self.code == ExitCode.DONE:
            with open(out / "table.csv", newline="") as file:
                self.found = str(sorted(map(str, csv.DictReader(file))))
        self.found = _facts(name, self)

    def wrong(self, name: str, whole: "Said") -> str | None:
        """What is wrong with it, where the whole store said `whole`."""
        if self.code == ExitCode.FAULT or "Traceback" in self.told:
            return f"a fault: {self.told.strip()[:300]}"
        silent = name != "grids" or self.found != "[]"
        if self.code == whole.code and self.found != whole.found and silent:
            return f"says something else: {self.found[:300]} not {whole.found[:300]}"
        if self.code not in (whole.code, ExitCode.UNAVAILABLE, ExitCode.BAD_INPUT):
            return f"ends with {self.code}: {self.told.strip()[:300]}"
        if self.code != whole.code and not self.told.strip():
            return "fails without a word"
        return None


def _facts(name: str, said: Said) -> str:
    """What must not change silently."""
    if said.code not in (ExitCode.DONE, ExitCode.FAILED_CELLS):
        return ""
    if name == "status":
        content = json.loads(said.found)
        return json.dumps(
            [content["cells"], content["cells_done"], [one["id"] for one in content["failures"]]]
        )
    if name == "grids":  # one that cannot be planned says why in its line
        lines = json.loads(said.found)
        return json.dumps([[one["name"], one["done"]] for one in lines if not one["trouble"]])
    return said.found if name in ("fit", "equiv", "table") else ""


def kinds(store: Path) -> dict[str, Path]:
    """One file of each kind in a store: by its name without ids and digests."""
    found: dict[str, Path] = {}
    for path in sorted(store.rglob("*")):
        if path.is_file():
            name = re.sub(r"[0-9a-f]{6,}|\d+", "#", str(path.relative_to(store)))
            found.setdefault(name, path)
    return found


# Tests --------------------------------------------------------------------------------------------


@pytest.fixture
def filled(finished_mini, mini, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A copy of the finished store, in which something failed too and a driver left its lock; and a
    folder for what commands write.
    """
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "0")
    monkeypatch.setattr(documents, "_told", set())
    shutil.copytree(finished_mini[0].uri, tmp_path / "store")
    store, plan = Store(tmp_path / "store", create=True), finished_mini[2]
    (generator, *_) = [job.id for job in plan.of_kind("generator")]
    store.put_json(layout.failure(generator, "a"), {"id": generator, "kind": "generator", "error": "ValueError: x", "at": "now"})  # fmt: skip
    lock.acquire(store, "mini")._over.set()
    _age(tmp_path / "store" / layout.lock("mini"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mini.yaml").write_text(yaml.safe_dump(mini))
    return tmp_path / "store", tmp_path / "out"


def _age(path: Path) -> None:
    os.utime(path, (10**9, 10**9))


def wrongs(
    filled: tuple[Path, Path], names: set[str], *, of_bytes_n: int, of_json_n: int, flips: int = 1
) -> list[str]:
    """What goes wrong when each kind of file is damaged in so many ways, drawn from all."""
    store, out = filled
    draw, found = random.Random(SEED), []
    chosen = {n: [*a, "--store", str(store)] for n, a in commands("", out).items() if n in names}
    whole = {name: Said(name, arguments, out) for name, arguments in chosen.items()}
    assert all(said.code == ExitCode.DONE for said in whole.values()), [
        s.told for s in whole.values()
    ]
    n = 0
    for kind, path in kinds(store).items():
        content = path.read_bytes()
        every = list(of_bytes(content, draw, flips))
        damages = [every[0], *draw.sample(every[1:], min(of_bytes_n, len(every) - 1))]
        if path.suffix == ".json":
            every = list(of_json(content))
            damages += draw.sample(every, min(of_json_n, len(every)))
        for what, damaged in damages:
            path.write_bytes(damaged)
            if path.name == "lock.json":
                _age(path)
            for name, arguments in chosen.items():
                n += 1
                if wrong := Said(name, arguments, out).wrong(name, whole[name]):
                    found.append(f"{kind}, {what}, {name}: {wrong}")
            path.parent.mkdir(
                parents=True, exist_ok=True
            )  # gc may have taken it with its last file
            path.write_bytes(content)
    print(f"seed {SEED}: {n:,} commands over damaged stores, {len(found)} wrong")
    return found


def faults(filled: tuple[Path, Path], names: set[str], *, sealed_n: int) -> list[str]:
    """What ends in a fault, or without a word, where documents say other things with a right
    digest, and where something else lies in place of a file. What they say then may be believed:
    digests find accidents, not forgers.
    """
    store, out = filled
    draw, found, n = random.Random(SEED), [], 0
    chosen = {n: [*a, "--store", str(store)] for n, a in commands("", out).items() if n in names}
    files = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}

    def check(what: str) -> None:
        nonlocal n
        for name, arguments in chosen.items():
            said, n = Said(name, arguments, out), n + 1
            if said.code == ExitCode.FAULT or (said.code and not said.told.strip()):
                found.append(f"{what}, {name}: {said.told.strip()[:300] or 'nothing is said'}")

    def restored() -> None:
        for path, content in files.items():
            if path.is_symlink() or not path.is_file():
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    for kind, path in kinds(store).items():
        every = list(with_a_right_digest(files[path])) if path.suffix == ".json" else []
        for what, damaged in draw.sample(every, min(sealed_n, len(every))):
            path.write_bytes(damaged)
            check(f"{kind}, {what}")
            restored()
        path.write_bytes(files[path])
        alike = [other for other in files if other.suffix == path.suffix and other != path]
        for what in in_place_of(path, draw.sample(alike, min(2, len(alike)))):
            check(f"{kind} {what}")
            path.parent.mkdir(parents=True, exist_ok=True)
        restored()
        path.write_bytes(files[path])
    print(f"seed {SEED}: {n:,} commands over stores of other words and things, {len(found)} wrong")
    return found


@pytest.mark.long
def test_no_command_falls_over_other_words_and_things(filled):
    assert faults(filled, {"status", "table", "gc", "grids"}, sealed_n=3) == []


@pytest.mark.slow
def test_no_command_falls_over_any_other_words_and_things(filled):
    assert faults(filled, {*commands("", Path())}, sealed_n=40) == []


@pytest.mark.long
def test_no_command_falls_over_a_damaged_file(filled):
    assert (
        wrongs(filled, {"status", "table", "gc", "grids", "export"}, of_bytes_n=1, of_json_n=3)
        == []
    )


@pytest.mark.slow
def test_no_command_falls_over_any_damaged_file(filled):
    names = {*commands("", Path())}
    assert wrongs(filled, names, of_bytes_n=20, of_json_n=80, flips=20) == []


def test_nor_over_what_does_not_belong_there(filled):
    """A file manager's files, empty ones, ours under other names: in every folder."""
    store, out = filled
    names = ("status", "table", "gc", "grids", "export", "plan")
    chosen = {n: [*a, "--store", str(store)] for n, a in commands("", out).items() if n in names}
    whole = {name: Said(name, arguments, out) for name, arguments in chosen.items()}
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    for folder in folders:
        for stray in (".DS_Store", "Thumbs.db", "stray.json", "1.safetensors", "x-y-z"):
            (folder / stray).write_bytes(b"")
        (folder / "an empty folder").mkdir()
    found = {name: Said(name, arguments, out) for name, arguments in chosen.items()}
    assert {n: said.wrong(n, whole[n]) for n, said in found.items()} == dict.fromkeys(chosen)


def test_a_first_start_that_failed_stops_nothing(filled, mini, tmp_path):
    """It records nothing; what an earlier release recorded is passed over."""
    store, out = filled
    mini |= {"name": "gone", "dataset": {"imagefolder": str(tmp_path / "nowhere")}}
    spec = out / "gone.yaml"
    spec.write_text(yaml.safe_dump(mini))
    assert entry.outcome(["run", str(spec), "--store", str(store)]) == ExitCode.BAD_INPUT
    assert not (store / "grids/gone/spec.json").exists()
    Store(store).put_json(layout.spec("gone"), {**load({**mini, "dataset": "digits"}).model_dump(mode="json"), "dataset": mini["dataset"]})  # fmt: skip
    for name, arguments in commands("", out).items():
        if name in ("status", "gc", "grids", "plan", "table"):
            said = Said(name, [*arguments, "--store", str(store)], out)
            assert said.code == ExitCode.DONE, said.told


@pytest.mark.long
@pytest.mark.usefixtures("one_slot")
def test_a_run_makes_again_what_is_damaged(
    filled, mini, finished_mini, outcomes, ray_here, tmp_path
):
    """The manifests of a pool, of generators and of the dataset; results come out as ever."""
    from equigrid.grid.running import driver

    mini["seeds"] = [2]
    shutil.copytree(finished_mini[0].uri, tmp_path / "whole")
    whole = Store(tmp_path / "whole")
    damaged, console = Store(filled[0]), Console(file=io.StringIO())
    for pattern in ("pools/*/*.json", "generators/*/manifest.json", "datasets/*/dataset.json"):
        for number, path in enumerate(sorted(filled[0].glob(pattern))):
            content = path.read_bytes()
            path.write_bytes((b"", content[: len(content) // 2], b"[]")[number % 3])
    for store in (whole, damaged):
        summary, _ = driver.run(load(mini), store, console=console)
        assert not summary.failures and summary.jobs["trial"] == 9
    assert outcomes(damaged) == outcomes(whole)
    assert "is not the manifest of a dataset" in " ".join(console.file.getvalue().split())
