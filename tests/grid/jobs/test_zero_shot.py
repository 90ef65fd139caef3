"""Zero-shot trials as jobs of a grid: real images of half the classes, imported ones of the other
half.
"""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from equigrid.grid import jobs
from equigrid.grid.errors import UserError
from equigrid.grid.planning.pending import pending
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
def test_unseen_classes_are_learnt_from_the_pool_alone(planned, request_of, spec, monkeypatch):
    monkeypatch.setenv("A_BERT", spec["zero_shot"]["text_encoder"])
    spec["zero_shot"]["text_encoder"] = "$A_BERT"
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
