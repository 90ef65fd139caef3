"""Pipelines adapted to images: small ones of random weights, which really learn."""

import json
import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch

from equigrid.generators import previews, registry
from equigrid.generators.calls import Base
from equigrid.generators.common import pools
from equigrid.generators.registry import config
from equigrid.generators.stable_diffusion import adapters, models, objectives, tokens
from equigrid.generators.stable_diffusion.latents import resized
from equigrid.generators.trainer import trainer as trainers

NAMES = ("owl", "sea_lion", "fox")
SIDE = 16
N = 24
COLOURS = np.array([[230, 30, 30], [30, 230, 30], [30, 30, 230]])
SMALL = {"rank": 2, "steps": 4, "batch": 4, "lr": 1e-3}


def made(pipeline, **changes):
    sampler = {"steps": 4, "batch": 4, "guidance": 1.0, **changes.pop("sampler", {})}
    return config(
        {
            "kind": "stable-diffusion",
            "preset": "sd1.4",
            "pipeline": pipeline,
            "sampler": sampler,
            **changes,
        }
    )


def coloured(side=SIDE, channels=3):
    """N noisy pictures, each class of one colour."""
    labels = np.arange(N, dtype=np.int64) % 3
    noise = np.random.default_rng(0).integers(-25, 26, (N, side, side, 3))
    images = np.clip(COLOURS[labels][:, None, None] + noise, 0, 255).astype(np.uint8)
    return images[..., :channels], labels


def adapted(chosen, data=None, **options):
    images, labels = data or coloured()
    return registry.train(
        images, labels, chosen, classes=3, seed=1, device="cpu", class_names=NAMES, **options
    )


def pool(chosen, weights, start=0, stop=6, **options):
    return registry.sample(
        weights, chosen, classes=3, shape=(SIDE, SIDE, 3), seed=5, start=start, stop=stop,
        class_names=NAMES, **options,
    )  # fmt: skip


def base():
    images, labels = coloured()
    return Base(labels, lambda places: images[places])


def equal(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


class TestTraining:
    @pytest.mark.parametrize(
        ("layout", "learned"),
        [
            ("sd", False),
            ("sd3", True),
            pytest.param("sd", True, marks=pytest.mark.long),
            pytest.param("sd3", False, marks=pytest.mark.long),
        ],
    )
    def test_resumed_equals_uninterrupted(self, layout, learned, request):
        """And gradients of parts of a batch, with activations computed twice, add up to the same
        weights, but for rounding.
        """
        pipeline = request.getfixturevalue(layout)
        chosen = made(pipeline, adaptation={**SMALL, "tokens": learned, "flips": True})
        states, artefacts = {}, {}

        def keep(step, make_state):
            states[step] = make_state()

        whole = adapted(chosen, checkpoint=keep, artefacts=artefacts)
        assert list(states) == [1, 2, 3, 4]
        assert equal(adapted(chosen, resume=states[2], artefacts=artefacts), whole)
        assert equal(adapted(chosen), whole)  # latents that are encoded anew
        assert artefacts["latents/00000"]["moments"].shape == (N, 2, 8, 8, 8)
        assert equal(states[4]["average"], whole)
        compute = chosen.compute.model_copy(
            update={"microbatch": 3, "gradient_checkpointing": "on"}
        )
        parts = adapted(chosen.model_copy(update={"compute": compute}))
        for name, value in parts.items():
            assert torch.allclose(value, whole[name], atol=1e-4), name
        own = {name for name in whole if name.startswith("tokens.")}
        encoders = {
            "sd": ("text_encoder",),
            "sd3": ("text_encoder", "text_encoder_2", "text_encoder_3"),
        }
        assert own == ({f"tokens.{name}" for name in encoders[layout]} if learned else set())

    def test_only_adapters_change(self, sd, monkeypatch):
        """All else of the denoiser is bitwise what the folder holds; every adapter has moved."""
        kept, real = [], trainers.Trainer.prepare
        monkeypatch.setattr(
            trainers.Trainer, "prepare", lambda self: kept.append(self) or real(self)
        )
        weights = adapted(made(sd, adaptation={**SMALL, "layers": "all"}))
        (network,) = (one.learners["adaptation"].network.denoiser for one in kept)
        released = models.pipeline(made(sd), torch.device("cpu")).unet.state_dict()
        own = network.state_dict()
        frozen = {
            name.replace(".base_layer.", "."): v for name, v in own.items() if ".lora_" not in name
        }
        assert equal(frozen, released)
        layers = [name for name in weights if name.endswith("lora_B.weight")]
        assert len(layers) > 30
        assert all(weights[name].abs().sum() > 0 for name in layers)

    def test_attention_alone(self, sd, sd3):
        one = adapters.shapes(
            models.pipeline(made(sd), torch.device("cpu")).unet, made(sd, adaptation={}).adaptation
        )
        assert {name.split(".lora_")[0].split(".attn")[1][2:] for name in one} == {
            "to_q",
            "to_k",
            "to_v",
            "to_out.0",
        }
        three = models.pipeline(made(sd3), torch.device("cpu")).transformer
        both = {
            name.split(".lora_")[0].split(".attn.")[1]
            for name in adapters.shapes(three, made(sd, adaptation={}).adaptation)
        }
        assert {"to_q", "add_q_proj", "add_k_proj", "add_v_proj"} <= both

    @pytest.mark.long
    @pytest.mark.parametrize(
        ("layout", "predicts"), [("sd", "epsilon"), ("sd", "v_prediction"), ("sd3", None)]
    )
    def test_it_learns(self, layout, predicts, request, tmp_path):
        """The loss falls well below its start."""
        folder = request.getfixturevalue(layout)
        if predicts:
            folder = shutil.copytree(folder, tmp_path / "pipeline")
            place = folder / "scheduler" / "scheduler_config.json"
            place.write_text(
                json.dumps(json.loads(place.read_text()) | {"prediction_type": predicts})
            )
        rows = []
        own = {"rank": 8, "layers": "all", "steps": 100, "batch": 8, "lr": 3e-3}
        trainers_log = "equigrid.generators.trainer.training_log.LOG_EVERY"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainers_log, 10)
            adapted(made(str(folder), adaptation=own), log=rows.append)
        losses = [row["loss"] for row in rows]
        assert len(losses) == 10
        assert np.mean(losses[-3:]) < 0.7 * losses[0], losses

    @pytest.mark.long
    def test_in_a_worker_group(self, sd, in_two_workers):
        """Both ranks end with the same adapters and tokens, those of one process but for
        rounding.
        """
        chosen = made(sd, adaptation={**SMALL, "tokens": True})
        ranks = in_two_workers(chosen, coloured(), classes=3, seed=1, class_names=NAMES)
        assert equal(ranks[0]["weights"], ranks[1]["weights"])
        alone = adapted(chosen)
        for name, value in ranks[0]["weights"].items():
            assert torch.allclose(value, alone[name], atol=1e-4), name

    def test_what_the_objectives_ask_for(self, sd, sd3):
        """Against the equations, at levels worked out by hand."""
        clean, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
        flow = objectives.objective(models.pipeline(made(sd3), torch.device("cpu")))
        noisy, target, t = flow.noised(clean, noise, torch.tensor([0.0, 0.25, 1.0]))
        assert torch.equal(noisy[0], clean[0])
        assert torch.equal(noisy[2], noise[2])
        assert torch.allclose(noisy[1], 0.75 * clean[1] + 0.25 * noise[1])
        assert torch.equal(target, noise - clean)
        assert t.tolist() == [0, 250, 1000]
        levels = flow.levels(20_001, torch.Generator().manual_seed(0))
        assert float(levels.median()) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5), abs=0.01)  # shift 3
        chain = models.pipeline(made(sd), torch.device("cpu")).scheduler
        t = torch.tensor([0.0, 500.0, 999.0])
        a = chain.alphas_cumprod[t.long()].view(-1, 1, 1, 1)
        for predicts, want in (
            ("epsilon", noise),
            ("v_prediction", a.sqrt() * noise - (1 - a).sqrt() * clean),
        ):
            chain.register_to_config(prediction_type=predicts)
            noisy, target, _ = objectives.Diffusion(chain).noised(clean, noise, t)
            assert torch.allclose(noisy, a.sqrt() * clean + (1 - a).sqrt() * noise)
            assert torch.allclose(target, want, atol=1e-6)
        chain.register_to_config(prediction_type="sample")
        with pytest.raises(ValueError, match="prediction_type is 'sample'; an adaptation knows"):
            objectives.Diffusion(chain)
        models.release()

    def test_a_look_at_it(self, sd):
        states = []
        chosen = made(sd, adaptation=SMALL)
        adapted(chosen, checkpoint=lambda step, make_state: states.append(make_state()))
        shown = previews.preview(
            states[-1],
            chosen,
            classes=3,
            class_names=NAMES,
            shape=(SIDE, SIDE, 3),
            seed=0,
            columns=2,
        )
        assert shown.startswith(b"\x89PNG")
        assert models._pipelines.value is None  # the training has the memory


class TestSampling:
    @pytest.mark.parametrize("layout", ["sd", pytest.param("sd3", marks=pytest.mark.long)])
    def test_scale(self, layout, request):
        """0 is the pipeline as it was released, 1 is not; how a pool is cut changes nothing."""
        pipeline = request.getfixturevalue(layout)
        own = {**SMALL, "lr": 0.05, "steps": 8}
        chosen = made(pipeline, adaptation=own)
        weights = adapted(chosen)
        released = pool(made(pipeline), {})[0]
        images = pool(chosen, weights)[0]
        assert np.array_equal(
            pool(made(pipeline, adaptation=own, sampler={"lora_scale": 0}), weights)[0], released
        )
        assert abs(images.astype(int) - released).mean() > 1
        assert np.array_equal(pool(chosen, weights, 3, 5)[0], images[3:5])
        assert np.array_equal(pool(made(pipeline), {})[0], released)  # what was put in is gone

    @pytest.mark.long
    def test_the_store_file_is_diffusers_own(self, sd, tmp_path):
        """Whoever has diffusers samples the same images from the file of weights."""
        from diffusers import StableDiffusionPipeline
        from safetensors.torch import save_file

        chosen = made(sd, adaptation={**SMALL, "lr": 0.05})
        weights = adapted(chosen)
        save_file(weights, tmp_path / "lora.safetensors")
        pipeline = StableDiffusionPipeline.from_pretrained(
            sd, safety_checker=None, requires_safety_checker=False
        )
        pipeline.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
        ours = models.pipeline(chosen, torch.device("cpu"), NAMES, weights)
        asked = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "pt"}
        one, other = (
            made_by("an owl", generator=torch.Generator().manual_seed(0), **asked).images
            for made_by in (pipeline, ours)
        )
        assert torch.allclose(one, other, atol=1e-5)
        models.release()

    def test_a_token_for_each_class(self, sd):
        """Other vectors, other images; the filter and other prompts still see words."""
        chosen = made(sd, adaptation={**SMALL, "tokens": True})
        weights = adapted(chosen)
        columns = []
        images, labels = pool(chosen, weights, facts=columns.append)
        assert columns[0]["prompt"] == [f"High-quality photo of a <class-{c}>." for c in labels]
        moved = {**weights, "tokens.text_encoder": weights["tokens.text_encoder"].flip(1)}
        assert not np.array_equal(pool(chosen, moved)[0], images)
        pipeline = models.pipeline(chosen, torch.device("cpu"), NAMES, weights)
        ids = pipeline.tokenizer("<class-1> owl")["input_ids"]
        assert ids[1] == len(pipeline.tokenizer) - 2
        seen = pipeline.text_encoder.get_input_embeddings()(torch.tensor([ids]))[0]
        assert torch.equal(seen[1], weights["tokens.text_encoder"][1])
        released = models.pipeline(
            made(sd), torch.device("cpu")
        ).text_encoder.get_input_embeddings()
        assert torch.equal(seen[2:], released(torch.tensor(ids[2:])))

    def test_tokens_begin_as_names(self, sd):
        pipeline = models.pipeline_to_adapt(made(sd, adaptation=SMALL), torch.device("cpu"))
        before = pipeline.text_encoder.get_input_embeddings()
        ids = pipeline.tokenizer("fox", add_special_tokens=False)["input_ids"]
        tables = tokens.put_in(pipeline, ("owl", "fox"))
        assert torch.allclose(tables["text_encoder"].vectors[1], before(torch.tensor(ids)).mean(0))

    def test_weights_of_another(self, sd):
        chosen = made(sd, adaptation=SMALL)
        weights = adapted(chosen)
        name = next(iter(weights))
        for changed, message in (
            (
                {k: v for k, v in weights.items() if k != name},
                f"weights of the adaptation: {name} is missing",
            ),
            ({**weights, name: weights[name][:1]}, "has shape"),
            ({**weights, "unet.x.lora_A.weight": weights[name]}, "unet.x.lora_A.weight is not in"),
        ):
            with pytest.raises(ValueError, match=message):
                pool(chosen, changed)

    @pytest.mark.long
    def test_with_a_filter(self, sd, clip):
        """The calibration's images are the adapted pipeline's; its state has what was learned."""
        own = {"model": clip, "calibration_per_class": 4, "drop": 0.25}
        chosen = made(sd, adaptation={**SMALL, "lr": 0.05}, clip_filter=own, sampler={"steps": 1})
        states = {}
        weights = adapted(chosen, checkpoint=lambda step, make: states.update({step: make()}))
        assert list(states) == [1, 2, 3, 4, 8, 12, 16]  # steps, then the calibration's images
        assert equal(adapted(chosen, resume=states[8]), weights)
        assert equal(adapted(chosen, resume=states[3]), weights)
        plain = made(sd, clip_filter=own, sampler={"steps": 1})
        nothing = np.zeros((0, SIDE, SIDE, 3), np.uint8), np.zeros(0, np.int64)
        assert not torch.equal(adapted(plain, nothing)["confidence"], weights["confidence"])
        assert len(pool(chosen, weights, 0, 4)[0]) == 4


def _sharp(pipeline, to):
    """A copy whose autoencoder is like a trained one: its latents are spread as the noise is, and
    their own deviation is about 0.
    """
    from diffusers import AutoencoderKL

    shutil.copytree(pipeline, to)
    vae = AutoencoderKL.from_pretrained(to / "vae")
    last = vae.quant_conv if vae.quant_conv is not None else vae.encoder.conv_out
    with torch.no_grad():
        last.weight[4:], last.bias[4:] = 0, -25
        latents = vae.encode(resized(torch.from_numpy(coloured()[0]), (SIDE, SIDE)) * 2 - 1)
    vae.register_to_config(scaling_factor=1 / latents.latent_dist.mean.std().item())
    vae.save_pretrained(to / "vae")
    return str(to)


class TestVariation:
    @pytest.mark.parametrize("layout", ["sd", pytest.param("sd3", marks=pytest.mark.long)])
    def test_strength(self, layout, request, tmp_path):
        """Near 0 the source as the autoencoder gives it back; at 1 what noise alone gives."""
        pipeline = _sharp(request.getfixturevalue(layout), tmp_path / "pipeline")
        columns, images = [], coloured()[0]
        for strength in (0.002, 0.5):
            chosen = made(
                pipeline,
                variation={"strength": strength},
                sampler={"steps": 500} if strength < 0.1 else {},
            )
            kept, labels = pool(chosen, adapted(chosen), base=base(), facts=columns.append)
            sources = columns[-1]["source"]
            assert np.array_equal(coloured()[1][sources], labels)
            vae = models.pipeline(chosen, torch.device("cpu")).vae
            with torch.inference_mode():
                shown = resized(torch.from_numpy(images[sources]), (SIDE, SIDE)) * 2 - 1
                back = vae.decode(vae.encode(shown).latent_dist.mean).sample / 2 + 0.5
            want = (back.clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
            error = np.corrcoef((kept - kept.mean()).ravel(), (want - want.mean()).ravel())[0, 1]
            assert error > 0.9 if strength < 0.1 else error < 0.9
        chosen = made(pipeline, variation={"strength": 1})
        assert np.array_equal(pool(chosen, {}, base=base())[0], pool(made(pipeline), {})[0])

    @pytest.mark.parametrize("shares", [None, (1, 3, 2)])
    def test_sources_go_round(self, sd, shares):
        """Each image of a class serves once before one serves twice, however a pool is cut."""
        chosen = made(sd, variation={"strength": 0.5}, sampler={"steps": 2, "batch": 16})
        columns = []
        stop = 64
        images, labels = pool(chosen, {}, 0, stop, base=base(), facts=columns.append, shares=shares)
        part, _ = pool(chosen, {}, 32, 48, base=base(), facts=columns.append, shares=shares)
        assert np.array_equal(part, images[32:48])
        sources = np.array(columns[0]["source"])
        assert columns[1]["source"] == sources[32:48].tolist()
        own = coloured()[1]
        for label in range(3):
            of_class = sources[labels == label]
            assert set(own[of_class]) == {label}
            each = N // 3
            assert sorted(of_class[:each]) == np.flatnonzero(own == label).tolist()
            assert np.array_equal(of_class[each:], np.resize(of_class[:each], len(of_class))[each:])
        assert np.array_equal(labels, pools.labels(5, 0, stop, 3, shares))

    @pytest.mark.long
    def test_together_with_adapters(self, sd):
        """One training serves pools with and without variation."""
        own = {**SMALL, "lr": 0.05}
        both, alone = (
            made(sd, adaptation=own, variation={"strength": 0.5}),
            made(sd, adaptation=own),
        )
        assert both.trained_identity() == alone.trained_identity()
        assert both.sampling_payload() != alone.sampling_payload()
        weights = adapted(both)
        assert equal(weights, adapted(alone))
        varied = pool(both, weights, base=base())[0]
        only = made(sd, variation={"strength": 0.5})
        assert not np.array_equal(varied, pool(only, {}, base=base())[0])

    def test_no_source(self, sd):
        chosen = made(sd, variation={"strength": 0.5})
        with pytest.raises(ValueError, match="variation begins with images of the base, and none"):
            pool(chosen, {})
        images, labels = coloured()
        few = Base(np.where(labels == 1, 0, labels), lambda places: images[places])
        with pytest.raises(
            ValueError, match="variation: the base has no image of class 'sea lion'"
        ):
            pool(chosen, {}, base=few)


class TestConfiguration:
    def test_setting(self, sd):
        assert made(sd).setting == "open"
        assert not made(sd).learns_from_base
        for part in (
            {"adaptation": {}},
            {"variation": {}},
            {"setting": "adapted", "variation": {}},
        ):
            chosen = made(sd, **part)
            assert chosen.setting == "adapted"
            assert chosen.learns_from_base
            assert config(chosen.model_dump(mode="json")) == chosen

    def test_ids(self, sd, sd3, tmp_path):
        """A folder that moved is the same base, another base is another; how it is computed says
        nothing, and what was there before has the ids that it had.
        """
        moved = shutil.copytree(sd, tmp_path / "elsewhere")
        own = made(sd, adaptation=SMALL).trained_identity()
        assert made(str(moved), adaptation=SMALL).trained_identity() == own
        assert made(sd3, adaptation=SMALL).trained_identity() != own
        quick = {"training_precision": "bf16", "microbatch": 1, "precision": "bf16"}
        assert made(sd, adaptation=SMALL, compute=quick).trained_identity() == own
        for change in ({"rank": 3}, {"tokens": True}, {"layers": "all"}, {"steps": 5}):
            assert made(sd, adaptation={**SMALL, **change}).trained_identity() != own
        assert made(sd, adaptation=SMALL, prompt="a {c}").trained_identity() != own
        assert made(sd, adaptation=SMALL, sampler={"height": 24}).trained_identity() != own
        assert made(sd, adaptation=SMALL, sampler={"steps": 9}).trained_identity() == own
        half, scaled = {"strength": 0.25}, {"lora_scale": 0.5}
        assert (
            made(sd, variation=half).sampling_payload() != made(sd, variation={}).sampling_payload()
        )
        assert (
            made(sd, adaptation=SMALL, sampler=scaled).sampling_payload()
            != made(sd, adaptation=SMALL).sampling_payload()
        )
        assert set(made(sd).trained_identity()) == {"kind", "pipeline", "rev"}
        assert "variation" not in made(sd).sampling_payload()
        assert "lora_scale" not in made(sd).sampling_payload()["sampler"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"adaptation": {"rank": 0}}, "adaptation.rank 0: input should be greater than or equal to 1"),
            ({"variation": {"strength": 0}}, r"variation.strength 0: strength lies in \(0, 1\], such as 0.5"),
            ({"variation": {"strength": 1.5}}, r"variation.strength 1.5: strength lies in \(0, 1\]"),
            ({"variation": {"strength": 0.1}}, "variation.strength 0.1 of 4 steps is no step; at least 0.25"),
            ({"adaptation": {}, "prompt": "a photo"}, r"a prompt holds \{c\}"),
            ({"adaptation": {}, "setting": "open"}, "setting 'open': 'adaptation' and 'variation' know the base"),
            ({"adaptation": {}, "setting": "closed"}, "Stable Diffusion is open, or adapted"),
            ({"setting": "adapted"}, "setting 'adapted': .* are what makes a pipeline adapted; write one"),
            ({"sampler": {"lora_scale": 0.5}}, "lora_scale 0.5 is of an adaptation's adapters; leave it out"),
            (
                {"adaptation": {}, "prompt": None, "captions": {"language_model": "m"}},
                "captions: an adaptation learns one prompt for each class; write 'prompt', and captions: null",
            ),
            ({"adaptation": {"step": 3}}, "unknown key 'adaptation.step': did you mean 'steps'"),
        ],
    )  # fmt: skip
    def test_refused(self, changes, message):
        with pytest.raises(ValueError, match=message) as refused:
            made("a/b", **changes)
        assert "\n" not in str(refused.value)

    def test_names_that_say_nothing(self, sd):
        numbers = ("0", "1", "2")
        made(sd, adaptation={"tokens": True}).names(numbers, 3)
        filtered = {"model": "m"}
        for changes in ({}, {"tokens": True, "clip": filtered}):
            own = {"adaptation": {"tokens": "tokens" in changes}}
            own |= {"clip_filter": filtered} if "clip" in changes else {}
            with pytest.raises(ValueError, match="class name '0' is no word to prompt with"):
                made(sd, **own).names(numbers, 3)

    def test_pipelines_that_cannot_be_adapted(self, sd, tmp_path):
        other = shutil.copytree(sd, tmp_path / "other")
        index = other / "model_index.json"
        index.write_text(
            json.dumps(json.loads(index.read_text()) | {"_class_name": "FluxPipeline"})
        )
        for part in ({"adaptation": {}}, {"variation": {}}):
            with pytest.raises(
                ValueError,
                match="for StableDiffusionPipeline and StableDiffusion3Pipeline .*, not for FluxPipeline",
            ):
                made(str(other), **part).check(SIDE, SIDE, 3, 3, N, NAMES)
        index.write_text("[]")
        with pytest.raises(ValueError, match="model_index.json' does not name a pipeline"):
            made(str(other), adaptation={}).check(SIDE, SIDE, 3, 3, N, NAMES)
        with pytest.raises(ValueError, match="cannot be adapted to no images"):
            made(sd, adaptation={}).check(SIDE, SIDE, 3, 3, 0, NAMES)
        own = models.pipeline(made(sd), torch.device("cpu"))
        own.vae_scale_factor = 16
        with pytest.raises(
            ValueError, match="sampler.height 24: this pipeline's autoencoder takes"
        ):
            models.size(own, made(sd, sampler={"height": 24}))
        models.release()

    def test_a_hub_that_does_not_answer(self, cached):
        cached_id = "no/such"
        with pytest.raises(
            ValueError, match="pipeline: 'no/such' is no folder here, and could not be had"
        ) as told:
            adapted(made(cached_id, adaptation=SMALL))
        assert "\n" not in str(told.value)

    def test_without_peft(self, sd, monkeypatch):
        monkeypatch.setattr(adapters, "find_spec", lambda name: None)
        with pytest.raises(
            ValueError, match=r"needs the package peft.*: install equigrid\[stable-diffusion\]"
        ):
            adapted(made(sd, adaptation=SMALL))
        monkeypatch.setattr(
            "equigrid.generators.stable_diffusion.config.find_spec", lambda name: None
        )
        (remark,) = made(sd, adaptation=SMALL).remarks()
        assert "equigrid[stable-diffusion]" in remark
        assert not made(sd, variation={}).remarks()

    def test_costs(self, sd):
        facts = made(sd, adaptation={"steps": 30, "batch": 8}).cost_facts(SIDE, SIDE, 3, 3, 100)
        assert (facts["training_steps"], facts["training_nimg"]) == (30, 240)
        assert made(sd, variation={"strength": 0.5}).cost_facts(SIDE, SIDE, 3, 3, None) == {
            "sampling_batch": 4, "sampler_steps": 2, "evaluations_per_image": 2,
        }  # fmt: skip
        assert made(sd, adaptation={}).flops(SIDE, SIDE, 3, 3, 100) is None  # of no published size

    def test_operations_of_a_published_pipeline(self, tmp_path):
        """A folder is known by its sizes. Twice a forward pass for each image shown."""
        sizes = {
            "block_out_channels": [320, 640, 1280, 1280],
            "cross_attention_dim": 768,
            "sample_size": 64,
        }
        (tmp_path / "unet").mkdir()
        (tmp_path / "unet" / "config.json").write_text(json.dumps(sizes))
        for source in (str(tmp_path), "CompVis/stable-diffusion-v1-4"):
            found = made(source, adaptation={"steps": 10, "batch": 2, "flips": True}).flops(
                512, 512, 3, 3, 50
            )
            assert found.training == pytest.approx(2 * 20 * 803.3e9 + 2 * 50 * 1116.7e9, rel=1e-4)
        varied = made(str(tmp_path), variation={"strength": 0.5}).flops(512, 512, 3, 3, 50)
        assert varied.per_image == pytest.approx(2 * 803.3e9 + 2514.5e9 + 1116.7e9, rel=1e-4)


@pytest.fixture
def tiny():
    """examples/tiny_pipeline.py as a module."""
    place = Path(__file__).parents[3] / "examples" / "tiny_pipeline.py"
    spec = spec_from_file_location("tiny_pipeline", place)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bars() -> tuple[np.ndarray, np.ndarray]:
    """N pictures of one bright bar each, above or left of the middle."""
    labels, at = np.arange(N, dtype=np.int64) % 3, np.arange(SIDE)
    places = np.array([3, 3, 6])[labels] + np.random.default_rng(0).integers(-1, 2, N)
    profile = 255 * np.exp(-(((at - places[:, None]) / 1.2) ** 2))  # (N, SIDE)
    rows = np.broadcast_to(profile[:, :, None], (N, SIDE, SIDE))
    images = np.where((labels == 1)[:, None, None], rows.swapaxes(1, 2), rows)
    return np.repeat(images[..., None], 3, axis=-1).astype(np.uint8), labels


def nearest(images: np.ndarray, others: np.ndarray) -> float:
    """The mean distance, in grey levels, of each image to the nearest of others."""
    apart = images[:, None].astype(float) - others[None]
    return float(np.sqrt((apart**2).mean((2, 3, 4))).min(1).mean())


@pytest.mark.long
def test_samples_move_towards_the_images(tiny, tmp_path, monkeypatch):
    """A pipeline that drew any strokes draws some that are nearer to the base's, and not to the
    base's turned upside down; and it is the adapters that do it: without them it draws what it
    drew.
    """
    monkeypatch.setattr(tiny, "AUTOENCODER_STEPS", 200)
    monkeypatch.setattr(tiny, "DENOISER_STEPS", 200)
    tiny.make(str(tmp_path / "tiny"))
    sampler = {"steps": 10, "batch": 16}
    own = {"rank": 16, "layers": "all", "steps": 300, "batch": 16, "lr": 3e-3}
    released = made(str(tmp_path / "tiny"), sampler=sampler)
    chosen = made(str(tmp_path / "tiny"), adaptation=own, sampler=sampler)
    off = made(str(tmp_path / "tiny"), adaptation=own, sampler={**sampler, "lora_scale": 0.0})
    data = bars()
    weights = adapted(chosen, data)
    before, after = pool(released, {}, 0, 48)[0], pool(chosen, weights, 0, 48)[0]
    turned = data[0][:, ::-1, ::-1]
    told = {
        "before": nearest(before, data[0]), "after": nearest(after, data[0]),
        "before, turned": nearest(before, turned), "after, turned": nearest(after, turned),
    }  # fmt: skip
    assert told["after"] < 0.8 * told["before"], told
    assert told["after"] < 0.8 * told["after, turned"], told
    none = pool(off, weights, 0, 8)[0].astype(int)
    assert abs(none - before[:8]).max() <= 1
