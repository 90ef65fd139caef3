"""A small grid on the digits that runs in seconds, and one local Ray for all tests that need it in
this process.
"""

import copy
import io
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from rich.console import Console

MINI = {
    "name": "mini",
    "dataset": "digits",
    "recipe": {"extends": "digits", "steps": 15},
    "classifiers": ["digits-cnn"],
    "generators": {
        "edm": {
            "kind": "edm",
            "preset": "digits",
            "training": {"total_nimg": 640},
            "sampler": {"steps": 4},
        }
    },
    "subset_seeds": [0],
    "seeds": [0, 1],
    "execution": {"gpus": 0},
    "quality": "off",
    "blocks": [{"n_base": [60, 120], "real": [1], "syn": {"edm": [1, 2]}, "copies": [1]}],
}


@pytest.fixture
def mini() -> dict:
    """The small grid's mapping: 2 generators, 2 shards, 18 trials for 20 cells; a test may change
    its copy.
    """
    return copy.deepcopy(MINI)


@pytest.fixture
def one_slot(mini) -> None:
    """For tests that run the small grid and need no two trainings beside each other: a second slot
    would import PyTorch for some hundredths of a second of work.
    """
    mini["execution"]["slots"] = 1


@pytest.fixture(scope="session")
def ray_here():
    """A local Ray for the whole test session: two CPUs, and three GPUs that are only Ray's word for
    it.
    """
    from equigrid.grid.running import cluster

    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.getsignal(name) for name in names}
    with cluster.connected("local", dashboard=False, num_cpus=2, num_gpus=3):
        for name, handler in before.items():  # it lives on while tests try what signals do
            signal.signal(name, handler)
        yield


@pytest.fixture(scope="session")
def finished_mini(ray_here, tmp_path_factory):
    """A store in which the small grid has run undisturbed, with the run's summary and plan."""
    from equigrid.grid.running import driver
    from equigrid.grid.spec import load
    from equigrid.grid.store import Store

    store = Store(tmp_path_factory.mktemp("finished") / "store", create=True)
    summary, the_plan = driver.run(load(MINI), store, console=Console(file=io.StringIO()))
    return store, summary, the_plan


@pytest.fixture
def store(tmp_path):
    """An empty store in a folder."""
    from equigrid.grid.store import Store

    return Store(tmp_path / "store", create=True)


@pytest.fixture(scope="session")
def outcomes():
    """Reads what must be bitwise the same in every repetition of a store's trials, by trial."""
    from equigrid.grid.store import results

    columns = [
        "trial_id",
        "top1",
        "top5",
        "per_class",
        "confusion",
        "loss",
        "steps",
        "epochs",
        "shards",
    ]

    def read(store) -> dict[str, dict]:
        return {row["trial_id"]: row for row in results.read(store).select(columns).to_pylist()}

    return read


@pytest.fixture(scope="session")
def images_of():
    """Reads all images (N, H, W, C) uint8 of shards, in order."""
    import numpy as np

    from equigrid.grid.datasets import shards

    def read(store, refs) -> np.ndarray:
        return np.concatenate([shards.read(store, ref)[0] for ref in refs])

    return read


@pytest.fixture
def request_of():
    """Makes a request for a job of a plan, its shards as arrays: what a body needs without Ray."""
    from equigrid.grid import jobs
    from equigrid.grid.datasets import catalogue, shards
    from equigrid.grid.ids import new_attempt
    from equigrid.grid.store import documents

    def make(store, the_plan, job, **options) -> jobs.Request:
        dataset = the_plan.resolved.dataset

        def images(refs) -> jobs.Images:
            return jobs.Images(
                tuple(shards.load(store, ref) for ref in refs), tuple(ref.n for ref in refs)
            )

        manifests = [
            f"pools/{need}.json" for need in job.needs if the_plan.jobs[need].kind == "shard"
        ]
        made = [
            shards.ref(name, content)
            for name in manifests
            if (content := documents.read(store, name, documents.ShardRecord))
        ]
        labels = dict.fromkeys(
            ("grid", "dataset", "fingerprint", "arm", "classifier", "recipe"), "x"
        )
        sizes = dict.fromkeys(
            ("n_total", "n_base", "n_nominal", "n_real_added", "n_syn", "n_copies"), 60
        )
        shape = dataset.shape
        known = {
            "id": job.id, "kind": job.kind, "payload": job.payload, "attempt": new_attempt(),
            "class_names": shape.classes, "image_shape": (shape.height, shape.width, shape.channels),
            "labels": catalogue.labels(store, dataset, "train"), "repeated": dataset.repeated,
            "row": {**labels, **sizes, "subset_seed": 0, "seed": 0},
            **{split: images(getattr(dataset, split)) for split in ("train", "val", "test")},
            "syn": images(made) if job.kind not in ("generator", "shard") else jobs.Images(),
        }  # fmt: skip
        return jobs.Request(**{**known, **options})

    return make


@pytest.fixture
def planned(tmp_path):
    """Ingests a spec's dataset into a store of its own and plans the spec."""
    from equigrid.grid.datasets import ingest
    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve
    from equigrid.grid.spec import load
    from equigrid.grid.store import Store

    def make(spec: dict, name: str = "store"):
        store = Store(tmp_path / name, create=True)
        resolved = resolve(load(spec), store)
        return store, plan(resolved.with_dataset(ingest.ingest(store, resolved.source)))

    return make


# Sizes as the sources say them; ImageNet's are the usual list's, which has fewer images than the
# paper rounds to.
PRESET_SHAPES = {
    "imagenet100": ([f"class {i}" for i in range(100)], 256, [1267] * 89 + [1266] * 11, [50] * 100),
    "imagenet10": ([f"class {i}" for i in range(10)], 256, [1300] * 10, [50] * 10),
}


@pytest.fixture
def plan_of(tmp_path, monkeypatch):
    """Plans a preset as on a machine that has its files: every folder that it names is made, with
    next to nothing. Keys of the spec may be given anew.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from equigrid.grid.datasets import sources
    from equigrid.grid.datasets.sources.base import Shape
    from equigrid.grid.datasets.sources.imagenet import read_list
    from equigrid.grid.planning.planner import plan
    from equigrid.grid.planning.resolve import resolve
    from equigrid.grid.spec import GridSpec, load

    picture = io.BytesIO()
    Image.new("RGB", (32, 32)).save(picture, "PNG")

    def write(name: str, content: bytes) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    for name in PRESET_SHAPES:
        for wnid in read_list(Path(sources.__file__).with_name(f"{name}.txt")):
            for split in ("train", "val"):
                write(f"imagenet/{split}/{wnid}/a.JPEG", picture.getvalue())
    # Ten images stand for CIFAKE's 50,000: their content is hashed, not decoded.
    for i in range(10):
        write(f"cifake/train/FAKE/{f'1 ({i + 1})' if i else 1}.jpg", b"an image")
    # Weights' bytes enter ids, and stand for weights here.
    monkeypatch.setattr("equigrid.generators.common.weights.check_file", lambda path, what: None)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        write(f"bert/{name}", b"{}")
    write("weights.safetensors", b"weights")
    column = pa.array([{"bytes": picture.getvalue(), "path": None}] * 5_000)
    for split in ("train", "test"):
        table = pa.table({"img": column, "label": [i % 10 for i in range(5_000)]})
        pq.write_table(table, tmp_path / f"{split}-0.parquet")
    places = {
        "IMAGENET": "imagenet",
        "CIFAKE": "cifake",
        "CACHE": "cache",
        "CIFAR10": "",
        "EDM": "weights.safetensors",
        "FINETUNE": "finetune",
    }
    for name, place in {**places, "TEXT_ENCODER": "bert"}.items():
        monkeypatch.setenv(f"EQUIGRID_{name}", str(tmp_path / place))

    def make(name: str, **changes):
        if name == "digits-finetune":
            _write_zeros_to_finetune(tmp_path / "finetune")
        spec = load(name)
        if changes:
            spec = GridSpec.model_validate(spec.model_dump(mode="json") | changes)
        resolved = resolve(spec, None)
        if known := PRESET_SHAPES.get(name.removesuffix("-zero-shot")):
            classes, side, train, test = known
            resolved = replace(
                resolved, shape=Shape(tuple(classes), side, side, 3, tuple(train), tuple(test))
            )
        for choice in resolved.generators.values():
            monkeypatch.setattr(
                type(choice.config), "capacity", lambda self, names, shares=None: None
            )
        return plan(resolved)

    return make


def _write_zeros_to_finetune(folder: Path) -> None:
    """What examples/pretrained_digits.py writes, its shapes alone: bytes that are the same
    everywhere.
    """
    import json

    import numpy as np
    import timm
    import torch
    from safetensors.torch import save_file

    args = {"img_size": 8, "patch_size": 2, "depth": 2, "embed_dim": 48, "num_heads": 4}
    network = timm.create_model("vit_tiny_patch16_224", num_classes=10, in_chans=1, **args)
    weights = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    (folder / "elsewhere").mkdir(parents=True)
    save_file(weights, folder / "elsewhere/model.safetensors")
    (folder / "elsewhere/config.json").write_text(json.dumps({"model_args": args}))
    parts = {"train": 500, "test": 497}
    arrays = {f"{part}_images": np.zeros((n, 8, 8, 1), np.uint8) for part, n in parts.items()}
    arrays |= {f"{part}_labels": np.arange(n) % 10 for part, n in parts.items()}
    np.savez(folder / "here.npz", **arrays)


@pytest.fixture
def quiet() -> Console:
    from equigrid.grid.reporting.console import PlainConsole

    return PlainConsole(file=io.StringIO(), force_terminal=False, width=200)


@pytest.fixture
def write_spec(tmp_path):
    """Writes a mapping as a spec file; returns its path."""

    def write(spec: dict, name: str = "spec.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(spec, sort_keys=False))
        return path

    return write


def descendants(root: int) -> dict[int, str]:
    """Process ids and command lines of all living descendants of a process."""
    parents, lines = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                lines[int(entry.name)] = line.decode(errors="replace")  # others' may be any bytes
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    found, wave = {}, {root}
    while wave:
        wave = {pid for pid, parent in parents.items() if parent in wave and pid not in found}
        found.update({pid: lines[pid] for pid in wave})
    return found


@pytest.fixture
def left_of():
    """Of processes that lived once, those that do not go."""
    return still_running


@pytest.fixture
def descendants_of():
    """All processes below one, with their command lines."""
    return descendants


@pytest.fixture
def slot_processes():
    """Process ids of the slots of this process's own Ray, which titles them by actor or by the
    request they run.
    """
    pattern = re.compile("ray::(Slot|trial:|generator:|shard:)")

    def running(kind: str = "") -> list[int]:
        found = descendants(os.getpid()).items()
        return [
            pid
            for pid, line in found
            if pattern.match(line) and (not kind or line.startswith(f"ray::{kind}:"))
        ]

    return running


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Plants code into every slot, which is another process: Python runs it there before anything
    else.
    """
    from equigrid.grid.running.slots import SlotPool

    def into_slots(code: str) -> None:
        folder = tmp_path / "plant"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        create = SlotPool._create

        def create_planted(self):
            paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
            self._options["runtime_env"]["env_vars"]["PYTHONPATH"] = os.pathsep.join(paths)
            create(self)

        monkeypatch.setattr(SlotPool, "_create", create_planted)

    return into_slots


@pytest.fixture
def group_processes():
    """Process ids of the workers of Ray Train's worker group in this process's own Ray."""

    def running() -> list[int]:
        return [pid for pid, line in descendants(os.getpid()).items() if "RayTrainWorker" in line]

    return running


def still_running(processes: dict[int, str], timeout_s: float = 30) -> dict[int, str]:
    """Those of once living processes that have not gone, once they had time to. (Their parent is
    dead: nobody's descendants any more, they would not be found again.)

    Ray's agents outlive their raylet by a minute, and do nothing: they are not waited for.
    """
    agents = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
    works = {pid: line for pid, line in processes.items() if not line.startswith(agents)}
    end = time.monotonic() + timeout_s
    while (left := {p: works[p] for p in works if _lives(p)}) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def _lives(pid: int) -> bool:
    """A zombie does not: a container's first process may wait for nobody's children."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Command:
    """An `equigrid` process, its output in files, in a process group of its own. under: a command
    that is given it, such as `ulimit` of a shell.
    """

    def __init__(self, arguments: list, folder: Path, under: tuple[str, ...] = ()):
        folder.mkdir(parents=True, exist_ok=True)
        self.out_path, self.err_path = folder / "stdout.txt", folder / "stderr.txt"
        with open(self.out_path, "w") as out, open(self.err_path, "w") as err:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", "equigrid.grid.cli", *map(str, arguments)],
                stdout=out, stderr=err, cwd=folder, start_new_session=True,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self.out_path.read_text() + self.err_path.read_text()

    def wait_until(self, condition, timeout_s: float = 300) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, (
                f"ended early with {self.process.returncode}: {self.text}"
            )
            assert time.monotonic() < end, f"still waiting after {timeout_s} s: {self.text}"
            time.sleep(0.02)

    def finish(self, timeout_s: float = 180) -> int:
        return self.process.wait(timeout_s)

    @property
    def driver(self) -> int:
        """The process that does the work of a command that uses Ray: the only child of the one that
        waits for it. (Not known by its command line: until they exec, its own children have that
        too.)
        """
        self.wait_until(self._children)
        (only,) = self._children()
        return only

    def _children(self) -> list[int]:
        import psutil

        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def descendants(self) -> dict[int, str]:
        return descendants(self.process.pid)

    def kill(self) -> None:
        """kill -9 of the command alone, with which its driver ends, then of whatever it left behind once that had time to go by
        itself.

        Ray's agents outlive their raylet by a minute, and do nothing: they are not waited for.
        """
        left = self.descendants()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        still_running(left)
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def start(tmp_path):
    """Starts `equigrid` commands; whatever still runs at the test's end is killed."""
    commands = []

    def run(*arguments, under: tuple[str, ...] = ()) -> Command:
        folder = tmp_path / f"command{len(commands)}"
        commands.append(Command(list(arguments), folder, under))
        return commands[-1]

    yield run
    for command in commands:
        if command.process.poll() is None:
            command.kill()


# A cluster of its own -----------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def listening():
    """Ports of a process and all of its descendants, and the addresses that they listen on."""
    import psutil

    def of(root: int) -> dict[int, set[str]]:
        found = defaultdict(set)
        parent = psutil.Process(root)
        for process in (parent, *parent.children(recursive=True)):
            try:
                for one in process.net_connections(kind="tcp"):
                    if one.status == psutil.CONN_LISTEN:
                        found[one.laddr.port].add(one.laddr.ip)
            except psutil.Error:
                continue
        return found

    return of


def _with_token(home: Path, token: str) -> dict[str, str]:
    place = home / ".ray" / "auth_token"
    place.parent.mkdir(mode=0o700, parents=True)
    place.touch(mode=0o600)
    place.write_text(token)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    return {**kept, "HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def token() -> str:
    return secrets.token_hex(32)


@pytest.fixture
def short():
    """A folder with a short name: Ray's sockets have long ones."""
    with tempfile.TemporaryDirectory(prefix="eq-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def head(short, token, listening):
    """`ray start --head` with the options of cluster-local.yaml, on ports of its own: its process
    id and its ports.
    """
    import psutil

    ports = {name: _free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
    ports |= {name: _free_port() for name in ("dashboard-agent-listen-port", "metrics-export-port")}
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += ["--dashboard-host=127.0.0.1", "--num-cpus=1", f"--temp-dir={short / 'ray'}"]
    with open(short / "log", "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True,
            env={**_with_token(short / "home", token), "RAY_AUTH_MODE": "token"},
        )  # fmt: skip
    end_s = time.monotonic() + 120
    wanted = {port for name, port in ports.items() if name != "ray-client-server-port"}
    while not wanted <= listening(process.pid).keys():
        assert process.poll() is None, (short / "log").read_text()
        assert time.monotonic() < end_s, (short / "log").read_text()
        time.sleep(0.5)
    yield process.pid, ports
    tree = psutil.Process(process.pid)
    for each in (*tree.children(recursive=True), tree):
        try:
            each.kill()
        except psutil.Error:
            continue
    process.wait(30)
