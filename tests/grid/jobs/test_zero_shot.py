"""Zero-shot trials as jobs of a grid: real images of half the classes, imported ones of the other
half.
"""

import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from equigrid.grid import jobs
from equigrid.grid.errors import UserError
from equigrid.grid.planning.pending import pending
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import record_of, resolve
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import layout, results

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen", "ibis", "jay")


@pytest.fixture
def spec(tmp_path):
    """The digits under names that are words; what is not in the set serves as its synthetic
    images.
    """
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertModel, BertTokenizer

    grey, labels = load_digits(return_X_y=True)
    places = {"set/train": slice(0, 800), "set/test": slice(800, 1200), "pool": slice(1200, None)}
    for folder, chosen in places.items():
        for i, (image, label) in enumerate(zip(grey[chosen], labels[chosen])):
            path = tmp_path / folder / NAMES[label] / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image.reshape(8, 8) * 15.9).astype(np.uint8)).save(path)
    letters = [chr(c) for c in range(97, 123)]
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ".",
        *letters,
        *(f"##{c}" for c in letters),
    ]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(
        tmp_path / "bert"
    )
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    model = BertModel(BertConfig(vocab_size=len(words), **sizes))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape))
    model.save_pretrained(tmp_path / "bert")
    return {
        "name": "zero", "dataset": {"imagefolder": str(tmp_path / "set")}, "classifiers": ["digits-cnn"],
        "recipe": {"extends": "digits", "steps": 150}, "quality": "off", "seeds": [0], "execution": {"gpus": 0},
        "generators": {"made": {"kind": "imported", "path": str(tmp_path / "pool")}},
        "zero_shot": {"text_encoder": str(tmp_path / "bert"), "text_width": 16},
        "blocks": [{"n_base": 200, "syn": {"made": ["200 images"]}}],
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("made", ["all", "unseen"])
def test_unseen_classes_are_learnt_from_the_pool_alone(
    made, planned, request_of, spec, monkeypatch
):
    monkeypatch.setenv("A_BERT", spec["zero_shot"]["text_encoder"])
    spec["zero_shot"] |= {"text_encoder": "$A_BERT", "pools": made}
    store, the_plan = planned(spec)
    for job in pending(store, the_plan)[0]:
        outcome = jobs.run(store, request_of(store, the_plan, job))
        assert outcome["status"] == "ok", outcome
    rows = {row["trial_id"]: row for row in results.read(store).to_pylist()}
    found = {
        cell.arm: (rows[cell.trial_id], store.get_json(layout.ZERO_SHOT.manifest(cell.trial_id)))
        for cell in the_plan.cells
    }
    (base, base_facts), (syn, syn_facts) = found["base"], found["syn"]
    assert base["top1"] < 50 < 80 < syn["top1"]  # chance is 20%
    assert syn["top1"] == syn_facts["among_unseen"]
    assert base_facts["among_all"] < 5
    assert 70 < syn_facts["among_all"] <= syn_facts["among_unseen"]
    assert (base_facts["n_train"], syn_facts["n_train"]) == (200, 400)
    assert [value is None for value in syn_facts["per_class"]] == [True] * 5 + [False] * 5
    assert len([name for name in store.list("statistics") if "texts-" in name]) == 1


def test_what_makes_no_sense_is_refused(planned, spec):
    with pytest.raises(UserError, match="a closed-set generator has not seen the unseen classes"):
        planned({**spec, "generators": {"made": {"kind": "edm", "preset": "digits"}}})
    with pytest.raises(UserError, match="outside: zero_shot is of synthetic images alone"):
        planned({**spec, "outside": {"images": 100}})
    with pytest.raises(UserError, match="blocks.0: zero_shot is of synthetic images alone"):
        planned({**spec, "blocks": [{"n_base": 200, "real": 1}]})
    with pytest.raises(UserError, match="class name '0' says nothing to a text encoder"):
        planned({**spec, "dataset": "digits"})
    with pytest.raises(UserError, match="more than the 4"):
        planned({**spec, "blocks": [{"n_base": 600}]})


def test_a_finite_pool_is_counted_by_its_unseen_classes(planned, spec, tmp_path):
    """Half of the pool's images are of seen classes, and serve nobody."""
    rarest = min(len(list((tmp_path / "pool" / name).iterdir())) for name in NAMES)
    most = 5 * rarest
    _, the_plan = planned(
        {**spec, "blocks": [{"n_base": 200, "syn": {"made": [f"{most} images"]}}]}, "all"
    )
    (pool,) = the_plan.pools.values()
    assert len(list(the_plan.of_kind("shard"))) == pool.shards(2 * most)
    too_many = {**spec, "blocks": [{"n_base": 200, "syn": {"made": [f"{most + 1} images"]}}]}
    with pytest.raises(
        UserError,
        match=f"{most + 1} images; made has {most} that are balanced over the unseen classes",
    ):
        planned(too_many)


def test_pools_of_the_unseen_classes_have_half_the_images(planned, spec, tmp_path):
    """Of a finite pool as many can be had as before, and half as many are made."""
    rarest = min(len(list((tmp_path / "pool" / name).iterdir())) for name in NAMES)
    most = 5 * rarest
    unseen = {**spec, "zero_shot": spec["zero_shot"] | {"pools": "unseen"}}
    blocks = [{"n_base": 200, "syn": {"made": [f"{most} images"]}}]
    _, the_plan = planned({**unseen, "blocks": blocks}, "unseen")
    (pool,) = the_plan.pools.values()
    shards = [*the_plan.of_kind("shard")]
    assert len(shards) == pool.shards(most)
    assert {job.payload.shares for job in shards} == {(0, 0, 0, 0, 0, 1, 1, 1, 1, 1)}
    too_many = [{"n_base": 200, "syn": {"made": [f"{most + 1} images"]}}]
    with pytest.raises(
        UserError,
        match=f"{most + 1} images; made has {most} that are balanced over the unseen classes",
    ):
        planned({**unseen, "blocks": too_many})


def test_a_trial_without_synthetic_images_is_the_same_whichever_pools_are_made(planned, spec):
    """`pools` changes what is made: nothing that is there already of a grid that adds it."""
    _, before = planned(spec, "all")
    unseen = {**spec, "zero_shot": spec["zero_shot"] | {"pools": "unseen"}}
    _, after = planned(unseen, "unseen")
    ids = [{cell.arm: cell.trial_id for cell in one.cells} for one in (before, after)]
    assert ids[0]["base"] == ids[1]["base"]
    assert ids[0]["syn"] != ids[1]["syn"]
    kept = [{job.id for job in one.of_kind("generator")} for one in (before, after)]
    assert kept[0] == kept[1]


def test_what_was_recorded_before_pools_could_be_chosen_is_known(planned, spec, tmp_path):
    """A grid of an older release: its record has no `pools`, and its encoder is gone."""
    store, the_plan = planned(spec, "all")
    found = record_of(the_plan.resolved.spec, the_plan.resolved)
    old = {name: spec["zero_shot"].get(name) for name in spec["zero_shot"]}
    assert "pools" not in found.zero_shot["entry"]
    shutil.rmtree(tmp_path / "bert")
    resolved = resolve(GridSpec.model_validate({**spec, "zero_shot": old}), store, found)
    assert [*plan(resolved).jobs] == [*the_plan.jobs]
    unseen = GridSpec.model_validate({**spec, "zero_shot": old | {"pools": "unseen"}})
    with pytest.raises(UserError, match="zero_shot: text_encoder: there is no folder"):
        resolve(unseen, store, found)  # another grid: what it is made of must be there
