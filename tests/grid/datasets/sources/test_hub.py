"""Sets on Hugging Face's hub, by address: huggingface_hub and pyarrow really talk to a small hub of
our own on this machine, which serves one repository.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

pytestmark = pytest.mark.long  # processes of their own, since an address is read once in each

REPOSITORY = "lab/flowers"
COMMIT = "1" * 40


class Hub(BaseHTTPRequestHandler):
    """The part of a hub's interface that reading uses: what a repository is, what lies in it, and
    ranges of its files.
    """

    protocol_version = "HTTP/1.1"
    root: Path
    asked: list[str]
    token: str | None = None

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        if self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
            return self._json({"error": "Repository not found"}, 401, "RepoNotFound")
        api, files = f"/api/datasets/{REPOSITORY}", f"/datasets/{REPOSITORY}/resolve/"
        if path == api or path.startswith(f"{api}/revision/"):
            return self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": [], "tags": []})
        if path.startswith(f"{api}/tree/"):
            _, _, inside = path.removeprefix(f"{api}/tree/").partition("/")
            return self._tree(inside.strip("/"))
        if path.startswith(files):
            return self._file(path.removeprefix(files).partition("/")[2])
        return self._json({"error": "Repository not found"}, 404, "RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        self.asked.append(f"POST {self.path}")
        fields = json.loads(body) if body.startswith("{") else dict(parse_qsl(body))
        paths = fields.get("paths", [])
        found = [self._entry(p) for p in ([paths] if isinstance(paths, str) else paths)]
        self._json([entry for entry in found if entry])

    def _entry(self, inside: str) -> dict | None:
        path = self.root / inside
        if not path.exists():
            return None
        kind = "directory" if path.is_dir() else "file"
        size = 0 if path.is_dir() else path.stat().st_size
        return {"type": kind, "oid": "2" * 40, "size": size, "path": inside}

    def _tree(self, inside: str) -> None:
        folder = self.root / inside
        if not folder.is_dir():
            return self._json({"error": "Entry not found"}, 404, "EntryNotFound")
        names = sorted(os.path.relpath(path, self.root) for path in folder.iterdir())
        return self._json([self._entry(name) for name in names])

    def _file(self, inside: str) -> None:
        path = self.root / inside
        if not path.is_file():
            return self._json({"error": "Entry not found"}, 404, "EntryNotFound")
        data, code = path.read_bytes(), 200
        headers = {"ETag": '"3"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            stop = min(int(last) + 1 if last else len(data), len(data))
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
            data, code = data[int(first) : stop], 206
        return self._answer(data, code, headers)

    def _json(self, content: object, code: int = 200, error: str = "") -> None:
        headers = {"Content-Type": "application/json"}
        headers |= {"X-Error-Code": error} if error else {}
        self._answer(json.dumps(content).encode(), code, headers)

    def _answer(self, data: bytes, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path, write_parquet) -> Iterator[type[Hub]]:
    """A hub with one repository: Parquet files in `data/`, classes by name, and a card."""
    root = tmp_path / "repository"
    for split, n in (("train", 20), ("test", 10)):
        path = root / f"data/{split}-00000-of-00001.parquet"
        write_parquet(path, [0, 1] * (n // 2), names=["aster", "rose"], start=n)
    (root / "README.md").write_text("# Flowers\n")
    kind = type("OwnHub", (Hub,), {"root": root, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    kind.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kind
    server.shutdown()
    server.server_close()


@pytest.fixture
def equigrid(hub, tmp_path):
    """Runs the command line in a process of its own, whose hub is this one."""

    def run(*arguments, **environment) -> subprocess.CompletedProcess:
        own = {
            "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1", **environment,
        }  # fmt: skip
        command = [sys.executable, "-m", "equigrid.grid.cli", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **own}, cwd=tmp_path
        )  # fmt: skip

    return run


def test_a_set_by_its_address(hub, equigrid):
    place = f"hf://datasets/{REPOSITORY}"
    done = equigrid("dataset", "inspect", place, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["classes"] == ["aster", "rose"]
    assert found["counts"] == {"train": [10, 10], "test": [5, 5]}
    assert found["n_broken"] == 0 and found["sizes"] == {"8×8": 30}
    assert any("/resolve/" in line for line in hub.asked), "the images came from the hub"
    done = equigrid("init", place, "--out", "flowers.yaml")
    assert done.returncode == 0, done.stderr
    done = equigrid("plan", "flowers.yaml", "--store", "store")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("place", "code", "message"),
    [
        ("hf://datasets/lab/nowhere", 2, "hf://datasets/lab/nowhere"),
        (f"hf://datasets/{REPOSITORY}/nowhere", 2, "nowhere"),
    ],
)
def test_an_address_that_is_wrong_is_the_users_to_mend(equigrid, place, code, message):
    done = equigrid("dataset", "inspect", place)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1


POOL = """
import json, sys
import numpy as np
from equigrid.generators import registry
from equigrid.generators.registry import config

made = config({"kind": "imported", "path": sys.argv[1]})
names, shape = ("aster", "rose"), (8, 8, 3)
nothing = np.empty((0, *shape), np.uint8), np.empty(0, np.int64)
weights = registry.train(*nothing, made, classes=2, class_names=names, seed=3)
images, labels = registry.sample(
    weights, made, classes=2, class_names=names, shape=shape, seed=11, start=0, stop=99
)
print(json.dumps({
    "capacity": made.capacity(names), "identity": made.trained_identity(),
    "images": images.tolist(), "labels": labels.tolist(),
}))
"""


@pytest.fixture
def made(hub, write_parquet) -> Path:
    """A pool that somebody made, in the same repository: six asters and five roses."""
    folder = hub.root / "made"
    write_parquet(
        folder / "train-00000-of-00001.parquet", [0, 1] * 5 + [0], names=["aster", "rose"], start=90
    )
    return folder


def test_an_imported_pool_by_its_address(hub, equigrid, made, tmp_path):
    """The same images, classes and id as of the same files in a folder."""
    own = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    found = []
    for place in (f"hf://datasets/{REPOSITORY}/made", str(made)):
        done = subprocess.run(
            [sys.executable, "-c", POOL, place], capture_output=True, text=True, check=False,
            env={**os.environ, **own},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    there, here = found
    assert there == here
    assert there["capacity"] == 10 == len(there["labels"])
    assert sorted(there["labels"]) == [0] * 5 + [1] * 5
    assert len({json.dumps(image) for image in there["images"]}) == 10
    assert any("/resolve/" in line and "/made/" in line for line in hub.asked)


def test_a_plan_counts_an_imported_pool_on_a_hub(hub, equigrid, made, tmp_path):
    place = f"hf://datasets/{REPOSITORY}"
    spec = {
        "name": "flowers", "dataset": {"parquet": place}, "classifiers": ["digits-cnn"],
        "recipe": {"extends": "digits", "steps": 5}, "quality": "off", "execution": {"gpus": 0},
        "generators": {"made": {"kind": "imported", "path": f"{place}/made"}},
        "blocks": [{"n_base": 10, "syn": {"made": ["10 images"]}}],
    }  # fmt: skip
    (tmp_path / "flowers.yaml").write_text(json.dumps(spec))
    done = equigrid("plan", "flowers.yaml", "--store", "store", "--json")
    assert done.returncode == 0, done.stderr
    spec["blocks"][0]["syn"]["made"] = ["11 images"]
    (tmp_path / "flowers.yaml").write_text(json.dumps(spec))
    done = equigrid("plan", "flowers.yaml", "--store", "store")
    assert done.returncode == 2
    assert "11 images; made has 10 that are balanced over the classes" in done.stderr
    spec["generators"]["made"]["path"] = f"{place}/nowhere"
    (tmp_path / "flowers.yaml").write_text(json.dumps(spec))
    done = equigrid("plan", "flowers.yaml", "--store", "store")
    assert done.returncode == 2 and "generators.made" in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


def test_a_private_set_needs_a_token(hub, equigrid):
    hub.token = "hf_own"
    place = f"hf://datasets/{REPOSITORY}"
    done = equigrid("dataset", "inspect", place)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert equigrid("dataset", "inspect", place, HF_TOKEN="hf_own").returncode == 0
