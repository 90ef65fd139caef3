"""Weights on a hub: huggingface_hub really talks to a small hub of our own on this machine."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors.torch import save_file

from equigrid.generators import registry
from equigrid.generators.common import hub as address
from equigrid.generators.dit import released

REPOSITORY, COMMIT = "lab/networks", "1" * 40


class Hub(BaseHTTPRequestHandler):
    """The part of a hub's interface that downloads from a model use."""

    root: Path
    asked: list[str]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        api = f"/api/models/{REPOSITORY}"
        if path.startswith(f"{api}/revision/"):
            if path.rpartition("/")[2] not in ("main", "v2", COMMIT):
                return self._json({"error": "Invalid rev id"}, 404, "RevisionNotFound")
            files = [p for p in sorted(self.root.rglob("*")) if p.is_file()]
            names = [str(p.relative_to(self.root)) for p in files]
            siblings = [{"rfilename": name} for name in names]
            return self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings})
        if path.startswith(f"{api}/tree/"):
            files = [p for p in sorted(self.root.rglob("*")) if p.is_file()]
            return self._json(
                [
                    {"type": "file", "oid": "2" * 40, "size": p.stat().st_size,
                     "path": str(p.relative_to(self.root))}
                    for p in files
                ]
            )  # fmt: skip
        inside = path.removeprefix(f"/{REPOSITORY}/resolve/").partition("/")[2]
        if path.startswith(f"/{REPOSITORY}/resolve/") and (self.root / inside).is_file():
            data = (self.root / inside).read_bytes()
            etag = hashlib.sha256(data).hexdigest()
            return self._answer(data, 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        return self._json({"error": "Entry not found"}, 404, "EntryNotFound")

    do_HEAD = do_GET

    def _json(self, content: object, code: int = 200, error: str = "") -> None:
        headers = {"Content-Type": "application/json"}
        headers |= {"X-Error-Code": error, "X-Repo-Commit": COMMIT} if error else {}
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
def hub(tmp_path, monkeypatch) -> Iterator[type[Hub]]:
    from huggingface_hub import constants

    kind = type("OwnHub", (Hub,), {"root": tmp_path / "repository", "asked": []})
    kind.root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield kind
    server.shutdown()
    server.server_close()


def edm(weights: str):
    return registry.config(
        {"kind": "edm", "preset": "digits", "setting": "open", "weights": weights}
    )


def test_an_edm_from_the_hub_is_the_one_from_the_file(hub, tmp_path):
    from equigrid.generators.edm.weights import network_for

    shapes = network_for(edm("unused"), shape=(8, 8, 1), classes=10).state_dict()
    drawn = torch.Generator().manual_seed(7)
    made = {name: torch.randn(v.shape, generator=drawn) for name, v in shapes.items()}
    path = hub.root / "digits/edm.safetensors"
    path.parent.mkdir()
    save_file(made, path)
    here, there = edm(str(path)), edm(f"hf://{REPOSITORY}/digits/edm.safetensors")
    there.check(8, 8, 1, 10, 0)
    assert there.training_payload() == here.training_payload(), "the same content, the same id"
    options = {"classes": 10, "class_names": tuple("0123456789"), "seed": 1, "device": "cpu"}
    empty = torch.empty(0, 8, 8, 1, dtype=torch.uint8).numpy(), torch.empty(0).long().numpy()
    first, second = (registry.train(*empty, one, **options) for one in (here, there))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    downloads = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert len(downloads) == 1, "once, and kept"
    assert edm(f"hf://{REPOSITORY}@v2/digits/edm.safetensors").training_payload() == (
        here.training_payload()
    )
    assert any("/resolve/v2/" in line for line in hub.asked)


def test_a_dit_from_the_hub_is_a_folder(hub):
    for name in ("transformer", "vae"):
        (hub.root / f"dit/{name}").mkdir(parents=True)
        save_file({"x": torch.ones(2)}, hub.root / f"dit/{name}/{released.WEIGHTS_NAME}")
    (hub.root / "dit/vae/config.json").write_text('{"scaling_factor": 0.5}')
    (hub.root / "other.safetensors").write_bytes(b"not asked for")
    place = f"hf://{REPOSITORY}/dit"
    assert released.latent_scale(place, None) == 0.5
    assert released.digests(place, None) == released.digests(str(hub.root / "dit"), None)
    assert not any("GET" in line and "other" in line for line in hub.asked)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("hf://lab/networks/missing.safetensors", "cannot be had from the hub"),
        ("hf://lab/networks@v9/missing.safetensors", "cannot be had from the hub"),
        ("hf://networks.safetensors", "write hf://OWNER/NAME"),
    ],
)
def test_what_is_not_there_is_a_line(hub, place, message):
    with pytest.raises(ValueError, match=message) as told:
        edm(place).check(8, 8, 1, 10, 0)
    assert str(told.value).startswith("weights: hf://")
    assert "\n" not in str(told.value)


def test_a_path_is_itself(tmp_path):
    assert address.local(str(tmp_path)) == str(tmp_path)
