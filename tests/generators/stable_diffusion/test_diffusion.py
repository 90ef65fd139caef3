"""Stable Diffusion's pools, through the real loading code: small pipelines of random weights,
written to disk here.
"""

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from equigrid.generators import registry
from equigrid.generators.common import pools
from equigrid.generators.common.rng import seed_of
from equigrid.generators.registry import config
from equigrid.generators.stable_diffusion import (
    candidates,
    clip_filter,
    models,
    prompts,
    sampling,
    sources,
    training,
)
from equigrid.generators.stable_diffusion.candidates import Candidates, Wanted
from equigrid.generators.stable_diffusion.config import ClipFilter

NAMES = ("owl", "sea_lion", "fox")
SIDE = 16  # of the images that the small pipelines make


def made(pipeline, **changes):
    """A configuration of two steps."""
    sampler = {"steps": 2, "batch": 4, **changes.pop("sampler", {})}
    return config(
        {
            "kind": "stable-diffusion",
            "preset": "sd2",
            "pipeline": pipeline,
            "sampler": sampler,
            **changes,
        }
    )


def pool(
    chosen, start, stop, *, weights=None, shape=(SIDE, SIDE, 3), seed=5, names=NAMES, **options
):
    return registry.sample(
        weights or {}, chosen, classes=len(names), shape=shape, seed=seed, start=start, stop=stop,
        class_names=names, **options,
    )  # fmt: skip


class TestPools:
    def test_pixels_do_not_depend_on_the_cutting(self, sd):
        columns = []
        images, labels = pool(made(sd), 0, 10, facts=columns.append)
        assert images.shape == (10, SIDE, SIDE, 3) and images.dtype == np.uint8
        assert np.array_equal(labels, pools.labels(5, 0, 10, 3))
        assert len(np.unique(images.reshape(10, -1), axis=0)) == 10
        for start, stop in [(0, 4), (3, 5), (7, 10), (6, 6)]:
            part, part_labels = pool(made(sd), start, stop, facts=columns.append)
            assert np.array_equal(part, images[start:stop])
            assert np.array_equal(part_labels, labels[start:stop])
        words = {0: "an owl", 1: "a sea lion", 2: "a fox"}
        assert columns[0] == {
            "prompt": [f"High-quality photo of {words[c]}." for c in labels],
            "at_once": [4] * 10,
        }
        assert columns[2]["prompt"] == columns[0]["prompt"][3:5]
        assert columns[4] == {}

    def test_another_batch_changes_pixels_by_rounding_alone(self, sd):
        one, other = (
            pool(made(sd, sampler={"batch": batch}), 0, 6)[0].astype(int) for batch in (1, 6)
        )
        assert abs(one - other).max() <= 1
        assert (one != other).mean() < 0.01

    def test_an_image_is_the_pipelines_own(self, sd):
        """Image 4 from the pipeline itself, alone, as its user would call it."""
        from diffusers import StableDiffusionPipeline

        label = int(pools.labels(5, 4, 5, 3)[0])
        pipeline = StableDiffusionPipeline.from_pretrained(
            sd, safety_checker=None, requires_safety_checker=False
        )
        (image,) = pipeline(
            prompts.prompt("High-quality photo of {a} {c}.", NAMES[label].replace("_", " ")), guidance_scale=7.5,
            num_inference_steps=2, generator=torch.Generator().manual_seed(seed_of(5, "pool noise", 4, 0)),
        ).images  # fmt: skip
        assert image.size == (SIDE, SIDE)
        have = pool(made(sd), 4, 5)[0][0].astype(int)
        assert abs(np.asarray(image).astype(int) - have).max() <= 1

    def test_seed_class_steps_and_guidance_matter(self, sd):
        base = pool(made(sd), 0, 4)[0]
        assert not np.array_equal(pool(made(sd), 0, 4, seed=6)[0], base)
        assert not np.array_equal(pool(made(sd), 0, 4, names=("cow", "elk", "bee"))[0], base)
        assert not np.array_equal(pool(made(sd, sampler={"steps": 3}), 0, 4)[0], base)
        assert not np.array_equal(pool(made(sd, sampler={"guidance": 2.0}), 0, 4)[0], base)

    def test_what_the_pipeline_is_asked_for(self, sd, monkeypatch):
        from diffusers import StableDiffusionPipeline

        calls, real = [], StableDiffusionPipeline.__call__
        monkeypatch.setattr(
            StableDiffusionPipeline,
            "__call__",
            lambda self, **given: calls.append(given) or real(self, **given),
        )
        chosen = made(
            sd,
            sampler={"steps": 3, "guidance": 4.5, "height": 8, "width": 24},
            rename={"fox": "arctic fox"},
        )
        images, labels = pool(chosen, 0, 4)
        assert images.shape == (4, SIDE, SIDE, 3)
        (call,) = calls
        assert (
            call["num_inference_steps"],
            call["guidance_scale"],
            call["height"],
            call["width"],
        ) == (3, 4.5, 8, 24)
        words = {0: "an owl", 1: "a sea lion", 2: "an arctic fox"}
        assert call["prompt"] == [f"High-quality photo of {words[c]}." for c in labels]

    def test_three_text_encoders(self, sd3):
        chosen = config(
            {
                "kind": "stable-diffusion",
                "preset": "sd3-blood",
                "pipeline": sd3,
                "sampler": {"steps": 2},
            }
        )
        columns = []
        images, _ = pool(chosen, 0, 5, names=("basophil", "eosinophil"), facts=columns.append)
        assert len(np.unique(images.reshape(5, -1), axis=0)) == 5
        assert np.array_equal(pool(chosen, 3, 5, names=("basophil", "eosinophil"))[0], images[3:])
        assert (
            "A highly detailed, realistic microscopic image of eosinophil" in columns[0]["prompt"]
        )
        own = models.pipeline(chosen, torch.device("cpu"))
        own.vae_scale_factor = 8  # as the released one's
        try:
            with pytest.raises(
                ValueError,
                match="sampler.height 24: this pipeline's autoencoder takes multiples of 16",
            ):
                pool(
                    chosen.model_copy(
                        update={"sampler": chosen.sampler.model_copy(update={"height": 24})}
                    ),
                    0,
                    1,
                )
        finally:
            models.release()

    @pytest.mark.parametrize("layout", ["sd", "sd3"])
    def test_half_precision(self, layout, request):
        """bf16 has 8 bits of mantissa, so images differ by some levels of 255 and stay the same
        images.
        """
        chosen = made(request.getfixturevalue(layout), sampler={"steps": 1})
        want = pool(chosen, 0, 4)[0].astype(int)
        half = chosen.model_copy(
            update={"compute": chosen.compute.model_copy(update={"precision": "bf16"})}
        )
        have = pool(half, 0, 4)[0].astype(int)
        assert models.pipeline(half, torch.device("cpu")).vae.dtype == torch.bfloat16
        assert 0 < abs(have - want).mean() < 5
        models.release()

    @pytest.mark.gpu
    @pytest.mark.parametrize("layout", ["sd", "sd3"])
    def test_on_a_cuda_device(self, layout, request):
        """Noise comes from the CPU on every device; float32 differs by rounding, "auto" is fp16
        with its 11 bits.
        """
        chosen = made(request.getfixturevalue(layout), sampler={"steps": 1})
        want = pool(chosen, 0, 4)[0].astype(int)
        plain = chosen.model_copy(
            update={"compute": chosen.compute.model_copy(update={"precision": "fp32"})}
        )
        assert abs(pool(plain, 0, 4, device="cuda")[0].astype(int) - want).mean() < 0.5
        assert abs(pool(chosen, 0, 4, device="cuda")[0].astype(int) - want).mean() < 3
        assert models.pipeline(chosen, torch.device("cuda")).vae.dtype == torch.float16
        models.release()

    def test_memory_that_does_not_suffice(self, sd, monkeypatch):
        from diffusers import StableDiffusionPipeline

        tried, real = [], StableDiffusionPipeline.__call__

        def call(self, **given):
            tried.append(len(given["prompt"]))
            if tried[-1] > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(self, **given)

        want = pool(made(sd), 0, 8)[0].astype(int)
        monkeypatch.setattr(StableDiffusionPipeline, "__call__", call)
        columns = []
        have = pool(made(sd), 0, 8, facts=columns.append)[0].astype(int)
        assert tried == [4, 2, 2, 2, 2]
        assert columns[0]["at_once"] == [2] * 8
        assert abs(have - want).max() <= 1
        monkeypatch.setattr(
            StableDiffusionPipeline, "__call__", lambda self, **given: call(self, prompt=[""] * 3)
        )
        with pytest.raises(torch.OutOfMemoryError):
            pool(made(sd), 0, 1)


class TestResizing:
    def test_against_pillow(self):
        # Pillow clips between its two passes: levels that do not overshoot.
        picture = (
            np.random.default_rng(0)
            .integers(80, 176, (12, 12, 3), np.uint8)
            .repeat(4, 0)
            .repeat(4, 1)
        )
        want = np.asarray(
            Image.fromarray(picture).resize((20, 16), Image.Resampling.BICUBIC)
        ).astype(int)
        given = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
        assert abs(sampling.resized(given, (16, 20, 3))[0].astype(int) - want).max() <= 1
        assert np.array_equal(sampling.resized(given, (48, 48, 3))[0], picture)

    def test_luminance(self):
        colours = torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 2, 2)
        assert sampling.resized(colours, (2, 2, 1))[:, 0, 0, 0].tolist() == [76, 150, 29]


class TestConfidence:
    def test_against_the_whole_model(self, clip):
        from transformers import CLIPModel, CLIPProcessor

        own = ClipFilter(model=clip)
        images = np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3), np.uint8)
        labels = np.array([0, 1, 2, 1, 0])
        have = clip_filter.Scorer(own, ("owl", "sea lion", "fox"), torch.device("cpu"))(
            images, labels
        )
        processor, model = CLIPProcessor.from_pretrained(clip), CLIPModel.from_pretrained(clip)
        texts = ["a photo of an owl.", "a photo of a sea lion.", "a photo of a fox."]
        given = processor(
            text=texts,
            images=[Image.fromarray(image) for image in images],
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            want = F.softmax(model(**given).logits_per_image, dim=1).numpy()[range(5), labels]
        # From Pillow images the processor rounds resized pixels to whole levels.
        assert np.allclose(have, want, atol=1e-3)
        assert have.std() > 0.01

    def test_least(self):
        confidence = np.random.default_rng(0).random((3, 50)).astype(np.float32) * [
            [1.0],
            [0.9],
            [0.8],
        ]
        for drop, dropped in [(0.2, 10), (0.29, 14), (0.0, 0), (0.58, 29)]:
            own = ClipFilter(model="m", drop=drop)
            bounds = clip_filter.least(confidence, own, NAMES)
            assert (confidence < bounds[:, None]).sum(1).tolist() == [dropped] * 3
            every = clip_filter.least(confidence, own.model_copy(update={"scope": "all"}), NAMES)
            assert len(set(every.tolist())) == 1
            assert (confidence < every[0]).sum() == math.floor(round(150 * drop, 6))

    def test_a_filter_that_keeps_nothing(self):
        confidence = np.array([[0.9, 0.8], [0.9, 0.7], [0.1, 0.2]])
        own = ClipFilter(model="m", drop=0.5, scope="all")
        with pytest.raises(
            ValueError,
            match="keeps nothing of class 'fox': its highest confidence 0.2 lies below 0.8",
        ):
            clip_filter.least(confidence, own, NAMES)
        assert clip_filter.least(
            confidence, own.model_copy(update={"scope": "class"}), NAMES
        ).tolist() == [0.9, 0.9, 0.2]
        with pytest.raises(
            ValueError, match=r"clip_filter.drop 1.0: .* keeps nothing; drop lies in \[0, 1\)"
        ):
            made("a/b", clip_filter={"model": "m", "drop": 1.0})


@pytest.fixture(scope="module")
def chosen(sd, clip):
    """With a filter. One step: these tests make several hundred images."""
    own = {"model": clip, "calibration_per_class": 20, "drop": 0.3}
    return made(sd, sampler={"steps": 1, "batch": 16}, clip_filter=own)


def calibrated(chosen, **options):
    nothing = np.zeros((0, SIDE, SIDE, 3), np.uint8), np.zeros(0, np.int64)
    return registry.train(
        *nothing, chosen, classes=3, seed=1, device="cpu", class_names=NAMES, **options
    )


@pytest.fixture(scope="module")
def weights(chosen):
    return calibrated(chosen)


@pytest.fixture(scope="module")
def pooled(chosen, weights):
    columns = []
    images, labels = pool(chosen, 0, 2 * sampling.WINDOW, weights=weights, facts=columns.append)
    return images, labels, columns[0]


class TestFilter:
    def test_the_bottom_part_of_the_calibration_lies_below(self, chosen, weights):
        confidence = weights["confidence"].numpy()
        assert confidence.shape == (3, 20)
        bounds = clip_filter.least(confidence, chosen.clip_filter, NAMES)
        assert (confidence < bounds[:, None]).sum(1).tolist() == [6, 6, 6]
        # Rows are classes: the confidence of one image, made again.
        labels = pools.labels(1, 0, 60, 3)
        third = int(np.flatnonzero(labels == 1)[2])
        (again,) = Candidates(
            chosen, prompts.names(NAMES, {}, 3), seed=1, device=torch.device("cpu")
        ).make([Wanted(third, 1, 0)])
        assert again.confidence == pytest.approx(confidence[1, 2], abs=1e-4)

    def test_the_first_candidate_above_the_bound_is_kept(self, chosen, weights, pooled):
        images, labels, columns = pooled
        bounds = clip_filter.least(weights["confidence"].numpy(), chosen.clip_filter, NAMES)
        assert np.array_equal(labels, pools.labels(5, 0, len(images), 3))
        assert (np.array(columns["confidence"]) >= bounds[labels]).all()
        refused = np.array(columns["candidate"])
        # 0.3 but for two samples' chance
        assert 0.1 < 1 - len(images) / (len(images) + refused.sum()) < 0.5
        maker = Candidates(chosen, prompts.names(NAMES, {}, 3), seed=5, device=torch.device("cpu"))
        for number in np.argsort(-refused)[:6].tolist() + np.flatnonzero(refused == 0)[:2].tolist():
            tries = list(
                maker.make(
                    [Wanted(number, int(labels[number]), a) for a in range(refused[number] + 1)]
                )
            )
            bound = bounds[labels[number]]
            assert [one.confidence >= bound for one in tries] == [False] * refused[number] + [True]
            assert (
                abs(
                    sampling.resized(tries[-1].image[None], (SIDE, SIDE, 3))[0].astype(int)
                    - images[number]
                ).max()
                <= 1
            )

    def test_any_range_gives_the_same_images(self, chosen, weights, pooled):
        images, _, columns = pooled
        for start, stop in [(3, 9), (60, 70)]:
            own = []
            part, _ = pool(chosen, start, stop, weights=weights, facts=own.append)
            assert np.array_equal(part, images[start:stop])
            assert own[0] == {name: values[start:stop] for name, values in columns.items()}

    def test_over_all_classes_labels_stay_balanced(self, chosen, weights):
        own = chosen.model_copy(
            update={
                "clip_filter": chosen.clip_filter.model_copy(update={"scope": "all", "drop": 0.02})
            }
        )
        confidence, columns = weights["confidence"].numpy(), []
        _, labels = pool(own, 0, 30, weights=weights, facts=columns.append)
        assert Counter(labels.tolist()) == {0: 10, 1: 10, 2: 10}
        assert min(columns[0]["confidence"]) >= np.sort(confidence, axis=None)[1]

    def test_a_bound_that_nothing_reaches(self, chosen, monkeypatch):
        monkeypatch.setattr(sampling, "_ATTEMPTS", 2)
        with pytest.raises(ValueError, match="keeps none of 2 candidates of class '"):
            pool(chosen, 0, 1, weights={"confidence": torch.ones(3, 20)})
        with pytest.raises(
            ValueError, match=r"confidence is missing; the filter was calibrated with \[3, 20\]"
        ):
            pool(chosen, 0, 1)

    def test_resumed_equals_uninterrupted(self, chosen, weights, tmp_path):
        rows, steps = [], []

        def keep(step, make_state):
            steps.append(step)
            if step == 32:
                torch.save(make_state(), tmp_path / "state")

        assert torch.equal(
            calibrated(chosen, checkpoint=keep, log=rows.append)["confidence"],
            weights["confidence"],
        )
        assert steps == [16, 32, 48, 60]
        assert [row["step"] for row in rows] == steps
        state, steps[:] = torch.load(tmp_path / "state", weights_only=True), []
        rest = calibrated(chosen, resume=state, checkpoint=keep)
        assert steps == [48, 60]
        assert torch.equal(rest["confidence"], weights["confidence"])

    def test_ranks_share_a_step(self, chosen, monkeypatch):
        maker = Candidates(chosen, prompts.names(NAMES, {}, 3), seed=1, device=torch.device("cpu"))
        labels, cpu = pools.labels(1, 0, 60, 3), torch.device("cpu")
        alone = training._step(maker, labels, 32, cpu) + training._step(maker, labels, 48, cpu)
        parts = []
        monkeypatch.setattr(training.dist, "all_reduce", lambda made: parts.append(made.clone()))
        for rank in (0, 1):
            monkeypatch.setattr(training, "group", lambda rank=rank: (rank, 2))
            training._step(maker, labels, 32, cpu)
        assert (parts[0] + parts[1]).tolist() == alone
        assert len(alone) == 28

    def test_what_is_kept_between_calls(self, chosen, sd, clip):
        cpu = torch.device("cpu")
        first = models.pipeline(chosen, cpu)
        assert models.pipeline(chosen, cpu) is first
        models.release()
        assert models.pipeline(chosen, cpu) is not first


class TestPayloads:
    def test_what_identifies_a_pool(self, sd, clip, tmp_path):
        copy = tmp_path / "copy"
        shutil.copytree(sd, copy)
        one = made(sd, clip_filter={"model": clip})
        assert sd not in json.dumps(one.sampling_payload())
        for same in (
            {"pipeline": str(copy)},
            {"sampler": one.sampler.model_copy(update={"batch": 3})},
        ):
            other = one.model_copy(update=same)
            assert other.sampling_payload() == one.sampling_payload()
            assert other.training_payload() == one.training_payload()
        kept = one.model_copy(
            update={"clip_filter": one.clip_filter.model_copy(update={"drop": 0.5})}
        )
        assert kept.training_payload() == one.training_payload()  # the same calibration serves
        assert kept.sampling_payload() != one.sampling_payload()
        weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        changed = [{"pipeline": str(copy)}, {"prompt": "{c}"}, {"rename": {"owl": "barn owl"}},
                   {"sampler": one.sampler.model_copy(update={"steps": 3})}]  # fmt: skip
        for change in changed:
            other = one.model_copy(update=change)
            assert other.sampling_payload() != one.sampling_payload()
            assert other.training_payload() != one.training_payload()

    def test_a_hub_id_and_its_revision(self):
        assert sources.identity("pipeline", "some/model", "abc") == {
            "hub": "some/model",
            "revision": "abc",
        }


class TestErrors:
    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (
                ("0", "1", "2"),
                "class name '0' is no word to prompt with; give the dataset `class_names`",
            ),
            (("n02123394", "owl", "fox"), "class name 'n02123394' is no word"),
            ((), "prompts need the classes' names, got none; give the dataset `class_names`"),
            (("owl", "fox"), "got 2 names for 3 classes"),
        ],
    )
    def test_names(self, sd, names, message):
        with pytest.raises(ValueError, match=message):
            made(sd).check(32, 32, 3, 3, 0, class_names=names)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"setting": "closed"},
                "setting 'closed': the pipeline was trained on other images than the base subset",
            ),
            ({"setting": "ajar"}, "setting 'ajar'"),
            (
                {"prompt": "a photo of {class}"},
                r"prompt 'a photo of \{class\}': a prompt holds \{c\}",
            ),
            ({"prompt": None}, "either 'prompt' or 'captions', got neither"),
            ({"captions": {"language_model": "gpt2"}}, "either 'prompt' or 'captions', got both"),
            (
                {"clip_filter": {"model": "m", "scop": "all"}},
                "unknown key 'clip_filter.scop': did you mean 'scope'",
            ),
            ({"sampler": {"height": 20}}, "sampler.height 20: .* multiple of 8"),
        ],
    )
    def test_configurations(self, changes, message):
        with pytest.raises(ValueError, match=message):
            config({"kind": "stable-diffusion", "preset": "sd2", **changes})

    def test_datasets(self, sd):
        with pytest.raises(ValueError, match="1 or 3 channels, got 4"):
            made(sd).check(32, 32, 4, 3, 0, class_names=NAMES)
        with pytest.raises(ValueError, match="rename: there is no class 'emu'"):
            made(sd, rename={"emu": "x"}).check(32, 32, 3, 3, 0, class_names=NAMES)
        with pytest.raises(ValueError, match="pipeline: there is no folder './nowhere'"):
            made("./nowhere").check(32, 32, 3, 3, 0, class_names=NAMES)
        made(sd, rename={"0": "owl", "1": "fox"}).check(32, 32, 1, 2, 0, class_names=("0", "1"))

    def test_folders_that_lack_something(self, sd, clip, tmp_path):
        def loaded(pipeline, **changes):
            models.release()
            return registry.train(
                None, None, made(str(pipeline), **changes), classes=3, seed=1, class_names=NAMES
            )

        assert loaded(sd) == {}
        with pytest.raises(
            ValueError,
            match="could not be loaded .*; it must hold model_index.json and safetensors",
        ):
            loaded(clip)
        with pytest.raises(
            ValueError, match="clip_filter.model: .* it must hold config.json, a processor and"
        ):
            loaded(sd, clip_filter={"model": sd})
        pickled = tmp_path / "pickled"
        shutil.copytree(sd, pickled)
        weights = pickled / "unet" / "diffusion_pytorch_model.safetensors"
        torch.save({}, pickled / "unet" / "diffusion_pytorch_model.bin")
        weights.unlink()
        with pytest.raises(
            ValueError, match=r"no file named diffusion_pytorch_model.safetensors .* must hold"
        ):
            loaded(pickled)
        index = pickled / "model_index.json"
        index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "DiTPipeline"}))
        with pytest.raises(ValueError, match="DiTPipeline is no text-to-image pipeline"):
            loaded(pickled)

    def test_without_network(self, sd, monkeypatch):
        import huggingface_hub.constants

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(
            ValueError, match="'no/such' is no folder here, and could not be had .*HF_HOME"
        ) as error:
            registry.train(None, None, made("no/such"), classes=3, seed=1, class_names=NAMES)
        assert "\n" not in str(error.value)
        chosen = made(sd, clip_filter={"model": "no/such"})
        with pytest.raises(
            ValueError, match="clip_filter.model: 'no/such' is no folder here, .*HF_HOME"
        ):
            registry.train(None, None, chosen, classes=3, seed=1, class_names=NAMES)

    def test_a_hub_that_never_answers(self, sd, clip, language_model, cached):
        def loaded(pipeline, **changes):
            models.release()
            return registry.train(
                None, None, made(pipeline, **changes), classes=3, seed=1, class_names=NAMES
            )

        missing = (
            "'no/such' is no folder here, and could not be had from the hub .*Timeout.*HF_HOME"
        )
        captions = {"prompt": None, "captions": {"language_model": "no/such"}}
        for changes, key in [
            ({"clip_filter": {"model": "no/such"}}, "clip_filter.model"),
            (captions, "captions.language_model"),
        ]:
            with pytest.raises(ValueError, match=f"^{key}: {missing}"):
                loaded(sd, **changes)
        with pytest.raises(ValueError, match=f"^pipeline: {missing}") as error:
            loaded("no/such")
        assert "\n" not in str(error.value)

        captions = {"language_model": cached(language_model), "max_new_tokens": 4}
        clip_filter = {"model": cached(clip), "calibration_per_class": 2}
        weights = loaded(cached(sd), prompt=None, captions=captions, clip_filter=clip_filter)
        assert weights["confidence"].shape == (3, 2)

    def test_a_hub_that_is_lost_in_mid_download(self, sd, cached, monkeypatch):
        """Its first answer came; then packets are dropped, which diffusers has no ear for."""
        from diffusers.pipelines import pipeline_utils
        from huggingface_hub.utils import httpx

        def lost(*_, **__):
            raise httpx.ConnectTimeout("timed out")

        monkeypatch.setattr("huggingface_hub.model_info", lambda *_, **__: None)
        monkeypatch.setattr(pipeline_utils, "model_info", lost)
        monkeypatch.setattr(
            pipeline_utils, "_resolve_revision", lambda *_, revision, **__: revision
        )
        models.release()
        assert models.pipeline(made(cached(sd)), torch.device("cpu"))
        with pytest.raises(
            ValueError,
            match=r"^pipeline: 'no/such' is no folder here, .*\(ConnectTimeout: timed out\)",
        ):
            models.pipeline(made("no/such"), torch.device("cpu"))


def test_names_and_articles():
    assert prompts.names(("sea_lion", "  snowy   owl"), {"sea_lion": "walrus"}, 2) == (
        "walrus",
        "snowy owl",
    )
    assert [prompts.article(word) for word in ("owl", "Egyptian cat", "fox")] == ["an", "an", "a"]


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "prompt"),
    [
        ("sd1.4", 50, 7.5, "High-quality photo of a hare."),
        ("sd2", 50, 7.5, "High-quality photo of a hare."),
        ("sd3-blood", 28, 2.0, "A highly detailed, realistic microscopic image of hare"),
    ],
)
def test_presets_with_one_prompt_are_the_papers(name, steps, guidance, prompt):
    chosen = config({"kind": "stable-diffusion", "preset": name})
    assert (chosen.sampler.steps, chosen.sampler.guidance) == (steps, guidance)
    assert prompts.prompt(chosen.prompt, "hare") == prompt
    assert (chosen.captions, chosen.clip_filter) == (None, None)


def test_the_preset_with_captions_is_the_papers():
    three = config({"kind": "stable-diffusion", "preset": "sd3"})
    assert (three.sampler.steps, three.sampler.guidance, three.captions.images_per_caption) == (
        28,
        2.0,
        5,
    )
    assert (three.clip_filter.drop, three.clip_filter.scope) == (0.2, "class")
    assert three.captions.templates == ("c", "c,bg", "c,rel")
    assert Path(candidates.__file__).with_name("words").joinpath("examples.json").is_file()
