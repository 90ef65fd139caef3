"""Low-rank adapters of a pipeline's denoiser: put in to be trained, taken out as tensors by the
names of diffusers' files, and loaded by diffusers' own loader.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from equigrid.generators.common.rng import seed_of
from equigrid.generators.common.weights import check_names
from equigrid.generators.stable_diffusion.adaptation import Adaptation

ADAPTER = "adapted"
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_OF_TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Stable Diffusion 3's attention projects the text apart from the image."""


def part(pipeline: Any) -> str:
    """The name of a pipeline's denoiser."""
    return "transformer" if hasattr(pipeline, "transformer") else "unet"


def check_installed() -> None:
    """ValueError, with what to install, if peft is not."""
    if find_spec("peft") is None:
        raise ValueError(
            "adaptation needs the package peft, which is not installed here: "
            "install equigrid[stable-diffusion]"
        )


def shapes(denoiser: nn.Module, config: Adaptation) -> dict[str, torch.Tensor]:
    """Every adapter's tensors by name, on the meta device: `<layer>.lora_A.weight`, from a layer's
    input to `rank` values, and `<layer>.lora_B.weight`, from them to its output. A convolution has
    a convolution of its own kernel, and one of 1×1.
    """
    found = {}
    for name, layer in _layers(denoiser, config):
        out, into, *kernel = layer.weight.shape
        found[f"{name}.lora_A.weight"] = torch.empty(config.rank, into, *kernel, device="meta")
        ones = [1] * len(kernel)
        found[f"{name}.lora_B.weight"] = torch.empty(out, config.rank, *ones, device="meta")
    return found


def _layers(denoiser: nn.Module, config: Adaptation) -> Iterator[tuple[str, Any]]:
    ends = tuple(f".{name}" for name in (*_ATTENTION, *_OF_TEXT))
    for name, layer in denoiser.named_modules():
        fits = config.layers == "all" or name.endswith(ends)
        if fits and isinstance(layer, nn.Linear | nn.Conv2d):
            yield name, layer


def put_in(denoiser: Any, config: Adaptation, seed: int) -> None:
    """Freeze a denoiser and give it adapters to train, float32: the first half drawn from (seed,
    number), with deviation 1 / rank, the second zero, so that at first they change nothing.
    """
    from peft import LoraConfig

    check_installed()
    names = [name for name, _ in _layers(denoiser, config)]
    denoiser.requires_grad_(False)
    chosen = LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=names)
    denoiser.add_adapter(chosen, adapter_name=ADAPTER)
    for number, (name, p) in enumerate(sorted(_parameters(denoiser).items())):
        p.data = p.data.float()
        if name.endswith("lora_A.weight"):
            own = torch.Generator().manual_seed(seed_of(seed, "initial weights", number))
            p.data.copy_(torch.randn(p.shape, generator=own) / config.rank)
        else:
            p.data.zero_()


def _parameters(denoiser: nn.Module) -> dict[str, nn.Parameter]:
    """Those of the adapters, by the names of `shapes`."""
    inner = f".{ADAPTER}."
    return {name.replace(inner, "."): p for name, p in denoiser.named_parameters() if inner in name}


def trained(weights: dict[str, torch.Tensor], denoiser: str) -> dict[str, torch.Tensor]:
    """From the names of a training to those of diffusers' files, `unet.<layer>.lora_A.weight`.

    denoiser: the name of the pipeline's part, which leads the names.
    """
    return {
        f"{denoiser}.{name.removeprefix('denoiser.').replace(f'.{ADAPTER}.', '.')}": value
        for name, value in weights.items()
        if name.startswith("denoiser.")
    }


def of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The adapters among the tensors that a training returned."""
    return {name: value for name, value in weights.items() if ".lora_" in name}


def load(pipeline: Any, weights: dict[str, torch.Tensor], config: Adaptation, scale: float) -> None:
    """Put trained adapters into a pipeline, at a scale, by diffusers' own loader.

    Raises ValueError with the first difference if they are not those of this pipeline.
    """
    check_installed()
    own, denoiser = part(pipeline), getattr(pipeline, part(pipeline))
    wanted = {f"{own}.{name}": value for name, value in shapes(denoiser, config).items()}
    check_names("weights of the adaptation", wanted, weights)
    if scale == 0:  # the pipeline itself, bitwise
        return
    denoiser.load_lora_adapter(dict(weights), prefix=own, adapter_name=ADAPTER)
    denoiser.set_adapters([ADAPTER], [scale])
