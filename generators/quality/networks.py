"""The networks whose features quality is measured in: pytorch-fid's Inception and timm's ImageNet
ViT.

Each is a function from stored images, (n, H, W, C) uint8 with C 1 or 3, to features, so that any
other (the grid's own classifier for digits) can take its place.  Weights come from a file, or by
the network's own download into its usual cache; where neither is possible, `NetworkMissing` says
so.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from equigrid.generators.quality.names import VIT

_NO_WEIGHTS = "is damaged, or holds more than plain weights, which is not opened"

Features = Callable[[np.ndarray], np.ndarray]
"""(n, H, W, C) uint8 -> (n, d) float32."""


class NetworkMissing(ValueError):
    """A network's weights are neither on this machine nor to be downloaded."""


class Inception:
    """pytorch-fid's Inception-v3: pooled features and class probabilities."""

    def __init__(self, weights: str | None = None, device: str | torch.device = "cpu"):
        """weights: a state dict of pytorch-fid's network (.pth or .safetensors); None for its
        download.
        """
        self.device = torch.device(device)
        network: Any = _inception()  # torchvision's and pytorch-fid's layers have no types
        _load(network, _state_dict(weights) if weights else _downloaded())
        self.network = network.to(self.device).eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, 2048) and probabilities (n, 1008) of (n, H, W, C) uint8 images.

        Images are resized to 299 x 299 as pytorch-fid does it.  The probabilities leave out the
        last layer's bias, as the original Inception Score does.
        """
        x = _unit(images, self.device)
        x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
        features = self._pooled(2 * x - 1)
        probabilities = F.linear(features, self.network.fc.weight).softmax(dim=1)
        return features.cpu().numpy(), probabilities.cpu().numpy()

    def _pooled(self, x: torch.Tensor) -> torch.Tensor:
        net = self.network
        x = net.Conv2d_2b_3x3(net.Conv2d_2a_3x3(net.Conv2d_1a_3x3(x)))  # (n, 64, 147, 147)
        x = F.max_pool2d(x, kernel_size=3, stride=2)
        x = net.Conv2d_4a_3x3(net.Conv2d_3b_1x1(x))  # (n, 192, 71, 71)
        x = F.max_pool2d(x, kernel_size=3, stride=2)
        for part in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = getattr(net, f"Mixed_{part}")(x)
        return x.mean(dim=(2, 3))  # (n, 2048, 8, 8) -> (n, 2048)


class ViT:
    """An ImageNet classifier of timm: its features before the last layer."""

    def __init__(
        self, name: str = VIT, weights: str | None = None, device: str | torch.device = "cpu"
    ):
        """weights: a state dict of timm's model `name` (.pth or .safetensors); None for timm's
        download.
        """
        import timm

        self.device = torch.device(device)
        network: Any  # a module that also has timm's forward_features and forward_head
        try:
            network = timm.create_model(name, pretrained=weights is None)
        except (OSError, RuntimeError) as error:  # what the hub raises without a network
            raise NetworkMissing(
                f"the weights of timm's {name} could not be downloaded ({_first(error)})"
            ) from error
        if weights is not None:
            _load(network, _state_dict(weights))
        self._use(network)

    def _use(self, network: Any, size: int | None = None) -> None:
        """size: pixels a side; None for what the network's authors took."""
        import timm

        given = timm.data.resolve_model_data_config(network)
        self.size = given["input_size"][1:] if size is None else (size, size)
        self.mean, self.std = (
            torch.tensor(given[key]).view(1, 3, 1, 1).to(self.device) for key in ("mean", "std")
        )
        self.network = network.to(self.device).eval().requires_grad_(False)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features (n, d) of (n, H, W, C) uint8 images, resized bicubically to the network's
        input.
        """
        x = _unit(images, self.device)
        x = F.interpolate(
            x, size=self.size, mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 1)
        x = self.network.forward_features((x - self.mean) / self.std)
        return self.network.forward_head(x, pre_logits=True).cpu().numpy()


def _unit(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """(n, H, W, 1 or 3) uint8 -> (n, 3, H, W) float32 in [0, 1]; greyscale three times."""
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
    return x.expand(-1, 3, -1, -1).to(torch.float32) / 255


def _inception() -> nn.Module:
    """torchvision's Inception-v3 with pytorch-fid's blocks in the places that differ."""
    from pytorch_fid import inception as fid
    from torchvision.models import inception_v3

    network = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    for name, width in (("5b", 32), ("5c", 64), ("5d", 64)):
        channels = {"5b": 192, "5c": 256, "5d": 288}[name]
        setattr(network, f"Mixed_{name}", fid.FIDInceptionA(channels, pool_features=width))
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        setattr(network, f"Mixed_{name}", fid.FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b, network.Mixed_7c = fid.FIDInceptionE_1(1280), fid.FIDInceptionE_2(2048)
    return network


def _downloaded() -> dict[str, torch.Tensor]:
    from pytorch_fid.inception import FID_WEIGHTS_URL

    try:
        # Its name ends in the digest that a download is compared with.
        return torch.hub.load_state_dict_from_url(
            FID_WEIGHTS_URL, progress=False, map_location="cpu", weights_only=True, check_hash=True
        )
    except (URLError, OSError) as error:
        raise NetworkMissing(
            f"pytorch-fid's Inception weights could not be downloaded ({_first(error)}); "
            f"give the path of the file {FID_WEIGHTS_URL.rsplit('/', 1)[-1]}"
        ) from error
    except Exception as error:  # torch raises nearly all on damaged bytes
        what = f"the download that torch keeps of {FID_WEIGHTS_URL.rsplit('/', 1)[-1]}"
        raise ValueError(f"{what} {_NO_WEIGHTS} ({type(error).__name__}); remove it") from error


def _state_dict(path: str) -> dict[str, torch.Tensor]:
    if not Path(path).is_file():
        raise NetworkMissing(f"there is no file of weights {path!r}")
    if path.endswith(".safetensors"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path!r} {_NO_WEIGHTS} ({_first(error)})") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly all on damaged bytes
        # Not its message, which advises to run what the file says.
        raise ValueError(f"{path!r} {_NO_WEIGHTS} ({type(error).__name__})") from error


def _load(network: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"these weights are not this network's: {' '.join(str(error).split())[:300]}"
        ) from error


def _first(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
