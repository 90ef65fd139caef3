"""What a hostile store or spec could try: names and links that lead elsewhere, code in data,
secrets in the open.
"""

import ast
import json
import os
import pickle
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from equigrid.grid.datasets import catalogue, ingest, shards
from equigrid.grid.errors import DocumentError, StoreError, UserError
from equigrid.grid.store import Store, documents, layout, results

ROOT = Path(__file__).parents[2]
ROOMS = ("grid", "generators", "classifiers", "analysis")


@pytest.fixture
def outside(tmp_path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


HOSTILE = [
    "../outside/secret",
    "a/../../outside/secret",
    "/etc/passwd",
    "..",
    "a/..",
    "..\\secret",
    "a\\b",
    "C:\\x",
    "x\0y",
    "",
    ".",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_leaves_the_store(store, outside, name):
    for action in (
        store.get,
        store.exists,
        store.stat,
        store.delete,
        store.get_json,
        lambda n: store.put(n, b"x"),
    ):
        with pytest.raises(ValueError, match="must be relative"):
            action(name)
    for action in (store.list, store.entries, store.asides, store.size):
        with pytest.raises(ValueError, match="must be relative"):
            action(name)
    assert (outside / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("name", ["../outside/secret", "/etc/passwd", "..\\secret"])
def test_no_manifest_leads_out_of_the_store(store, outside, name):
    """Those of shards, datasets, weights and tables of results: the documents are not believed, and
    what they describe is made again.
    """
    refused = partial(pytest.raises, DocumentError, match="is no name in a store")
    manifest = {"data": name, "checksum": "0" * 32, "n": 1}
    store.put_json("pools/p/00000.json", manifest)
    with refused():
        documents.read(store, "pools/p/00000.json", documents.ShardRecord)

    source = catalogue.source("digits")
    ingest.ingest(store, source)
    content = store.get_json(layout.dataset(source.key))
    content["train"][0]["data"] = name
    store.put_json(layout.dataset(source.key), content)
    with refused():
        documents.read(store, layout.dataset(source.key), documents.DatasetRecord)
    ingest.ingest(store, source)
    assert shards.load(store, catalogue.lookup(store, source.key).train[0])

    from equigrid.grid.jobs import shard

    lost = {"weights": name, "checksum": "0" * 32}
    store.put_json(layout.GENERATORS.manifest("generator-x"), lost)
    with pytest.raises(shards.ShardCorrupt, match="is no name in a store"):
        shard._weights(store, "generator-x")

    store.put(f"{results.TABLES}/00000001-x.parquet", results._encode(results.SCHEMA.empty_table()))
    store.put_json(
        f"{results.TABLES}/00000001-x.json", {"rows": 0, "replaces": [name], "written_at_s": 0}
    )
    results.compact(store)  # it only ever removes what a listing of results shows
    assert (outside / "secret").read_bytes() == b"secret"
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize("link", ["a", "a/b"])
def test_no_link_leads_out_of_the_store(store, outside, link):
    path = Path(store.uri) / link
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(outside)
    name = f"{link}/secret"
    for action in (
        store.get,
        store.exists,
        store.get_json,
        store.delete,
        lambda n: store.put(n, b"changed"),
    ):
        with pytest.raises(StoreError, match=f"{name} leads out of the store through a link"):
            action(name)
    if link == "a":
        for action in (store.list, store.entries, store.asides, store.size):
            with pytest.raises(StoreError, match="a leads out of the store through a link"):
                action("a")
    else:
        assert list(store.list("a")) == []
        assert list(store.entries("a")) == []
    assert (outside / "secret").read_bytes() == b"secret"
    assert os.listdir(outside) == ["secret"]


def test_no_link_to_a_file_does_either(store, outside):
    store.put("a/x", b"1")
    (Path(store.uri) / "a/y").symlink_to(outside / "secret")
    for action in (store.get, lambda n: store.put(n, b"changed")):
        with pytest.raises(StoreError, match="leads out of the store"):
            action("a/y")
    assert list(store.list("a")) == ["a/x"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_links_within_the_store_and_to_it_are_the_users_own(store, tmp_path):
    store.put("a/x", b"1")
    (Path(store.uri) / "b").symlink_to(Path(store.uri) / "a")
    assert store.get("b/x") == b"1"
    (tmp_path / "link").symlink_to(store.uri)
    assert Store(tmp_path / "link").get("a/x") == b"1"


# Nothing in a store is ever run -------------------------------------------------------------------


DOWNLOADED = ("load_state_dict_from_url", "load_url")  # torch's: what it downloads, it opens


def unpickling(tree: ast.AST) -> list[str]:
    """Places in a program that may run code from data: what is called, and in which line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            wrong = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"} & {
                n.split(".")[0] for n in names
            }
            found += [f"line {node.lineno}: import {name}" for name in wrong]
        if not isinstance(node, ast.Call):
            continue
        call = ast.unparse(node.func)
        options = {word.arg: ast.unparse(word.value) for word in node.keywords}
        unsafe = (
            (
                (call == "torch.load" or call.split(".")[-1] in DOWNLOADED)
                and options.get("weights_only") != "True"
            )
            or options.get("allow_pickle", "False") != "False"
            or (call == "yaml.load" and "Loader" not in options and len(node.args) < 2)
            or call
            in (
                "yaml.unsafe_load",
                "yaml.full_load",
                "yaml.load_all",
                "pd.read_pickle",
                "pandas.read_pickle",
                "eval",
                "exec",
            )
            or options.get("Loader") in ("yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader")
            or options.get("trust_remote_code", "False") != "False"
            or options.get("use_safetensors", "True") != "True"
        )
        if unsafe:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def test_nothing_unpickles():
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    assert len(files) > 40
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in files
        if (found := unpickling(ast.parse(path.read_text())))
    }
    assert not wrong


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "def f():\n    import cloudpickle.x", "torch.load(f)",
        "torch.hub.load_state_dict_from_url(u)", "torch.utils.model_zoo.load_url(u)",
        "torch.load(f, weights_only=False)", "torch.load(f, weights_only=flag)", "np.load(f, allow_pickle=True)",
        "yaml.load(t)", "yaml.load(t, Loader=yaml.Loader)", "yaml.unsafe_load(t)", "pd.read_pickle(p)", "eval(text)",
        "x.from_pretrained(n, trust_remote_code=True)", "x.from_pretrained(n, use_safetensors=False)",
    ],
)  # fmt: skip
def test_the_rule_would_catch(code):
    assert unpickling(ast.parse(code))


def test_the_specs_yaml_loader_builds_no_objects(tmp_path):
    from equigrid.grid.errors import UserError
    from equigrid.grid.spec import load

    path = tmp_path / "x.yaml"
    path.write_text(
        "name: !!python/object/apply:os.system ['touch " + str(tmp_path / "owned") + "']\n"
    )
    with pytest.raises(UserError):
        load(str(path))
    assert not (tmp_path / "owned").exists()


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_checkpoints_and_arrays_of_a_store_run_no_code(store, tmp_path):
    import io

    import torch

    from equigrid.grid.jobs.checkpoints import Checkpoints, _digest

    file = io.BytesIO()
    torch.save({"state": Bomb(tmp_path / "owned")}, file)
    store.put(f"checkpoints/t/0000000001-a-{_digest(file.getvalue())}.pt", file.getvalue())
    # Its name says that its bytes are right: it is opened.
    with pytest.raises(pickle.UnpicklingError, match="[Ww]eights"):
        Checkpoints(store, "checkpoints/t").load()
    np.savez(tmp_path / "x.npz", train_images=np.array([Bomb(tmp_path / "owned")], dtype=object))
    with pytest.raises(ValueError):  # noqa: PT011
        ingest.ingest(store, catalogue.source({"npz": str(tmp_path / "x.npz")}))
    assert not (tmp_path / "owned").exists()


def test_weights_of_networks_run_no_code(tmp_path, monkeypatch):
    """A file that a spec names, and what lies where torch keeps downloads."""
    import torch

    from equigrid.generators.quality import networks
    from equigrid.generators.quality.names import INCEPTION

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / INCEPTION
    path.parent.mkdir(parents=True)
    torch.save({"state": Bomb(tmp_path / "owned")}, path)
    for load in (networks._downloaded, lambda: networks._state_dict(str(path))):
        with pytest.raises(ValueError, match="more than plain weights, which is not opened") as no:
            load()
        assert "weights_only" not in str(no.value)
    assert not (tmp_path / "owned").exists()


# Credentials --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIAEXAMPLE:sEcReT/with/slash@bucket/prefix", "s3://AKIAEXAMPLE@bucket", "gs://user:sEcReT@bucket/x",
        "s3://bucket/x?secret_key=sEcReT", "s3://bucket/x?access_key=AKIAEXAMPLE", "abfs://c@a.dfs/x?account_key=sEcReT",
    ],
)  # fmt: skip
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri):
    with pytest.raises(UserError, match="holds credentials") as caught:
        Store(uri, create=True)
    text = "".join(traceback.format_exception(caught.value, chain=True))
    message = str(caught.value)
    assert "sEcReT" not in message
    assert "AKIAEXAMPLE" not in message
    assert "\n" not in message
    assert "sEcReT" not in text.replace(uri, "")


def test_the_environments_credentials_are_in_no_word_of_a_store(monkeypatch):
    from equigrid.grid.store import store as module
    from equigrid.grid.store import trouble

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sEcReT")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "tOkEn")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "0")
    assert (
        trouble.why(OSError("key AKIAEXAMPLE with sEcReT and tOkEn")) == "key *** with *** and ***"
    )
    with pytest.raises(StoreError) as caught:
        Store("s3://bucket/x", create=True)
    store = module._reopened("s3://bucket/x")
    for text in (str(caught.value), repr(store), store.uri, json.dumps(store.__reduce__()[1])):
        assert not any(secret in text for secret in ("sEcReT", "tOkEn", "AKIAEXAMPLE"))
