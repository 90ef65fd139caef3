"""Pools as files: what is read back is what the store holds, and the card says what it is."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from equigrid.generators import registry
from equigrid.grid.cli import entry
from equigrid.grid.datasets import catalogue, ingest, shards
from equigrid.grid.errors import UnavailableError, UserError
from equigrid.grid.exporting import card, pools, writing
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store.layout import QUALITY

SHARD = 90


@pytest.fixture
def sampled(store, mini):
    """The small grid, recorded, with two shards of noise in each pool, measured: (store, plan)."""
    mini["quality"] = {"inception": "off", "vit": "off", "features": False, "neighbours": 20}
    spec = load(mini)
    store.put_json("grids/mini/spec.json", spec.model_dump(mode="json"))
    ingest.ingest(store, catalogue.source("digits"))
    the_plan = plan(resolve(spec, store))
    for number, pool in enumerate(the_plan.pools.values()):
        for index in range(2):
            shards.write(store, pool.manifest(index), *noise(number, index))
    for job in the_plan.of_kind("quality"):
        row = {"pool": job.payload.syn.pool, "seconds": 1.5, "device": "CPU"}
        row |= {"n_images": 120, "n_real": 1200, "memorised": 0.25, "neighbour_distance": 31.5}
        store.put_json(QUALITY.manifest(job.id), row)
    return store, the_plan


def noise(pool: int, index: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng((pool, index))
    images = draw.integers(0, 256, (SHARD, 8, 8, 1), np.uint8)
    return images, (np.arange(index * SHARD, (index + 1) * SHARD) % 10).astype(np.int64)


def whole(pool: int) -> tuple[np.ndarray, np.ndarray]:
    parts = [noise(pool, index) for index in range(2)]
    return np.concatenate([p for p, _ in parts]), np.concatenate([p for _, p in parts])


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))[:, :, None]


def export(*arguments: object) -> int:
    words = ["pool", "export", "mini", "edm", *map(str, arguments)]
    return entry.app(words, standalone_mode=False) or 0


def head(text: str) -> dict:
    assert text.startswith("---\n")
    return yaml.safe_load(text.split("---\n")[1])


def test_a_folder_of_classes_holds_the_pool(sampled, tmp_path):
    store, _ = sampled
    to = tmp_path / "out"
    assert export("--to", to, "--store", store.uri, "--n-base", 60) == 0
    images, labels = whole(0)
    files = sorted(to.glob("*/*.png"), key=lambda path: path.name)
    assert len(files) == 2 * SHARD
    assert [int(path.parent.name) for path in files] == labels.tolist()
    assert np.array_equal(np.stack([pixels(path.read_bytes()) for path in files]), images)


def test_what_is_written_can_be_imported_again(sampled, tmp_path):
    """As an imported generator reads it: the same images of each class, class folders or Parquet."""
    store, _ = sampled
    names = tuple(map(str, range(10)))
    for form in ((), ("--parquet",)):
        to = tmp_path / f"out{len(form)}"
        export("--to", to, "--store", store.uri, "--n-base", 60, *form)
        config = registry.config({"kind": "imported", "path": str(to)})
        assert config.capacity(names) == 2 * SHARD
        images, labels = registry.sample(
            registry.train(
                np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, np.int64), config,
                classes=10, class_names=names, seed=0,
            ),
            config, classes=10, class_names=names, shape=(8, 8, 1), seed=0, start=0, stop=2 * SHARD,
        )  # fmt: skip
        made, of = whole(0)
        for label in range(10):
            again = {image.tobytes() for image in images[labels == label]}
            assert again == {image.tobytes() for image in made[of == label]}


def test_parquet_files_have_labels_with_names(sampled, tmp_path, monkeypatch):
    store, _ = sampled
    monkeypatch.setattr(writing, "FILE_BYTES", 64 * 70)
    monkeypatch.setattr(writing, "ROWS", 50)
    to = tmp_path / "out"
    assert export("--to", to, "--store", store.uri, "--n-base", 120, "--parquet", "--n", 170) == 0
    files = sorted((to / "data").iterdir())
    assert [path.name for path in files] == [f"train-{k:05d}-of-00003.parquet" for k in range(3)]
    tables = [pq.read_table(path) for path in files]
    assert [len(table) for table in tables] == [70, 70, 30]
    images, labels = whole(1)
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["label"] for row in rows] == labels[:170].tolist()
    assert np.array_equal(np.stack([pixels(row["image"]["bytes"]) for row in rows]), images[:170])
    told = json.loads(tables[0].schema.metadata[b"huggingface"])
    assert told["info"]["features"]["label"]["names"] == [str(k) for k in range(10)]
    assert head((to / "README.md").read_text())["configs"][0]["data_files"][0]["path"] == (
        "data/train-*.parquet"
    )


def test_one_file_with_its_card_beside_it(sampled, tmp_path):
    store, _ = sampled
    to = tmp_path / "deep" / "pool.parquet"
    assert export("--to", to, "--store", store.uri, "--n-base", 60, "--n", 7) == 0
    assert pq.read_table(to)["label"].to_pylist() == list(range(7))
    assert "7 of 8×8, grey" in (tmp_path / "deep" / "pool.md").read_text()


def test_the_card_gives_intervals_where_there_are_any(sampled, tmp_path):
    store, the_plan = sampled
    for job in the_plan.of_kind("quality"):
        row = store.get_json(QUALITY.manifest(job.id))
        row |= {"recall": 0.5, "recall_low": 0.4, "recall_high": 0.6, "extractor": "classifier"}
        store.put_json(QUALITY.manifest(job.id), row)
    assert export("--to", tmp_path / "out", "--store", store.uri, "--n-base", 60) == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "| recall | 0.5 | 0.4 to 0.6 |" in text
    assert "Measures with an interval are in the features of classifier." in text
    assert "| median distance to the nearest training image (of 255) | 31.5 |  |" in text


def test_the_card_says_what_the_images_are(sampled, tmp_path):
    store, the_plan = sampled
    export("--to", tmp_path / "out", "--store", store.uri, "--n-base", 60)
    text = (tmp_path / "out" / "README.md").read_text()
    facts = head(text)["equigrid"]
    pool = next(iter(the_plan.pools.values()))
    assert facts["pool"] == pool.id
    assert facts["training_images"] == 60
    assert (facts["subset_seed"], facts["generator_seed"], facts["images"]) == (0, 0, 180)
    assert facts["memorised"] == 0.25
    assert head(text)["size_categories"] == ["n<1K"]
    for said in (
        "**No image here is real.**", "60 real images of digits", "25.0% of the samples",
        "| median distance to the nearest training image (of 255) | 31.5 |", "total_nimg: 640",
    ):  # fmt: skip
        assert said in text, said


def test_paths_of_this_machine_stay_here(sampled, tmp_path):
    store, the_plan = sampled
    found = pools.chosen(store, the_plan, "edm", n_base=60)
    secret = {**found.training.mapping, "weights": "/home/me/weights.safetensors"}
    moved = pools.Export(**{**vars(found), "training": _with_mapping(found.training, secret)})
    assert "/home/me" not in card.card(moved, parquet=False)


def _with_mapping(training, mapping):
    from dataclasses import replace

    return replace(training, mapping=mapping)


def test_which_pool_is_asked_not_guessed(sampled, tmp_path):
    store, the_plan = sampled
    for arguments, text in (
        ((), "2 pools fit of edm; choose by --n-base 60 or 120"),
        (("--n-base", 61), "no pool fits"),
        (("--n-base", 60, "--n", 181), "has 180 images"),
    ):
        with pytest.raises(UserError, match=text):
            export("--to", tmp_path / "out", "--store", store.uri, *arguments)
    with pytest.raises(UserError, match="did you mean 'edm'"):
        pools.chosen(store, the_plan, "edn")
    assert not (tmp_path / "out").exists()


def test_a_pool_without_images_and_a_folder_with_some_are_refused(sampled, tmp_path):
    store, the_plan = sampled
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        export("--to", tmp_path / "mine", "--store", store.uri, "--n-base", 60)
    with pytest.raises(UserError, match="write a folder"):
        export("--to", "s3://bucket/x", "--store", store.uri, "--n-base", 60)
    store.delete(*(name for name in store.list("pools")))
    with pytest.raises(UserError, match="run the grid first"):
        pools.chosen(store, the_plan, "edm", n_base=60)


def test_a_gap_ends_the_pool(sampled):
    store, the_plan = sampled
    pool = next(iter(the_plan.pools.values()))
    shards.write(store, pool.manifest(3), *noise(0, 3))
    assert pools.chosen(store, the_plan, "edm", n_base=60).n == 2 * SHARD


def test_class_names_that_no_folder_can_have():
    assert writing._folder_names(("a/b", "..", "ok", "CON:", ".git")) == [
        "a_b", "_.._", "ok", "CON_", "_.git_",
    ]  # fmt: skip
    with pytest.raises(UserError, match="'a/b' and 'A:b' would be one folder"):
        writing._folder_names(("a/b", "A:b"))


# A hub --------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """The part of a hub's interface that an upload uses; files are kept by repository and path."""

    files: dict[str, bytes]
    requests: list[str]
    private: dict[str, bool]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.requests.append(self.path)
        if self.headers.get("Authorization") != "Bearer hf_test":
            return self._answer({"error": "Invalid credentials"}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization', 'me')}/{asked['name']}"
            assert asked["type"] == "dataset"
            self.private[name] = asked.get("visibility") == "private" or asked.get("private", False)
            return self._answer(
                {"url": f"http://{self.headers['Host']}/datasets/{name}", "id": name}
            )
        if self.path.endswith("/preupload/main"):
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            return self._answer({"files": modes})
        if "/commit/main" in self.path:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.files[value["path"]] = base64.b64decode(value["content"])
            name = self.path.split("/datasets/")[1].split("/commit/")[0]
            at = f"http://{self.headers['Host']}/datasets/{name}/commit/{'1' * 40}"
            return self._answer({"commitUrl": at, "commitOid": "1" * 40})
        return self._answer({"errors": [], "warnings": []})  # the YAML of the card is valid

    def do_GET(self) -> None:
        self.requests.append(self.path)
        self._answer({"error": "Not found"}, 404)

    def _answer(self, content: dict, code: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch) -> Iterator[type[Hub]]:
    """A hub of its own on this machine, to which huggingface_hub really talks."""
    kind = type("OwnHub", (Hub,), {"files": {}, "requests": [], "private": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    yield kind
    server.shutdown()
    server.server_close()


def test_a_pool_goes_to_a_hub(sampled, hub):
    store, _ = sampled
    assert export("--to", "hf://datasets/lab/digits", "--store", store.uri, "--n-base", 60) == 0
    assert hub.private == {"lab/digits": True}, "nothing is published by accident"
    assert set(hub.files) == {"data/train-00000-of-00001.parquet", "README.md"}
    table = pq.read_table(io.BytesIO(hub.files["data/train-00000-of-00001.parquet"]))
    images, labels = whole(0)
    assert table["label"].to_pylist() == labels.tolist()
    first = table["image"][5].as_py()["bytes"]
    assert np.array_equal(pixels(first), images[5])
    assert head(hub.files["README.md"].decode())["equigrid"]["images"] == 180


def test_a_hub_that_refuses_is_told_in_a_line(sampled, hub, monkeypatch):
    store, _ = sampled
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UnavailableError, match="cannot be written") as told:
        export("--to", "hf://datasets/lab/digits", "--store", store.uri, "--n-base", 60)
    assert "\n" not in str(told.value)
    for address in ("hf://datasets/digits", "hf://models/a/b", "hf://datasets/a b/c!"):
        with pytest.raises(UserError, match="--to"):
            export("--to", address, "--store", store.uri, "--n-base", 60)
