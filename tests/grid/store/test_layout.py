"""Names in a store: spelled in one module, and read back as they were written."""

import ast
from pathlib import Path

import pytest

from equigrid.grid.store import layout

GRID = Path(layout.__file__).resolve().parents[1]
FOLDERS = (
    *(layout.DATASETS, layout.CHECKPOINTS, layout.FAILURES, layout.GRIDS, "results", "statistics"),
    *(place.root for place in vars(layout).values() if isinstance(place, layout.Files)),
)
# Methods of a store that take a name first; of `get` and `put`, which others have too, see below.
METHODS = {
    *("put_json", "get_json", "get_decoded", "list", "entries", "asides", "size", "exists"),
    "delete",
}


def spelled(tree: ast.AST) -> list[int]:
    """Lines in which a name in a store is spelled: texts that begin with one of its folders, and
    texts that a store's method is given.
    """
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            folder, slash, rest = node.value.partition("/")
            if id(node) not in docstrings and slash and folder in FOLDERS and " " not in rest:
                found.append(node.lineno)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            first = node.args[0] if node.args else None
            is_text = isinstance(first, ast.JoinedStr) or (
                isinstance(first, ast.Constant) and isinstance(first.value, str)
            )
            if is_text and node.func.attr in METHODS:
                found.append(node.lineno)
    return found


def test_no_other_module_spells_a_name_in_a_store():
    for path in sorted(GRID.rglob("*.py")):
        lines = spelled(ast.parse(path.read_text()))
        if path.name == "layout.py":
            assert lines
        else:
            assert not lines, f"{path.relative_to(GRID)}, lines {lines}: see store/layout.py"


@pytest.mark.parametrize(
    "code",
    [
        'x = f"pools/{pool}/00000.json"',
        'store.list("generators")',
        'store.put(f"grids/{name}/spec.json", b"")',
        'store.put_json(f"{prefix}/{name}.json", {})',
        'PARTS = "results/parts"',
    ],
)
def test_a_name_that_is_spelled_elsewhere_would_be_found(code):
    assert spelled(ast.parse(code)) == [1]
    assert not spelled(ast.parse('"""pools/x.json"""\nd.get("pools")\nt = "pools and grids"'))


@pytest.mark.parametrize("outputs", [layout.GENERATORS, layout.REFERENCE_CLASSIFIERS])
def test_all_of_a_training_is_its_jobs_and_only_some_of_it_goes_once_it_is_done(outputs):
    job_id = "generator-0123456789abcdef0123"
    kept = [
        outputs.manifest(job_id),
        outputs.weights(job_id, "20261129T180000-abc"),
        outputs.log(job_id, "a"),
        outputs.sheet(job_id, 7),
    ]
    of_training = [
        layout.checkpoint(outputs.checkpoints(job_id), 3, "a", "d"),
        layout.artefact_manifest(outputs.artefacts(job_id), "latents"),
        layout.artefact(outputs.artefacts(job_id), "latents", "0123456789abcdef"),
    ]
    assert {outputs.owner(name) for name in (*kept, *of_training)} == {job_id}
    assert [outputs.is_for_training(name) for name in (*kept, *of_training)] == [
        *([False] * len(kept)),
        *([True] * len(of_training)),
    ]
    assert [name for name in (*kept, *of_training) if outputs.is_manifest(name)] == kept[:1]
    assert [name for name in (*kept, *of_training) if layout.WEIGHTS in name] == kept[1:2]


def test_a_shard_and_what_lies_beside_it_are_its_jobs():
    job_id = layout.POOLS.job_id("pool-0123", 3)
    manifest = layout.POOLS.manifest(job_id)
    assert manifest == "pools/pool-0123/00003.json"
    beside = [
        layout.shard_data(manifest, "0123456789abcdef"),
        layout.shard_columns(manifest, "20261129T180000-abc"),
    ]
    assert {layout.POOLS.owner(name) for name in (manifest, *beside)} == {job_id}
    assert [name for name in (manifest, *beside) if layout.POOLS.is_manifest(name)] == [manifest]
    assert manifest.startswith(layout.POOLS.pool("pool-0123"))


def test_a_measure_and_its_picture_are_its_jobs():
    name = layout.QUALITY.manifest("quality-0123")
    picture = layout.neighbours_picture("quality-0123")
    assert [layout.QUALITY.owner(one) for one in (name, picture)] == ["quality-0123"] * 2
    assert [layout.QUALITY.is_manifest(one) for one in (name, picture)] == [True, False]


def test_names_say_what_they_are_of():
    shard = layout.POOLS.job_id("pool-1", 0)
    assert layout.failed_job(layout.failure(shard, "a")) == shard
    assert layout.failed_job(layout.failure("trial-1", "a")) == "trial-1"
    assert layout.checkpointed_job(f"{layout.checkpoints('trial-1')}/x.pt") == "trial-1"
    saved = layout.checkpoint("checkpoints/t", 12, "20261129T180000-abc", "0f0f")
    assert layout.is_checkpoint(saved) and layout.checkpoint_digest(saved) == "0f0f"
    assert layout.grid_of(layout.run("cifar10", "a")) == "cifar10"
    assert layout.is_spec(layout.spec("g")) and not layout.is_spec(layout.lock("g"))
    assert layout.run("g", "a").startswith(layout.runs("g"))
    assert [layout.split_of(layout.dataset_shard("k", split, 0)) for split in ("val", "test")] == [
        "val",
        "test",
    ]
    assert layout.split_of(layout.POOLS.manifest(shard)) not in ("train", "val", "test")
    assert layout.is_dataset(layout.dataset("k")) and not layout.is_dataset("pools/p/0.json")
    folders = {
        layout.dataset_folder(name)
        for name in (layout.dataset("k"), layout.dataset_labels("k", "val", "0"))
    }
    assert folders == {"k"}
    generation = layout.generation(7, "20261129T180000-abc")
    objects = layout.generation_rows(generation), layout.generation_manifest(generation)
    assert {layout.generation_of(name) for name in objects} == {generation}
    assert layout.generation_number(generation) == 7
    assert [layout.is_manifest(name) for name in objects] == [False, True]
    artefacts = layout.GENERATORS.artefacts("g")
    assert layout.artefact_name(artefacts, layout.artefact_manifest(artefacts, "a/b")) == "a/b"
    assert layout.artefact_name(artefacts, layout.artefact(artefacts, "a/b", "0" * 20)) is None
