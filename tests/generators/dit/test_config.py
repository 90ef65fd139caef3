"""The DiT's configuration: presets, sizes, what a closed set refuses, image sizes, and what enters
ids.
"""

import json

import pytest

from equigrid.generators.dit.config import DiTConfig
from equigrid.generators.dit.presets import PRESETS
from equigrid.generators.registry import config


def dit(**values) -> DiTConfig:
    return config({"kind": "dit", **values})


class TestPresets:
    def test_published_recipe(self):
        """Peebles and Xie 2023, Section 4: AdamW at a constant 1e-4, no decay, batch 256, EMA
        0.9999; label dropout 0.1; the paper of the grid: DiT-XL/2, f = 8, guidance 4, 250 steps.
        """
        c = dit(preset="imagenet100")
        t = c.training
        assert (t.batch, t.lr, t.betas, t.weight_decay, t.ema_decay) == (
            256,
            1e-4,
            (0.9, 0.999),
            0,
            0.9999,
        )
        assert (t.lr_rampup_part, t.lr_decay_part, t.label_dropout) == (0, 0, 0.1)
        n = c.network
        assert (n.depth, n.width, n.heads, n.patch) == (28, 1152, 16, 2)
        assert (c.vae.downsample, c.vae.widths, c.vae.latent_channels) == (
            8,
            (128, 256, 512, 512),
            4,
        )
        assert (c.sampler.steps, c.sampler.guidance, c.sampler.guidance_channels) == (250, 4, "all")
        assert c.setting == "closed"

    @pytest.mark.parametrize("name", PRESETS)
    def test_every_preset_is_valid_and_survives_json(self, name):
        made = dit(preset=name)
        assert config(json.loads(json.dumps(made.model_dump(mode="json")))) == made

    def test_the_sizes(self):
        sizes = {name: dit(preset=f"dit-{name}2").network for name in ("s", "b", "l", "xl")}
        assert [(n.depth, n.width, n.heads) for n in sizes.values()] == [
            (12, 384, 6), (12, 768, 12), (24, 1024, 16), (28, 1152, 16),
        ]  # fmt: skip
        assert [dit(preset=f"dit-b{patch}").network.patch for patch in (2, 4, 8)] == [2, 4, 8]

    def test_durations_follow_the_base(self):
        made = [
            dit(preset="imagenet100").for_images(n)
            for n in (6_500, 26_000, 65_000, 130_000, 140_000)
        ]
        assert [c.training.steps for c in made] == [50_000, 80_000, 200_000, 400_000, 400_000]
        assert [c.vae.training.steps for c in made] == [20_000, 20_000, 50_000, 100_000, 100_000]
        assert made[0].for_images(10) == made[0]
        assert dit().for_images(10) == dit()

    def test_no_bound_on_a_pool(self):
        assert dit().capacity(("a", "b")) is None


class TestErrors:
    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            ({"preset": "dit-xl3"}, "did you mean 'dit-xl"),
            ({"vae": {"downsampel": 4}}, "'vae.downsampel': did you mean 'downsample'"),
            ({"vae": {"downsample": 3}}, "vae.downsample 3"),
            ({"network": {"patch": 3}}, "network.patch 3"),
            (
                {"network": {"width": 100, "heads": 16}},
                "width 100 must be divisible by the 16 heads",
            ),
            ({"network": {"width": 6, "heads": 2}}, "width 6 must be divisible by 4"),
            (
                {"vae": {"base_channels": 48}},
                "base_channels 48 must be divisible by norm_groups 32",
            ),
            (
                {"vae": {"perceptual": "lpips"}},
                "perceptual 'lpips' would be a feature loss .*closed set",
            ),
            (
                {"vae": {"lpips": 1.0}, "setting": "open", "weights": "x"},
                "lpips 1.0 would be a feature loss",
            ),
            ({"vae": {"weights": "sd-vae"}}, "vae.weights 'sd-vae' is pre-trained: a closed-set"),
            ({"weights": "DiT-XL-2-256"}, "weights 'DiT-XL-2-256' is pre-trained: a closed-set"),
            ({"setting": "open"}, "needs 'weights'"),
            ({"setting": "open", "vae": {"weights": "sd-vae"}}, "needs 'weights'"),
            ({"class_indices": [1, 2]}, "class_indices are for released"),
            ({"training": {"label_dropout": 0.0}}, "guidance needs a label_dropout above 0"),
            ({"sampler": {"steps": 1001}}, "sampler.steps 1001"),
            ({"sampler": {"guidance_channels": "four"}}, "guidance_channels 'four'"),
            ({"training": {"betas": [0.9, 1.0]}}, "both lie in"),
        ],
    )
    def test_one_line_that_says_what_would_be_right(self, mapping, message):
        with pytest.raises(ValueError, match=message) as error:
            dit(**mapping)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("size", "message"),
        [
            (
                (100, 100, 3),
                "100x100 must be divisible by 16: vae.downsample 8 times network.patch 2",
            ),
            ((64, 128, 3), "64x128: the transformer takes square images"),
            ((64, 64, 4), "1 or 3 channels, got 4"),
            (
                (16, 16, 3),
                "too small for vae.training.discriminator.layers 3, which need 24 pixels",
            ),
        ],
    )
    def test_datasets_it_cannot_take(self, size, message):
        with pytest.raises(ValueError, match=message):
            dit().check(*size, classes=10, n_images=100)

    def test_no_images_or_classes(self):
        with pytest.raises(ValueError, match="no images"):
            dit().check(256, 256, 3, 10, 0)
        with pytest.raises(ValueError, match="classes must be"):
            dit().check(256, 256, 3, 0, 10)
        dit().check(256, 256, 3, 100, 10, tuple("ab"))
        assert dit(preset="dit-xl8").latent_side(256, 256) == 32


class TestCosts:
    @pytest.mark.parametrize("preset", ["dit-s2", "dit-b8", "cifar10-2cores", "digits"])
    @pytest.mark.parametrize(("channels", "classes"), [(3, 100), (1, 7)])
    def test_parameters_are_those_of_the_networks(self, preset, channels, classes):
        import torch

        from equigrid.generators.dit.network import autoencoder, transformer

        made = dit(preset=preset)
        with torch.device("meta"):
            network = transformer(
                made.network, side=8, channels=made.vae.latent_channels, classes=classes
            )
            vae = autoencoder(made.vae, side=64, channels=channels, seed=0)
        facts = made.cost_facts(64, 64, channels, classes, 500)
        assert facts["parameters"] == sum(p.numel() for p in network.parameters())
        assert facts["autoencoder_parameters"] == sum(p.numel() for p in vae.parameters())

    def test_amounts(self):
        """DiT-XL/2 has 675,129,632 values for 1,000 classes, of which 256 x 1152 are the table of
        positions.
        """
        facts = dit(preset="imagenet100").cost_facts(256, 256, 3, 1000, 26_000)
        assert facts == {
            "parameters": 675_129_632 - 256 * 1152, "autoencoder_parameters": 83_653_863,
            "sampling_batch": 64, "sampler_steps": 250, "evaluations_per_image": 500,
            "training_batch": 256, "training_steps": 80_000, "training_nimg": 20_480_000,
            "autoencoder_batch": 64, "autoencoder_steps": 20_000, "autoencoder_nimg": 1_280_000,
        }  # fmt: skip
        without = dit(sampler={"guidance": 1.0, "steps": 50}).cost_facts(256, 256, 3, 10, 5)
        assert without["evaluations_per_image"] == 50

    @pytest.mark.parametrize("values", [{"weights": "w", "setting": "open"}, {}])
    def test_nothing_trained_costs_nothing_to_train(self, values):
        facts = dit(**values).cost_facts(32, 32, 3, 10, None if not values else 0)
        assert not [
            name
            for name in facts
            if name.startswith(("training", "autoencoder_steps", "autoencoder_nimg"))
        ]


class TestPayloads:
    def test_batch_and_compute_are_in_neither(self):
        one = dit()
        two = dit(sampler={"batch": 7}, compute={"microbatch": 3, "gradient_checkpointing": "on"})
        assert one.training_payload() == two.training_payload()
        assert one.sampling_payload() == two.sampling_payload()

    @pytest.mark.parametrize(
        ("values", "trains", "samples"),
        [
            ({"sampler": {"guidance": 2.0}}, False, True),
            ({"sampler": {"guidance_channels": "three"}}, False, True),
            ({"training": {"steps": 5}}, True, False),
            ({"vae": {"training": {"kl_weight": 1e-5}}}, True, False),
            ({"flips": False}, True, False),
            ({"network": {"patch": 4}}, True, True),
            ({"vae": {"latent_channels": 8}}, True, True),
        ],
    )
    def test_what_determines_weights_and_pixels(self, values, trains, samples):
        assert (dit().training_payload() != dit(**values).training_payload()) == trains
        assert (dit().sampling_payload() != dit(**values).sampling_payload()) == samples
        json.dumps([dit().training_payload(), dit().sampling_payload()])
