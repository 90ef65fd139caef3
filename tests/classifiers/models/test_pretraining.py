"""Classifiers that start from pre-trained weights: what they begin as, what moves, what is
refused.
"""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from equigrid.classifiers import recipes
from equigrid.classifiers.data.stream import StreamedMix
from equigrid.classifiers.evaluation import evaluate
from equigrid.classifiers.features import rebuilt
from equigrid.classifiers.flops import forward
from equigrid.classifiers.models import build, loading
from equigrid.classifiers.models.network import Classifier
from equigrid.classifiers.models.pretraining import Pretraining, Start
from equigrid.classifiers.training.loop import train, train_together

VIT = {"img_size": 8, "patch_size": 2, "depth": 2, "embed_dim": 48, "num_heads": 4}
RESNET = {"channels": [8, 8, 16, 16], "stem_width": 8}
NETWORKS = {"vit_tiny_patch16_224": VIT, "resnet10t": RESNET}
LORA = {"train": "lora", "rank": 4, "alpha": 8.0}


@pytest.fixture
def begin(tmp_path):
    """A start from weights that are drawn and written here."""

    def make(name="vit_tiny_patch16_224", *, channels=1, classes=7, seed=0, **how) -> Start:
        path = tmp_path / f"{name}-{seed}-{channels}.safetensors"
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            of = {"num_classes": classes, "in_chans": channels, **NETWORKS[name]}
            state = timm.create_model(name, **of).state_dict()
            for key, value in state.items():  # as after a training: no mean is 0, no variance 1
                if "running" in key:
                    value.add_(torch.rand_like(value))
        save_file(state, path)
        how = {"train": "all", **how}
        args = json.dumps(NETWORKS[name], sort_keys=True)
        of = Pretraining(weights="any", channels=channels, args=args, **how)
        return Start(of, str(path))

    return make


def built(start: Start, name="vit_tiny_patch16_224", side=8, seed=5, classes=3):
    torch.manual_seed(seed)
    size = {"height": side, "width": side, "channels": 1}
    return build(f"timm/{name}", classes=classes, **size, start=start)


def recipe(**changes):
    of = {"extends": "finetune", "steps": 6, "normalisation": {"mean": [0.5], "std": [0.5]}}
    sizes = {"n_base": 60, "n_total": 60, "n_dataset": 60, "classifier": "any"}
    return recipes.resolve(recipes.recipe({**of, **changes}), **sizes)


def test_all_but_the_last_layer_is_the_files(begin):
    one = begin()
    network, given = built(one), load_file(one.path)
    own = network.state_dict()
    assert own["head.weight"].shape == (3, 48)
    assert {k for k in given if torch.equal(own[k], given[k])} == {
        k for k in given if not k.startswith("head.")
    }
    again, other = built(one), built(one, seed=6)
    assert torch.equal(again.head.weight, network.head.weight), "drawn from the seed"
    assert not torch.equal(other.head.weight, network.head.weight)
    of_three = begin(classes=3)
    there = load_file(of_three.path)["head.weight"]
    assert not torch.equal(built(of_three).head.weight, there), "new, though classes are as many"


def test_lora_begins_as_the_network_that_it_adapts(begin):
    plain, adapted = built(begin()), built(begin(**LORA))
    x = torch.randn(4, 1, 8, 8)
    adapted.head.load_state_dict(plain.head.state_dict())
    assert torch.equal(plain.eval()(x), adapted.eval()(x))
    additions = [name for name, p in adapted.named_parameters() if name.endswith((".a", ".b"))]
    assert len(additions) == 2 * 2 * 4, "two blocks of qkv, proj, fc1, fc2"
    layer = adapted.blocks[0].mlp.fc1.parametrizations.weight
    with torch.no_grad():
        layer[0].b.normal_()
        wanted = layer.original + (8.0 / 4) * layer[0].b @ layer[0].a
    assert torch.equal(adapted.blocks[0].mlp.fc1.weight, wanted)


@pytest.mark.parametrize(
    ("name", "how", "moves"),
    [
        ("resnet10t", {"train": "head"}, lambda key: key.startswith("fc.")),
        ("vit_tiny_patch16_224", {"train": "head"}, lambda key: key.startswith("head.")),
        (
            "vit_tiny_patch16_224",
            LORA,
            lambda key: key.startswith("head.") or key.endswith((".0.a", ".0.b")),
        ),
        ("resnet10t", {"train": "all"}, lambda key: True),
    ],
)
def test_what_is_not_to_learn_does_not_move_by_a_bit(begin, digits, name, how, moves):
    """Weights, and BatchNorm's statistics and counts."""
    images, labels = (part[:60] for part in digits)
    one, settings = begin(name, **how), recipe(augmentation={"resized_crop": {"size_px": 32}})
    if name.startswith("vit"):
        settings = recipe()
    of = {"model": f"timm/{name}", "classes": 10, "device": "cpu", "start": one, "seed": 3}
    states = {}
    trained = train(
        images, labels, recipe=settings, validation=None,
        checkpoint=lambda step, make: states.setdefault(step, make()), **of,
    )  # fmt: skip
    first, last = (states[step]["members"][0]["module"] for step in (1, 6))
    assert last.keys() == {f"network.{k}" for k in trained.module.network.state_dict()} | {
        "scale", "shift",
    }  # fmt: skip
    moved = {k.removeprefix("network.") for k in last if not torch.equal(first[k], last[k])}
    every = set(trained.module.network.state_dict())
    assert moved == {key for key in every if moves(key)}
    given = load_file(one.path)
    kept = {
        key for key in given if key in every and torch.equal(last[f"network.{key}"], given[key])
    }
    if how["train"] == "head":
        assert kept == {key for key in given if not moves(key)}


def test_resumed_is_uninterrupted_and_together_is_alone(begin, digits):
    images, labels = (part[:60] for part in digits)
    of = {
        "model": "timm/vit_tiny_patch16_224", "recipe": recipe(), "classes": 10, "device": "cpu",
        "start": begin(**LORA),
    }  # fmt: skip
    states = {}
    alone = train(
        images, labels, seed=1, checkpoint=lambda step, make: states.setdefault(step, make()), **of
    )
    resumed = train(images, labels, seed=1, resume=states[3], **of)
    both = train_together(images, labels, seeds=[0, 1], **of)
    wanted = alone.module.state_dict()
    for other in (resumed, both[1]):
        assert all(torch.equal(v, wanted[k]) for k, v in other.module.state_dict().items())
    assert not torch.equal(both[0].module.network.head.weight, alone.module.network.head.weight)
    again = rebuilt(
        wanted, model=of["model"], classes=10, channels=1, input_size=(8, 8), device="cpu",
        start=Start(of["start"].how),
    )  # fmt: skip
    pixels = torch.from_numpy(images[:9]).permute(0, 3, 1, 2)
    assert torch.equal(again(pixels), alone.module(pixels))


def test_the_last_layer_has_a_rate_of_its_own(begin, digits):
    """Without momentum and decay a step is the rate times the gradient: ten times the rate, ten
    times the step, and nothing else changes.
    """
    images, labels = (part[:60] for part in digits)
    moved = {}
    for head_lr in (None, 0.1, 1.0):
        plain = {"optimizer": "sgd", "momentum": 0, "weight_decay": 0, "warmup": 0, "lr": 0.1}
        settings = recipe(steps=1, **plain, head_lr=head_lr, decay={"kind": "constant"})
        one = begin()
        of = {"model": "timm/vit_tiny_patch16_224", "classes": 10, "device": "cpu", "seed": 2}
        after = train(images, labels, recipe=settings, start=one, **of).module.network
        torch.manual_seed(0)
        moved[head_lr] = after.head.bias.detach(), after.blocks[0].mlp.fc1.bias.detach()
    assert all(torch.equal(x, y) for x, y in zip(moved[None], moved[0.1]))
    assert torch.allclose(moved[1.0][0], 10 * moved[0.1][0], rtol=1e-5), "the bias begins as zeros"
    assert torch.equal(moved[1.0][1], moved[0.1][1])


def test_a_grey_image_is_seen_as_a_colour_image_of_three_equal_channels(begin):
    one = begin(channels=3)
    module = Classifier(built(one), [0.5, 0.4, 0.3], [0.2, 0.3, 0.4], (8, 8)).eval()
    grey = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(module(grey), module(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("norm.bias"), "missing: norm.bias"),
        (lambda w: w.update(other=torch.ones(1)), "unexpected: other"),
        (
            lambda w: w.update({"pos_embed": torch.ones(1, 5, 48)}),
            r"pos_embed is \[1, 5, 48\] for \[1, 17, 48\]",
        ),
        (lambda w: w.clear(), "missing: cls_token, pos_embed, patch_embed.proj.weight and 2"),
    ],
)
def test_weights_of_another_network_are_told_by_their_differences(begin, change, message):
    one = begin()
    weights = load_file(one.path)
    change(weights)
    save_file(weights, one.path)
    with pytest.raises(ValueError, match=message) as told:
        built(one)
    assert "\n" not in str(told.value)


def test_what_is_no_file_of_weights_is_a_line(tmp_path):
    path = tmp_path / "x.safetensors"
    for content in (b"", b"PK\x03\x04 a zip", b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no.* weights in safetensors' format"):
            loading.read_shapes(str(path), "x")


def test_networks_that_cannot_be_adapted_or_made_are_refused():
    with pytest.raises(ValueError, match="no architecture 'resnt10t'; nearest: .*resnet10t"):
        loading.check_architecture("resnt10t")
    with pytest.raises(ValueError, match="lora adapts linear layers, and resnet10t has none"):
        loading.check_adaptable("resnet10t", "{}", 3)
    loading.check_adaptable("vit_tiny_patch16_224", "{}", 3)
    with pytest.raises(ValueError, match="does not make resnet10t with {'wings': 2}: TypeError"):
        loading.skeleton("resnet10t", '{"wings": 2}', 3)
    with pytest.raises(ValueError, match="timm has no weights 'x' of resnet10t; tags: .*c3_in1k"):
        loading.released("resnet10t", "x")


def test_the_channels_are_those_that_the_weights_fit(begin):
    for channels in (1, 3):
        one = begin(channels=channels)
        shapes = loading.read_shapes(one.path, "x")
        args = one.how.args
        assert loading.fitting("vit_tiny_patch16_224", args, shapes, "x", (3, 1)) == channels


def test_operations_of_a_network_with_arguments(begin):
    """The tokens' share: a quarter of them, about a quarter of the operations."""
    small = forward("timm/vit_tiny_patch16_224", 8, 8, 1, Start(begin().how))
    assert small is not None
    per_token = 2 * (2 * 12 * 48 * 48) + 2 * (4 * 17 * 48)  # blocks' products, and attention
    assert small.per_image == pytest.approx(17 * per_token, rel=0.05)


@pytest.mark.long
def test_weights_learned_on_other_images_beat_scratch_at_few(begin, digits, tmp_path):
    """Half of the digits as other people's data, two images of each class of one's own."""
    images, labels = digits
    one = begin()
    of = {"model": "timm/vit_tiny_patch16_224", "classes": 10, "device": "cpu"}
    learn = recipe(steps=400, lr=2e-3)
    before = train(images[:800], labels[:800], recipe=learn, seed=0, start=one, **of)
    path = str(tmp_path / "learned.safetensors")
    save_file({k: v.contiguous() for k, v in before.module.network.state_dict().items()}, path)
    found = {}
    for name, how, weights in [
        ("scratch", {"train": "all"}, one.path),
        ("all", {"train": "all"}, path),
        ("head", {"train": "head"}, path),
        ("lora", LORA, path),
    ]:
        first = Start(one.how.model_copy(update=how), weights)
        own = slice(800, 820)
        after = train(images[own], labels[own], recipe=recipe(steps=100), seed=1, start=first, **of)
        test = evaluate(after.module, images[1_200:], labels[1_200:], classes=10, device="cpu")
        found[name] = test.top1
    assert all(np.isfinite(value) for value in found.values())
    assert min(found["all"], found["head"], found["lora"]) > found["scratch"] + 20, found


def test_streamed_images_give_the_same_training(begin, digits):
    """All shards at hand: the order is that of resident images."""
    images, labels = (part[:60] for part in digits)
    of = {
        "model": "timm/vit_tiny_patch16_224", "recipe": recipe(), "classes": 10, "device": "cpu",
        "seed": 1, "start": begin(**LORA),
    }  # fmt: skip
    parts = [
        (lambda part=part: (images[part], labels[part]), np.arange(30))
        for part in (slice(30), slice(30, 60))
    ]
    streamed = train(StreamedMix(parts, (8, 8, 1), window=2), **of).module.state_dict()
    resident = train(images, labels, **of).module.state_dict()
    assert all(torch.equal(streamed[name], resident[name]) for name in resident)
