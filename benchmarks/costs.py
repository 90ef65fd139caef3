"""How far off a plan's estimates are before anything ran: `python benchmarks/costs.py`.

First the paper's Table 8, then trainings and samplings that were timed on cores of a CPU. Each
line: what the job computes, the time by the table of devices, the time that it took, and their
ratio; a time outside the stated range is marked. `--count` counts the operations of all networks
in the tables again, on networks without values.
"""

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from equigrid.analysis.paper.costs import costs
from equigrid.classifiers import flops as classifier_flops
from equigrid.classifiers import recipes
from equigrid.generators import registry
from equigrid.generators.base_config import TRAINING_PASSES, Flops
from equigrid.generators.stable_diffusion import flops as pipelines
from equigrid.grid.reporting.devices import CPU, DEVICES, Speed


class Timed(NamedTuple):
    """flops of something that took `seconds` at these speeds."""

    what: str
    flops: float
    speed: Speed
    seconds: float

    def __str__(self) -> str:
        likely, least, most = (
            self.flops / each for each in (self.speed.likely, self.speed.most, self.speed.least)
        )
        outside = "" if least <= self.seconds <= most else "  outside the range"
        return (
            f"{self.what:<58} {self.flops:>9.3g} FLOP  estimated {likely:>8.3g} s"
            f" ({least:.3g} to {most:.3g})  took {self.seconds:>7.4g} s"
            f"  ratio {likely / self.seconds:.2f}{outside}"
        )


CONFIGURATIONS = {
    "edm": ({"kind": "edm", "preset": "cifar10-bases"}, (32, 32, 3)),
    "sd2": ({"kind": "stable-diffusion", "preset": "sd2"}, (256, 256, 3)),
    "sd3": ({"kind": "stable-diffusion", "preset": "sd3", "clip_filter": None}, (256, 256, 3)),
    "dit": ({"kind": "dit", "preset": "imagenet100"}, (256, 256, 3)),
}


def table_8() -> Iterator[Timed]:
    """An image by each row of the paper's Table 8."""
    for row in costs():
        mapping, shape = CONFIGURATIONS[row.generator]
        speed = DEVICES[row.machine].wide
        per_image = _flops(mapping, shape, 0).per_image
        yield Timed(f"{row.generator} on {row.machine}", per_image, speed, row.seconds_per_image)
        if row.generator == "sd2":
            small = pipelines.STABLE_DIFFUSION_2_BASE
            per_image = 2 * row.sampling_steps * small.evaluation + small.decoder
            what = f"{row.generator} on {row.machine}, if it was the one of 512×512"
            yield Timed(what, per_image, speed, row.seconds_per_image)


def on_cores() -> Iterator[Timed]:
    """What took core-seconds on AMD EPYCs; the times are in docs/ and in the presets' comments."""
    speeds = DEVICES[CPU]
    for kind, preset, shape, n, seconds in (
        ("edm", "cifar10-2cores", (32, 32, 3), 500, 5436),
        ("edm", "digits", (8, 8, 1), 200, 17),
        ("dit", "cifar10-2cores", (32, 32, 3), 500, 2755 / 3),  # on a third of a core
        ("dit", "digits", (8, 8, 1), 300, 49),
    ):
        found = _flops({"kind": kind, "preset": preset}, shape, n)
        speed = speeds.wide if found.wide else speeds.narrow
        yield Timed(f"training {kind} {preset}, one core", found.training, speed, seconds)
        if (kind, preset) == ("edm", "digits"):
            yield Timed("1,000 images of it", 1000 * found.per_image, speed, 3.5)
    yield Timed("cifar10-smoke: nine trainings of ResNet-20", _smoke(), speeds.narrow, 2 * 342)


def _smoke() -> float:
    """Of cifar10-smoke: three seeds at 500, 1,000 and 1,500 images."""
    recipe, total = recipes.recipe("smoke/cifar10"), 0.0
    forward = classifier_flops.forward("resnet20", 32, 32, 3)
    assert forward is not None
    for n in (500, 1000, 1500):
        sizes = {"n_base": 500, "n_total": n, "n_dataset": 5_000}
        resolved = recipes.resolve(recipe, **sizes, classifier="resnet20")
        seen = resolved.total_steps(n) * min(resolved.batch, n)
        total += 3 * (TRAINING_PASSES * seen + 10_000) * forward.per_image
    return total


def _flops(mapping: dict, shape: tuple[int, int, int], n: int) -> Flops:
    found = registry.config(mapping).flops(*shape, 10, n)
    assert found is not None
    return found


def counted() -> Iterator[tuple[str, int]]:
    """Every number of the tables, counted again."""
    for name, (side, _) in classifier_flops.COUNTED.items():
        yield name, classifier_flops.count_anew(name, side, side, 3)
    yield from pretrained()


def pretrained() -> Iterator[tuple[str, int]]:
    """Of published networks by their published sizes: no weights are read."""
    import timm
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.models import inception_v3
    from transformers import CLIPVisionConfig, CLIPVisionModel

    def count(network, *inputs) -> int:
        with FlopCounterMode(display=False) as counter:
            network.eval()(*inputs)
        return counter.get_total_flops()

    def unet(text: int, heads: int | tuple[int, ...], *, linear: bool) -> UNet2DConditionModel:
        return UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280),
            down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
            up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
            cross_attention_dim=text, attention_head_dim=heads, use_linear_projection=linear,
        )  # fmt: skip

    def ends(name: str, latent: int, side: int) -> Iterator[tuple[str, int]]:
        """Of the autoencoder: from latents to pixels, and back."""
        made = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=latent,
        )  # fmt: skip
        with FlopCounterMode(display=False) as counter:
            made.eval().decode(torch.empty(1, latent, side, side))
        yield f"{name}: decoder", counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            made.encode(torch.empty(1, 3, 8 * side, 8 * side))
        yield f"{name}: encoder", counter.get_total_flops()

    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.inference_mode():
        step = torch.ones(1)
        for name, side, text, heads in (
            ("stable diffusion 1", 64, 768, 8),
            ("stable diffusion 2", 96, 1024, (5, 10, 20, 20)),
            ("stable diffusion 2 base", 64, 1024, (5, 10, 20, 20)),
        ):
            words, latent = torch.empty(1, 77, text), torch.empty(1, 4, side, side)
            yield name, count(unet(text, heads, linear=text == 1024), latent, step, words)
            yield from ends(name, 4, side)
        transformer = SD3Transformer2DModel(
            sample_size=128, num_layers=24, attention_head_dim=64, num_attention_heads=24,
            joint_attention_dim=4096, caption_projection_dim=1536, pooled_projection_dim=2048,
            pos_embed_max_size=192,
        )  # fmt: skip
        latent, words = torch.empty(1, 16, 128, 128), torch.empty(1, 77 + 256, 4096)
        yield "stable diffusion 3", count(transformer, latent, words, torch.empty(1, 2048), step)
        yield from ends("stable diffusion 3", 16, 128)
        yield "inception", count(inception_v3(init_weights=False), torch.empty(1, 3, 299, 299))
        vit = timm.create_model("vit_base_patch16_224")
        yield "vit", count(vit, torch.empty(1, 3, 224, 224))
        dino = timm.create_model("vit_large_patch14_dinov2", img_size=224)
        yield "dinov2", count(dino, torch.empty(1, 3, 224, 224))
        sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
        clip = CLIPVisionModel(CLIPVisionConfig(**sizes, num_attention_heads=16, patch_size=14))
        yield "clip", count(clip, torch.empty(1, 3, 224, 224))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--count", action="store_true", help="count all networks again")
    if parser.parse_args().count:
        for name, count in counted():
            print(f"{name}: {count:_}", flush=True)
        return
    for line in (*table_8(), *on_cores()):
        print(line)


if __name__ == "__main__":
    main()
