"""The boundary of a store's documents: whatever lies under a name, reading it gives what was
written, or a DocumentError that names it.
"""

import inspect
import json
import pickle
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from equigrid import __version__
from equigrid.grid.errors import DocumentError, StoreError, UserError
from equigrid.grid.planning.recorded import record_spec, recorded_spec
from equigrid.grid.spec import load, presets
from equigrid.grid.spec.loading import PRESETS
from equigrid.grid.store import Store, documents, layout, lock, results

ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "tests" / "corpus" / "documents"
MODELS = sorted(
    (
        found
        for _, found in inspect.getmembers(documents, inspect.isclass)
        if issubclass(found, documents.Document) and found is not documents.Document
    ),
    key=lambda model: model.__name__,
)
WHOLE = {"rows": 2, "replaces": ["results/parts/a.parquet"], "written_at_s": 1.5}
FUZZED = settings(
    max_examples=100, deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def read(
    store: Store, content: bytes, model: type[documents.Document]
) -> documents.Document | None:
    """Whatever is read: the document, or None for a DocumentError, which must name it."""
    store.put("x/y.json", content)
    try:
        return documents.read(store, "x/y.json", model)
    except DocumentError as error:
        found = error
    assert found.name == "x/y.json" and found.why
    assert "x/y.json is not " in str(found) and "\n" not in str(found)
    return None


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    monkeypatch.setattr(documents, "_told", set())


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.stem)
def test_the_corpus(store, path):
    for model in MODELS:
        read(store, path.read_bytes(), model)


def test_every_bit_that_flips_is_noticed(store):
    """Even one that leaves JSON of the right shape: a digit, a letter of a name."""
    store.put_json("x/y.json", WHOLE)
    content = store.get("x/y.json")
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            found = read(store, bytes(flipped), documents.Generation)
            # The name of the digest may flip, or a space become a tab: what it says stays.
            assert found is None or found.model_dump(include=set(WHOLE)) == WHOLE


@FUZZED
@given(content=st.binary(max_size=60) | ANY_JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes(store, content):
    for model in MODELS:
        read(store, content, model)


@FUZZED
@given(data=st.data())
def test_a_document_with_another_value_in_any_place(store, data):
    key = data.draw(st.sampled_from([*WHOLE, "more"]))
    value = data.draw(ANY_JSON)
    found = read(store, json.dumps({**WHOLE, key: value}).encode(), documents.Generation)
    if found is not None:
        assert type(found.rows) is int and 0 <= found.rows <= 2**53
        assert all(type(name) is str for name in found.replaces)
        assert abs(found.written_at_s) < 1e301


def example(model: object, name: str = "") -> Any:
    """The least that a model, or a type in one, takes; lists have an item."""
    origin, inner = get_origin(model), get_args(model)
    if inspect.isclass(model) and issubclass(model, documents.Document):
        fields = model.model_fields.items()
        found = {key: example(field.annotation, key) for key, field in fields}
        return {**found, **AGREEING.get(model, {})}
    if origin is Annotated:
        return example(inner[0], name)
    if origin in (Union, UnionType):
        return example(inner[0], name)
    if origin is list and name == "history":
        return [{"progress": 1.5, "value": None}]
    if origin is list:
        return [example(inner[0], name)] * (2 if name in TWO else 1)
    if origin is tuple:
        return [example(one, name) for one in inner]
    if origin is dict:
        return {"a": example(inner[1], name)}
    texts = {"checksum": "0" * 32, "manifest": "datasets/a/b"}
    return {str: texts.get(name, "a"), int: 1, float: 1.5, bool: True, Any: None, type(None): None}[
        model
    ]


TWO = ("places", "input_size", "domain", "ordinary", "labels")
AGREEING = {
    documents.DatasetRecord: {"train": [], "test": [], "val": [], "labels": {}},  # filled below
    documents.Places: {"places": [["train", 1, "a"]]},
    documents.ZeroShotRecord: {}, documents.EmbeddingRecord: {"domain": [[1.5, 1.5]] * 2, "ordinary": [[1.5, 1.5]] * 2},
}  # fmt: skip
SHARD = {"data": "a", "checksum": "0" * 32, "n": 1, "manifest": "datasets/a/b"}
AGREEING[documents.DatasetRecord] = {
    **{split: [SHARD] for split in ("train", "test", "val")}, "duplicates": {"first": {"a": [[1]]}, "train": 1},
    "repeated": [0], "repeated_counts": [1],
    "labels": {split: {key: SHARD[key] for key in ("data", "checksum", "n")} for split in ("train", "test", "val")},
}  # fmt: skip


def _places(tree: object) -> Iterator[tuple[Any, Any]]:
    pairs = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    for key, value in pairs:
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_documents_that_are_changed_are_whole(store, model):
    store.put_json("x/y.json", example(model))
    assert documents.read(store, "x/y.json", model)


@FUZZED
@given(data=st.data())
def test_any_document_with_another_value_in_any_place(store, data):
    """With a right digest, so that the model must refuse it: what it lets pass is what was there,
    as it was there, and no value of another type in its place.
    """
    model = data.draw(st.sampled_from(MODELS))
    tree = json.loads(json.dumps(example(model)))  # no part of it twice
    for _ in range(data.draw(st.integers(1, 2))):
        if places := list(_places(tree)):
            holder, key = data.draw(st.sampled_from(places))
            if isinstance(holder, dict) and data.draw(st.booleans()):
                del holder[key]
            else:
                holder[key] = data.draw(ANY_JSON)
    try:
        store.put_json("x/y.json", tree)
    except ValueError:  # a number that JSON has not
        assume(False)
    found = read(store, store.get("x/y.json"), model)
    if found is not None:
        written = found.model_dump(mode="json", exclude_unset=True)
        assert json.dumps(written, sort_keys=True) == json.dumps(tree, sort_keys=True)


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        *((documents.ShardRecord, "data", name) for name in ("../x", "/etc/x", "a/../../x", "a\\b", "a\0b", "", "\ud800")),
        (documents.DatasetRecord, "duplicates", {"a_b_c": 1}), (documents.DatasetRecord, "duplicates", {"train_other": 1}),
        (documents.DatasetRecord, "duplicates", {"labels": {"a": [[1]]}}), (documents.DatasetRecord, "duplicates", {"first": 1}),
        (documents.DatasetRecord, "repeated", [1]), (documents.DatasetRecord, "repeated_counts", [5]),
        (documents.CandidateRecord, "history", [{}]), (documents.CandidateRecord, "history", [{"value": 1.0, "progress": None}]),
    ],
)  # fmt: skip
def test_values_that_would_fall_over_later_are_refused(store, model, key, value):
    tree = json.loads(json.dumps(example(model)))
    store.put_json("x/y.json", tree)
    assert documents.read(store, "x/y.json", model)
    tree[key] = value
    store.put_json("x/y.json", tree)
    with pytest.raises(DocumentError, match=key):
        documents.read(store, "x/y.json", model)


def test_a_lone_surrogate_of_a_file_name_comes_back(store):
    """Names of files may be no text, and are kept so."""
    store.put_json("x/y.json", {"error": "\udcff"})
    assert documents.read(store, "x/y.json", documents.FailureRecord).error == "\udcff"


def test_documents_of_before_there_were_digests_are_read(store):
    store.put("x/y.json", json.dumps(WHOLE).encode())
    assert documents.read(store, "x/y.json", documents.Generation).rows == 2
    store.put("x/y.json", b'[["train", 3, "a.png (broken)"]]')
    assert documents.read(store, "x/y.json", documents.Places).places == [
        ("train", 3, "a.png (broken)")
    ]
    assert documents.read(store, "x/none.json", documents.Places) is None


def test_what_can_be_done_without_is_told_once(store, caplog):
    store.put("x/y.json", b"")
    for _ in range(3):
        assert documents.readable(store, "x/y.json", documents.RunRecord) is None
    assert documents.read_all(store, ["x/y.json"] * 3, documents.RunRecord) == [None] * 3
    (said,) = caplog.messages
    assert "x/y.json is not the record of a run" in said and "\n" not in said


def test_its_error_travels(store):
    store.put("x/y.json", b"")
    with pytest.raises(DocumentError) as caught:
        documents.read(store, "x/y.json", documents.RunRecord)
    other = pickle.loads(pickle.dumps(caught.value))
    assert (str(other), other.name, other.why) == (str(caught.value), "x/y.json", caught.value.why)
    assert other.permanent


def test_nobody_else_reads_json_from_a_store():
    """One reader per document: no other module asks a store for JSON."""
    readers = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "grid").rglob("*.py"))
        if ".get_json(" in path.read_text()
    ]
    assert readers == ["grid/store/documents.py", "grid/store/store.py"]


# The store itself ---------------------------------------------------------------------------------


def test_a_store_of_a_later_format_is_refused_in_words(tmp_path):
    store = Store(tmp_path / "store", create=True)
    assert json.loads(store.get("store.json"))["written_by"] == __version__
    store.put_json("store.json", {"format": 2, "written_by": "9.9"})
    for create in (True, False):
        with pytest.raises(
            StoreError,
            match=r"is of format 2, written by equigrid 9\.9; this is .* up to 1: use a later one",
        ):
            Store(tmp_path / "store", create=create)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{}", b'{"format": "1"}', b'{"format": 0}', b"\xff", b"[" * 9999],
)
def test_a_damaged_format_is_named(tmp_path, content):
    store = Store(tmp_path / "store", create=True)
    store.put("store.json", content)
    with pytest.raises(DocumentError, match=r"store\.json"):
        Store(tmp_path / "store")


def test_a_store_of_before_there_were_formats_gets_one_when_it_is_written(tmp_path):
    (tmp_path / "store" / "grids").mkdir(parents=True)
    Store(tmp_path / "store")
    assert not (tmp_path / "store" / "store.json").exists()
    assert Store(tmp_path / "store", create=True).exists("store.json")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"short\n", bytes(100_000)])
def test_a_damaged_identity_stops_nobody_and_is_made_anew(tmp_path, content):
    identity = tmp_path / "store" / "identity"
    Store(tmp_path / "store", create=True)
    identity.write_bytes(content)
    assert pickle.loads(pickle.dumps(Store(tmp_path / "store"))).get_json("none.json") is None
    assert identity.read_bytes() == content
    store = Store(tmp_path / "store", create=True)
    assert len(identity.read_text().strip()) == 32
    pickle.loads(pickle.dumps(store)).put("a", b"1")


def test_what_file_managers_leave_is_not_seen(store):
    store.put("results/parts/x.parquet", b"1")
    for stray in (
        ".DS_Store",
        "results/.DS_Store",
        "results/parts/._x.parquet",
        ".Trash-1000/a.json",
    ):
        path = Path(store.uri) / stray
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert list(store.list("results")) == ["results/parts/x.parquet"]
    assert [entry.name for entry in store.entries("results")] == ["results/parts/x.parquet"]


@pytest.mark.parametrize("name", ["notes.txt", "Thumbs.db", "a/b/c.json", "1.json", "x"])
def test_strays_among_results_grids_and_failures_are_passed_over(store, name):
    for folder in (layout.TABLES, layout.PARTS, layout.GRIDS, layout.FAILURES):
        store.put(f"{folder}/{name}", b"")
    assert results.read(store).num_rows == 0
    assert results.compact(store) == 0
    assert not any(map(layout.is_spec, store.list(layout.GRIDS)))


# Locks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.stem)
def test_a_damaged_lock_is_somebodys_until_it_is_stale(store, path):
    """It is advice: who holds it writes it anew, and a dead one's is taken once it is old."""
    store.put(layout.lock("g"), path.read_bytes())
    now = time.time()
    assert lock.holder(store, "g", now_s=now).alive
    found = lock.holder(store, "g", now_s=now + 2 * lock.STALE_S)
    assert not found.alive and "somebody" in str(found)


def test_a_damaged_lock_is_written_anew_by_who_holds_it(store):
    with lock.acquire(store, "g") as held:
        store.put(layout.lock("g"), b"")
        held.beat()
        assert held.taken_by is None
        assert lock.holder(store, "g").owner == held.owner
        store.put(layout.lock("g"), b"")
    assert not store.exists(layout.lock("g")), "and it is given back"


# Recorded specs -----------------------------------------------------------------------------------


def test_a_spec_says_which_version_wrote_it(store, mini):
    spec = load(mini)
    record_spec(spec, store)
    assert json.loads(store.get(layout.spec("mini")))["equigrid"] == __version__
    assert recorded_spec(store, "mini") == spec
    assert recorded_spec(store, "none") is None


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_read_back_as_it_was_recorded(store, name, tmp_path, monkeypatch, caplog):
    text = (PRESETS / f"{name}.yaml").read_text()
    for variable in re.findall(r"\$(\w+)", text):
        monkeypatch.setenv(variable, str(tmp_path))
    spec = load(name)
    record_spec(spec, store)
    found = recorded_spec(store, spec.name)
    assert found.model_dump(mode="json") == spec.model_dump(mode="json")  # keys of JSON are text
    assert not caplog.messages


OWN_NAMES = {
    "recipe": {"extends": "digits", "by_classifier": {"digits-cnn": {"lr": 0.5}},
               "by_arm": {"copies": {"lr": 0.25}}},
    "tune": {"trials": 4, "space": {"lr": {"low": 0.01, "high": 0.1, "log": True}, "batch": [8, 16]}},
    "validation": {"images": 100},
    "prices": {"default": 1.5},
    "expected_seconds": {"trial": 2.0},
}  # fmt: skip


def test_names_that_users_choose_are_no_keys_of_ours(store, mini, caplog):
    spec = load(mini | OWN_NAMES)
    record_spec(spec, store)
    assert recorded_spec(store, "mini") == spec
    assert not caplog.messages
    content = store.get_json(layout.spec("mini"))
    content["recipe"]["by_classifier"]["digits-cnn"]["mood"] = "calm"
    content["tune"]["space"]["lr"]["shape"] = "round"
    store.put_json(layout.spec("mini"), content)
    assert recorded_spec(store, "mini") == spec
    (said,) = caplog.messages
    assert "tune.space.lr.shape" in said
    assert "recipe.by_classifier.digits-cnn.mood" in said


def test_keys_of_another_version_are_left_out_and_told(store, mini, caplog):
    spec = load(mini)
    record_spec(spec, store)
    content = store.get_json(layout.spec("mini"))
    content["colour"] = "red"
    content["blocks"][0]["shade"] = {"a": 1}
    content["execution"]["turbo"] = True
    content["generators"]["edm"]["network"] = {"flavour": 3}
    content["recipe"]["mood"] = "calm"
    content["equigrid"] = "9.9.0"
    store.put_json(layout.spec("mini"), content)
    found = recorded_spec(store, "mini")
    expected = spec.model_dump()
    expected["generators"]["edm"]["network"] = {}
    assert found.model_dump() == expected
    (said,) = caplog.messages
    assert "grids/mini/spec.json was written by equigrid 9.9.0" in said
    for key in (
        "colour",
        "blocks.0.shade",
        "execution.turbo",
        "generators.edm.network.flavour",
        "recipe.mood",
    ):
        assert key in said


def test_values_of_another_version_are_refused_with_its_name(store, mini):
    record_spec(load(mini), store)
    content = store.get_json(layout.spec("mini"))
    store.put_json(layout.spec("mini"), {**content, "seeds": "many", "equigrid": "9.9.0"})
    with pytest.raises(
        UserError, match=r"written by equigrid 9\.9\.0, is no spec of this version, .*seeds"
    ):
        recorded_spec(store, "mini")


# Results ------------------------------------------------------------------------------------------


def test_every_bit_of_a_table_that_flips_is_noticed():
    """Parquet's checksums are of pages alone; a footer's flip would make a column vanish."""
    import random

    import pyarrow as pa

    row = {"trial_id": "t", "attempt": "a", "status": "ok", "grid": "g", "dataset": "d", "fingerprint": "f", "arm": "base",
           "classifier": "c", "recipe": "r", **dict.fromkeys(("n_total", "n_base", "n_nominal", "n_real_added", "n_syn", "n_copies",
           "subset_seed", "seed", "rev"), 1), "top1": 71.5, "per_class": [1.5, 2.5], "versions": [("torch", "2")]}  # fmt: skip
    draw = random.Random(20)
    for rows in (1, 40):
        table = pa.Table.from_pylist([row] * rows, schema=results.SCHEMA)
        data = results._encode(table)
        columns = results.SCHEMA.names
        assert results._decode(data, columns).equals(table)
        for _ in range(1500):
            flipped = bytearray(data)
            flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            try:
                found = results._decode(bytes(flipped), columns)
            except ValueError:
                continue
            assert found.equals(table), "what flipped was the digest's name"
        for end in (0, 3, len(data) // 2, len(data) - 1):
            with pytest.raises(ValueError, match=r"."):
                results._decode(data[:end], columns)


@pytest.mark.parametrize(
    "path", sorted((CORPUS.parent / "results").iterdir()), ids=lambda path: path.stem
)
def test_tables_of_the_corpus(store, path):
    """Damaged ones of before there were digests, and others' files."""
    name = layout.result_part("t", "a")
    store.put(name, path.read_bytes())
    with pytest.raises(DocumentError, match=f"{name} is not a table of results"):
        results.read(store)
