"""The network whose features a pool's `metrics` are of: any of timm's, from a hub or a file."""

import difflib
from typing import Any

import torch

from equigrid.generators.quality.networks import NetworkMissing, ViT

_SOURCES = ("hf-hub:", "hf_hub:")


class Extractor(ViT):
    """A network of timm's: its features before the last layer, of images resized bicubically (with
    antialiasing) and normalised as the network wants it.

    DINOv2 at 224 pixels: its class token after the last norm, as Stein et al. (2023) take it.
    """

    def __init__(
        self,
        name: str,
        *,
        size: int | None = None,
        weights: str | None = None,
        device: str | torch.device = "cpu",
    ):
        """name: timm's, with its tag, or hf-hub:OWNER/NAME[@REVISION].  size: pixels a side; None
        for the network's own.  weights: a file of its state dict, also at another size where timm
        can resample it; None for the download.  Raises ValueError for an unknown name and for
        weights of another network, NetworkMissing where there is no download to be had.
        """
        self.device = torch.device(device)
        check_known(name, weights)
        self._use(_made(name, size, weights), size)


def check_known(name: str, weights: str | None) -> None:
    """Raise ValueError unless timm has a network of that name, and weights of it where none are
    given. A repository of a hub is not looked for.
    """
    if name.startswith(_SOURCES):
        return
    import timm

    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see timm.list_models()"
        raise ValueError(f"extractor: timm knows no network {name!r}; {hint}")
    if weights is None and not timm.is_model_pretrained(name):
        have = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        hint = f"there are weights {', '.join(have)}" if have else "give extractor_weights"
        raise ValueError(f"extractor: timm has no weights {name!r}; {hint}")


def _made(name: str, size: int | None, weights: str | None) -> Any:
    import timm

    # A file goes timm's own way of weights: it resamples positions, and renames authors' keys.
    options: dict[str, Any] = {"pretrained": True}
    if weights is not None:
        options["pretrained_cfg_overlay"] = {"file": weights}
    try:
        try:
            return timm.create_model(name, **options, img_size=size)
        except TypeError:  # networks that take any size have no such argument
            return timm.create_model(name, **options)
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        first = " ".join(str(error).split())[:300]
        if weights is not None:
            text = f"quality.extractor_weights: {weights} has no weights of {name}: {first}"
            raise ValueError(text) from error
        raise NetworkMissing(
            f"the weights of timm's {name} could not be downloaded ({first})"
        ) from error
