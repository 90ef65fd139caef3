"""Counted operations are those that torch counts on networks without values."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from equigrid.generators.dit import network, sizes
from equigrid.generators.edm.layout import flops as edm_flops
from equigrid.generators.edm.weights import network_for
from equigrid.generators.registry import KINDS, config


def counted(module, *inputs, **options) -> int:
    with FlopCounterMode(display=False) as counter:
        module(*inputs, **options)
    return counter.get_total_flops()


@pytest.mark.parametrize("preset", ["cifar10-bases", "cifar10-2cores", "digits"])
@pytest.mark.parametrize("shape", [(32, 32, 3), (16, 24, 1)])
def test_edm(preset, shape):
    made = config({"kind": "edm", "preset": preset})
    height, width, channels = shape
    unet = network_for(made, shape=shape, classes=7).eval().to("meta")
    with torch.device("meta"):
        inputs = torch.empty(1, channels, height, width), torch.ones(1), torch.zeros(1).long()
        found = counted(unet, *inputs)
    stem = channels * made.network.patch**2
    mult = made.network.embedding_mult
    layout = made.layout(height, width)
    assert found == edm_flops(layout, image_channels=stem, classes=7, embedding_mult=mult)
    whole = made.flops(*shape, 7, 500)
    facts = made.cost_facts(*shape, 7, 500)
    assert whole.per_image == facts["evaluations_per_image"] * found
    assert whole.training == 3 * facts["training_nimg"] * found
    assert whole.wide == (preset == "cifar10-bases")


@pytest.mark.parametrize(
    ("preset", "side", "channels"), [("cifar10-2cores", 32, 3), ("digits", 8, 1), ("dit-s4", 64, 3)]
)
def test_dit(preset, side, channels):
    made = config({"kind": "dit", "preset": preset})
    latent, small = made.vae.latent_channels, side // made.vae.downsample
    settings = made.vae.training.discriminator
    with torch.device("meta"):
        whole = network.transformer(made.network, side=small, channels=latent, classes=5)
        labels = {"timestep": torch.ones(1), "class_labels": torch.zeros(1).long()}
        found = counted(whole.eval().to("meta"), torch.empty(1, latent, small, small), **labels)
        assert found == sizes.transformer_flops(made.network, side=small, channels=latent)
        vae = network.autoencoder(made.vae, side=side, channels=channels, seed=0).eval()
        images = torch.empty(1, channels, side, side)
        encoder = sizes.encoder_flops(made.vae, side=side, channels=channels)
        assert counted(vae.encode, images) == encoder
        decoder = sizes.decoder_flops(made.vae, side=side, channels=channels)
        assert counted(vae.decode, torch.empty(1, latent, small, small)) == decoder
        judge = network.discriminator(settings, channels=channels, seed=0)
        judged = sizes.discriminator_flops(settings, side=side, channels=channels)
        assert counted(judge, images) == judged
    per_image = made.flops(side, side, channels, 5, 10).per_image
    assert per_image == made.sampler.evaluations * found + decoder


@pytest.mark.parametrize("kind", KINDS)
def test_every_preset_is_counted(kind):
    side = 32 if kind == "edm" else 256
    for preset in KINDS[kind][1]:
        made = config({"kind": kind, "preset": preset})
        assert made.flops(side, side, 3, 10, 1000).per_image > 0


def test_a_filter_makes_what_it_drops_and_a_folder_without_sizes_is_not_known(tmp_path):
    def sd3(**changes):
        mapping = {"kind": "stable-diffusion", "preset": "sd3", **changes}
        return config(mapping).flops(256, 256, 3, 10, 0)

    plain, half = sd3(clip_filter=None), sd3(clip_filter={"drop": 0.5, "calibration_per_class": 3})
    assert plain.training == 0
    candidate = half.per_image / 2
    assert candidate == pytest.approx(plain.per_image, rel=1e-3)
    assert half.training == pytest.approx(30 * candidate)
    (tmp_path / "model_index.json").write_text("{}")
    assert sd3(pipeline=str(tmp_path)) is None
