"""Zero-shot trials: the joint space against its formula, learning on real digits, a small BERT
through real loading.
"""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from equigrid.classifiers import models
from equigrid.classifiers.data.mix import Mix
from equigrid.classifiers.data.stream import StreamedMix
from equigrid.classifiers.recipes import recipe, resolve
from equigrid.classifiers.zero_shot.config import ZeroShotConfig
from equigrid.classifiers.zero_shot.joint import JointSpace
from equigrid.classifiers.zero_shot.training import rows, zero_shot

DIGITS = "zero one two three four five six seven eight nine".split()
SEEN, UNSEEN = range(5), (5, 6, 7, 8, 9)
CONFIG = ZeroShotConfig(text_width=10, joint=32)
TEXTS = np.eye(10, dtype=np.float32)  # of classes that have nothing in common


@pytest.fixture(scope="module")
def split(digits):
    """(training, test) mixes of all ten classes."""
    images, labels = digits
    return Mix([(images, labels, np.arange(600))]), Mix([(images, labels, np.arange(900, 1797))])


def run(mix, test, *, steps=150, seed=0, device="cpu", **options):
    own = recipe({"extends": "digits", "steps": steps})
    own = resolve(
        own, n_base=mix.n_total, n_total=mix.n_total, n_dataset=1_797, classifier="digits-cnn"
    )
    options = {"text_features": TEXTS, "unseen": UNSEEN, "config": CONFIG, "recipe": own, **options}
    return zero_shot(mix, test, model="digits-cnn", seed=seed, device=device, **options)


def joined(*mixes):
    return Mix([(part.images, part.labels, part.indices) for mix in mixes for part in mix.parts])


def space(width=6, classes=4, candidates=range(4), seed=0, **changes):
    torch.manual_seed(seed)
    return JointSpace(
        width,
        torch.randn(classes, 5),
        candidates=candidates,
        **{"joint": 7, "temperature": 0.1, **changes},
    )


class TestJointSpace:
    def test_logits_are_scaled_cosines(self):
        own, x = space(), torch.randn(3, 6)
        logits = own(x).detach().double().numpy()
        weights = {
            name: value.detach().double().numpy() for name, value in own.state_dict().items()
        }
        for n in range(3):
            image = weights["image.weight"] @ x[n].double().numpy() + weights["image.bias"]
            for c in range(4):
                text = weights["text.weight"] @ weights["texts"][c] + weights["text.bias"]
                cosine = image @ text / math.sqrt((image @ image) * (text @ text))
                assert logits[n, c] == pytest.approx(10 * cosine, abs=1e-4)

    def test_candidates_compete_alone(self):
        own, x, y = space(candidates=[1, 3]), torch.randn(8, 6), torch.tensor([1, 3] * 4)
        logits = own(x)
        assert set(logits.argmax(1).tolist()) <= {1, 3}
        alone = F.cross_entropy(logits[:, [1, 3]], torch.tensor([0, 1] * 4))
        assert F.cross_entropy(logits, y).item() == pytest.approx(alone.item(), rel=1e-6)
        own.choose(range(4))
        assert torch.isfinite(own(x)).all() and (own(x) > -100).all()

    def test_the_texts_are_frozen_and_the_temperature_is_bounded(self):
        own = space(temperature=1e-6)
        assert own.scale.item() == 100
        assert {name for name, _ in own.named_parameters()} == {
            "image.weight", "image.bias", "text.weight", "text.bias", "scale_change"}  # fmt: skip

    def test_float32_inside_bfloat16(self):
        own, x = space(temperature=0.01), torch.randn(4, 6)
        with torch.autocast("cpu", torch.bfloat16):
            inside = own(x)
        assert inside.dtype == torch.float32
        assert torch.equal(inside, own(x))

    @pytest.mark.parametrize(
        ("name", "side"),
        [("digits-cnn", 8), ("resnet20", 32), ("resnet50", 32), ("timm/test_vit", 160)],
    )
    def test_every_classifier_takes_it(self, name, side):
        widths = []
        size = {"classes": 4, "height": side, "width": side, "channels": 3}
        plain = models.build(name, **size)
        own = models.build(
            name, **size, head=lambda width: widths.append(width) or torch.nn.Linear(width, 9)
        )
        with torch.inference_mode():
            assert own.eval()(torch.zeros(2, 3, side, side)).shape == (2, 9)
        # One layer differs, and its inputs are those of the ordinary last layer.
        left = sum(p.numel() for p in own.parameters()) - sum(p.numel() for p in plain.parameters())
        assert left == (9 - 4) * (widths[0] + 1)


class TestDigits:
    def test_unseen_classes_are_learnt_from_images_alone_and_not_without_them(self, split):
        train, test = split
        without = run(rows(train, SEEN), test)
        # measured for four seeds: 99.6 to 100, 5 to 17; with images of the unseen 98.2 to 99.1,
        # 97.0 to 97.5, 98.7 to 99.3
        assert without.seen_among_all > 97
        assert without.among_unseen < 40
        assert without.among_all <= without.among_unseen
        assert without.trained.module.network.head.texts.shape == (10, 10)

        given = run(joined(rows(train, SEEN), rows(train, UNSEEN, 250)), test)
        assert given.among_unseen > 95
        assert given.among_all > 90
        assert given.among_all <= given.among_unseen
        assert given.seen_among_all > 90
        assert given.temperature != 0.07 and 0.01 <= given.temperature < 1
        assert given.n_train == rows(train, SEEN).n_total + 250
        assert given.n_test == rows(test, UNSEEN).n_total
        assert np.isnan(given.per_class[:5]).all()
        counts = [rows(test, [c]).n_total for c in UNSEEN]
        assert np.average(given.per_class[5:], weights=counts) == pytest.approx(given.among_unseen)

    @pytest.mark.gpu
    def test_on_a_cuda_device(self, split):
        train, test = split
        assert (
            run(
                joined(rows(train, SEEN), rows(train, UNSEEN, 250)), test, device="cuda"
            ).among_unseen
            > 95
        )

    def test_resumed_equals_uninterrupted_bitwise(self, split):
        train, test = split
        mix, kept = rows(train, SEEN), io.BytesIO()
        whole = run(
            mix,
            test,
            steps=12,
            checkpoint=lambda step, make: torch.save(make(), kept) if step == 5 else None,
        )
        kept.seek(0)
        rest = run(mix, test, steps=12, resume=torch.load(kept, weights_only=True))
        assert whole == rest
        states = whole.trained.module.state_dict(), rest.trained.module.state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    def test_streamed_equals_resident(self, split):
        train, test = split
        mix = rows(train, SEEN)
        (part,) = mix.parts
        given = {"extends": "digits", "steps": 12, "normalisation": {"mean": [0.3], "std": [0.4]}}
        own = resolve(
            recipe(given), n_base=1, n_total=mix.n_total, n_dataset=1_797, classifier="digits-cnn"
        )
        streamed = StreamedMix(
            [(lambda: (part.images, part.labels), part.indices)], mix.image_shape
        )
        with pytest.raises(ValueError, match="does not tell its classes: give candidates"):
            run(streamed, test, recipe=own)
        assert run(streamed, test, recipe=own, candidates=SEEN) == run(mix, test, recipe=own)

    def test_rows(self, split):
        train, _ = split
        first = rows(train, UNSEEN, 7)
        assert first.labels().tolist() == [c for c in train.labels().tolist() if c in UNSEEN][:7]
        assert rows(first, [0]) is None


class TestErrors:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"unseen": [3]}, "two seen and two unseen classes of 0..9, got unseen \\[3\\]"),
            ({"unseen": range(1, 10)}, "two seen and two unseen"),
            ({"unseen": [8, 10]}, "two seen and two unseen"),
            ({"text_features": np.eye(10, 9, dtype=np.float32)}, r"text_width 10\), got \[10, 9\]"),
            ({"text_features": TEXTS * np.nan}, "not finite"),
        ],
    )
    def test_trials(self, split, changes, message):
        train, test = split
        with pytest.raises(ValueError, match=message):
            run(rows(train, SEEN), test, **changes)

    def test_no_test_images_and_label_smoothing(self, split):
        train, test = split
        with pytest.raises(ValueError, match="no image of the unseen classes"):
            run(rows(train, SEEN), rows(test, SEEN), steps=1)
        own = recipe({"extends": "digits", "label_smoothing": 0.1})
        own = resolve(own, n_base=1, n_total=10, n_dataset=10, classifier="digits-cnn")
        with pytest.raises(ValueError, match="label_smoothing 0.1 would teach"):
            run(rows(train, SEEN), test, recipe=own)

    @pytest.mark.parametrize(
        ("changes", "names", "message"),
        [
            ({}, ("0", "1", "2", "3"), "class name '0' says nothing .* `class_names`"),
            ({}, ("cat", "dog", "n02123394", "owl"), "'n02123394' says nothing"),
            ({}, (), "names of all 4 classes, got 0; give the dataset `class_names`"),
            ({"unseen": ["owl", "bat"]}, ("cat", "dog", "fox", "owl"), "there is no class 'bat'"),
            (
                {"text_encoder": "./nowhere"},
                ("cat", "dog", "fox", "owl"),
                "there is no folder './nowhere'",
            ),
        ],
    )
    def test_configurations(self, changes, names, message):
        with pytest.raises(ValueError, match=message):
            ZeroShotConfig(**changes).check(names, 4)

    def test_a_template_without_the_name(self):
        with pytest.raises(ValueError, match="must hold {c}"):
            ZeroShotConfig(template="a photo")


class TestConfig:
    def test_splits(self):
        assert ZeroShotConfig().unseen_labels(DIGITS, 10) == (5, 6, 7, 8, 9)
        assert ZeroShotConfig().unseen_labels((), 7) == (4, 5, 6)
        assert ZeroShotConfig(unseen=["nine", "two"]).unseen_labels(DIGITS, 10) == (2, 9)
        assert ZeroShotConfig(unseen=[9, 2, 9]).unseen_labels(DIGITS, 10) == (2, 9)

    def test_payload(self, bert, tmp_path):
        own = ZeroShotConfig(text_encoder=bert, text_width=16)
        names = ("cat", "sea_lion", "fox", "owl")
        payload = own.payload(names, 4)
        assert payload["texts"][1] == "a photo of a sea lion."
        assert bert not in str(payload)
        assert payload["unseen"] == [2, 3]
        copy = tmp_path / "elsewhere"
        subprocess.run(["cp", "-r", bert, copy], check=True)
        assert own.model_copy(update={"text_encoder": str(copy)}).payload(names, 4) == payload
        (copy / "config.json").write_text((copy / "config.json").read_text() + " ")
        assert own.model_copy(update={"text_encoder": str(copy)}).payload(names, 4) != payload

    def test_no_torch(self):
        code = "import sys, equigrid.classifiers.zero_shot.config; print({'torch', 'transformers'} & set(sys.modules))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "set()"


class TestTextEncoder:
    def test_features(self, bert):
        from transformers import BertModel, BertTokenizer

        from equigrid.classifiers.zero_shot.text import text_features

        own = ZeroShotConfig(text_encoder=bert, text_width=16)
        features = text_features(("cat", "owl", "fox"), own)
        assert features.shape == (3, 16) and features.dtype == np.float32
        # Other classes change nothing, names do.
        assert np.array_equal(text_features(("owl", "deer"), own)[0], features[1])
        assert abs(features[0] - features[1]).max() > 1e-3
        tokens = BertTokenizer.from_pretrained(bert)("a photo of a owl.", return_tensors="pt")
        with torch.inference_mode():
            states = BertModel.from_pretrained(bert).eval()(**tokens).last_hidden_state
        assert states.shape[1] > 10
        assert np.allclose(states[0].mean(0).numpy(), features[1], atol=1e-6)

    def test_a_trial_with_it_learns(self, bert, split):
        from equigrid.classifiers.zero_shot.text import text_features

        train, test = split
        own = ZeroShotConfig(text_encoder=bert, text_width=16)
        features = text_features(DIGITS, own)
        result = run(train, test, text_features=features, config=own, steps=250)
        assert result.among_unseen > 85

    def test_another_width(self, bert):
        from equigrid.classifiers.zero_shot.text import text_features

        with pytest.raises(ValueError, match="width 16, expected text_width 768"):
            text_features(("cat", "owl"), ZeroShotConfig(text_encoder=bert))
        names = ("cat", "dog", "fox", "owl")
        ZeroShotConfig(text_encoder=bert, text_width=16).check(names, 4)
        # Before anything is trained.
        with pytest.raises(ValueError, match="features of width 16; set text_width: 16"):
            ZeroShotConfig(text_encoder=bert).check(names, 4)

    def test_a_hub_that_never_answers(self, bert, cached):
        from equigrid.classifiers.zero_shot.text import text_features

        own = ZeroShotConfig(text_encoder=cached(bert), text_width=16)
        local = own.model_copy(update={"text_encoder": bert})
        assert np.array_equal(
            text_features(("cat", "owl"), own), text_features(("cat", "owl"), local)
        )
        with pytest.raises(
            ValueError, match=r"text_encoder 'no/such' could not be loaded \(ReadTimeout.*HF_HOME"
        ) as error:
            text_features(("cat", "owl"), own.model_copy(update={"text_encoder": "no/such"}))
        assert "\n" not in str(error.value)

    def test_a_folder_without_weights(self, bert, tmp_path):
        subprocess.run(["cp", "-r", bert, tmp_path / "bare"], check=True)
        (tmp_path / "bare" / "model.safetensors").unlink()
        own = ZeroShotConfig(text_encoder=str(tmp_path / "bare"), text_width=16)
        with pytest.raises(
            ValueError,
            match="does not hold config.json, a tokenizer and safetensors weights; place",
        ):
            own.check(("cat", "dog", "fox", "owl"), 4)

    def test_what_is_missing(self, bert, tmp_path):
        from safetensors.torch import load_file

        from equigrid.classifiers.zero_shot.text import text_features

        folder = tmp_path / "pickled"
        subprocess.run(["cp", "-r", bert, folder], check=True)
        weights = folder / "model.safetensors"
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
        own = ZeroShotConfig(text_encoder=str(folder), text_width=16)
        with pytest.raises(
            ValueError,
            match="could not be loaded .* name a folder with config.json, a tokenizer and",
        ):
            text_features(("cat", "owl"), own)
