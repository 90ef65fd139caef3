"""The EDM's configuration: presets, overriding, errors, and what enters ids."""

import json
import math

import pytest

from equigrid.generators.edm.config import EDMConfig
from equigrid.generators.edm.presets import PRESETS
from equigrid.generators.registry import config


def edm(**values) -> EDMConfig:
    return config({"kind": "edm", **values})


class TestPresets:
    def test_published_recipe(self):
        """Karras et al. 2022, Tables 1, 5, 6 and 7, class-conditional CIFAR-10 with DDPM++."""
        c = edm(preset="cifar10")
        t = c.training
        assert (t.optimizer, t.lr, t.betas, t.eps, t.weight_decay) == (
            "adam",
            1e-3,
            (0.9, 0.999),
            1e-8,
            0,
        )
        assert (t.batch, t.total_nimg, t.lr_rampup_nimg) == (512, 200_000_000, 10_000_000)
        assert (t.ema_halflife_nimg, t.ema_rampup_ratio) == (500_000, 0.05)
        assert (t.P_mean, t.P_std, c.network.sigma_data, c.network.dropout) == (
            -1.2,
            1.2,
            0.5,
            0.13,
        )
        assert (t.augmentation.probability, t.augmentation.labels) == (0.12, 9)
        n = c.network
        assert (n.model_channels, n.channel_mult, n.num_blocks, n.attn_resolutions) == (
            128,
            (2, 2, 2),
            4,
            (16,),
        )
        s = c.sampler
        assert (s.steps, s.rho, s.sigma_min, s.sigma_max, s.S_churn, s.S_noise) == (
            18,
            7,
            0.002,
            80,
            0,
            1,
        )

    @pytest.mark.parametrize("name", PRESETS)
    def test_every_preset_is_valid_and_survives_json(self, name):
        made = edm(preset=name)
        assert config(json.loads(json.dumps(made.model_dump(mode="json")))) == made

    def test_keys_override_part_by_part(self):
        made = edm(preset="digits", training={"lr": 1e-4, "augmentation": {"probability": 0.25}})
        assert made.training.lr == 1e-4
        assert made.training.batch == edm(preset="digits").training.batch
        assert made.training.augmentation.kinds == ("shift",)
        assert edm(preset="digits").training.lr != 1e-4

    def test_durations_follow_the_base(self):
        training = edm(preset="cifar10-bases").training
        made = {n: training.for_images(n) for n in (500, 5_000, 25_000, 50_000, 60_000)}
        assert [made[n].total_nimg // 10**6 for n in made] == [10, 20, 100, 200, 200]
        assert [made[n].lr_rampup_nimg for n in made] == [
            500_000,
            1_000_000,
            5_000_000,
            10_000_000,
            10_000_000,
        ]
        assert made[500].for_images(5) == made[500]
        assert edm().training.for_images(5) == edm().training

    def test_frozen(self):
        with pytest.raises(ValueError, match="frozen"):
            edm().sampler.steps = 3


class TestErrors:
    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            ({"kind": "edn"}, "did you mean 'edm'"),
            ({}, "generator kind None is unknown: there are edm"),
            (
                {"kind": "edm", "network": {"patch": 0}},
                "network.patch 0: .* greater than or equal to 1",
            ),
            ({"kind": "edm", "preset": "digit"}, "did you mean 'digits'"),
            ({"kind": "edm", "samplr": {}}, "unknown key 'samplr': did you mean 'sampler'"),
            (
                {"kind": "edm", "training": {"total_img": 5}},
                "'training.total_img': did you mean 'total_nimg'",
            ),
            ({"kind": "edm", "training": {"augmentation": {"p": 1}}}, "'training.augmentation.p'"),
            (
                {"kind": "edm", "sampler": {"steps": 0}},
                "sampler.steps 0: .* greater than or equal to 1",
            ),
            (
                {"kind": "edm", "sampler": {"sigma_min": -1}},
                "sampler.sigma_min -1: .* greater than 0",
            ),
            (
                {"kind": "edm", "sampler": {"sigma_min": 90}},
                "sigma_min 90.0 must lie below sigma_max 80.0",
            ),
            ({"kind": "edm", "sampler": {"S_max": "inf"}}, "sampler.S_max 'inf': .* finite"),
            ({"kind": "edm", "training": {"lr": math.nan}}, "training.lr nan"),
            (
                {"kind": "edm", "training": {"augmentation": {"kinds": ["turn"]}}},
                "'turn' is not a kind",
            ),
            ({"kind": "edm", "network": {"channel_mult": []}}, "channel_mult"),
            ({"kind": "edm", "setting": "open"}, "needs 'weights'"),
            ({"kind": "edm", "setting": "ajar"}, "setting 'ajar'"),
        ],
    )
    def test_one_line_that_says_what_would_be_right(self, mapping, message):
        with pytest.raises(ValueError, match=message) as error:
            config(mapping)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("size", "message"),
        [
            ((30, 32, 3, 10, 500), "image size 30x32: .* divisible by 4"),
            ((4, 4, 3, 10, 500), "from 8 up"),
            (
                (28, 28, 3, 8, 500),
                "attn_resolutions 16: no level has this height; the levels have 28, 14, 7",
            ),
            ((32, 32, 4, 10, 500), "1 or 3 channels, got 4"),
            ((32, 32, 3, 0, 500), "classes"),
            ((32, 32, 3, 10, 0), "no images"),
        ],
    )
    def test_datasets_that_do_not_fit(self, size, message):
        with pytest.raises(ValueError, match=message):
            edm().check(*size)

    def test_attention_counts_patches(self):
        edm(network={"patch": 2, "attn_resolutions": [16, 4]}).check(32, 32, 3, 10, 500)
        with pytest.raises(
            ValueError,
            match="attn_resolutions 32: no level has this height; the levels have 16, 8, 4",
        ):
            edm(network={"patch": 2, "attn_resolutions": [16, 32]}).check(32, 32, 3, 10, 500)

    def test_widths_that_cannot_be_normalised(self):
        with pytest.raises(ValueError, match="132 channels"):
            edm(network={"model_channels": 132, "channel_mult": [1, 1, 1]}).check(
                32, 32, 3, 10, 500
            )

    def test_missing_weights(self, tmp_path):
        made = edm(weights=str(tmp_path / "no.safetensors"), setting="open")
        with pytest.raises(ValueError, match="no file"):
            made.check(32, 32, 3, 10, 500)
        with pytest.raises(ValueError, match="no file"):
            made.training_payload()


class TestCosts:
    @pytest.mark.parametrize("preset", PRESETS)
    @pytest.mark.parametrize(("shape", "classes"), [((32, 32, 3), 10), ((16, 16, 1), 3)])
    def test_parameters_are_those_of_the_network(self, preset, shape, classes):
        from equigrid.generators.edm.weights import network_for

        made = edm(preset=preset, network={"num_blocks": 1})
        network = network_for(made, shape=shape, classes=classes)
        facts = made.cost_facts(*shape, classes, 500)
        assert facts["parameters"] == sum(p.numel() for p in network.parameters())

    def test_amounts(self, tmp_path):
        facts = edm(preset="cifar10-bases").cost_facts(32, 32, 3, 10, 5000)
        assert facts == {
            "parameters": 55_735_299, "sampling_batch": 256, "sampler_steps": 18, "evaluations_per_image": 35,
            "training_batch": 512, "training_steps": 39_063, "training_nimg": 20_000_256,
        }  # fmt: skip
        loaded = edm(weights=str(tmp_path / "w"), setting="open").cost_facts(32, 32, 3, 10, 0)
        assert set(facts) - set(loaded) == {"training_batch", "training_steps", "training_nimg"}


class TestPayloads:
    def test_what_enters_which(self):
        base = edm(preset="digits")

        def changed(**values) -> tuple[bool, bool]:
            other = edm(preset="digits", **values)
            trains = other.training_payload() != base.training_payload()
            return trains, other.sampling_payload() != base.sampling_payload()

        assert changed(training={"lr": 1e-4}) == (True, False)
        assert changed(sampler={"steps": 11}) == (False, True)
        assert changed(sampler={"batch": 3}) == (False, False)
        assert changed(compute={"microbatch": 3, "training_precision": "fp32"}) == (False, False)
        assert changed(network={"sigma_data": 0.6}) == (True, True)

    def test_json(self):
        made = edm()
        json.dumps([made.training_payload(), made.sampling_payload()], allow_nan=False)

    def test_weights_enter_by_content(self, tmp_path):
        payloads = []
        for name, content in [("a", b"one"), ("b", b"one"), ("c", b"two")]:
            (tmp_path / name).write_bytes(content)
            payloads.append(edm(weights=str(tmp_path / name)).training_payload())
        assert payloads[0] == payloads[1] != payloads[2]
        assert str(tmp_path) not in json.dumps(payloads)
