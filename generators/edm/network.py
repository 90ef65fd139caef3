"""DDPM++ with EDM preconditioning (Karras et al. 2022): the network, top-down.

`EDMNetwork` is the denoiser D(x; sigma) of Eq. 7; its `model` is the raw U-Net F.  Names and shapes
of the state dict are those of the released networks.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from equigrid.generators.edm.layout import Block, Layout, groups

NORM_EPS = 1e-6
SKIP_SCALE = math.sqrt(0.5)
"""A residual sum of two parts of equal variance keeps that variance."""


class EDMNetwork(nn.Module):
    """The denoiser D(x; sigma, class), Karras et al. 2022, Eq. 7 with Table 1's preconditioning."""

    def __init__(
        self,
        layout: Layout,
        *,
        image_channels: int,
        classes: int,
        augment_labels: int = 0,
        embedding_mult: int = 4,
        dropout: float = 0.0,
        patch: int = 1,
        sigma_data: float = 0.5,
    ):
        super().__init__()
        self.sigma_data = sigma_data
        self.model = UNet(
            layout,
            image_channels=image_channels,
            classes=classes,
            augment_labels=augment_labels,
            embedding_mult=embedding_mult,
            dropout=dropout,
            patch=patch,
        )

    def forward(
        self,
        images: torch.Tensor,
        sigma: torch.Tensor,
        labels: torch.Tensor,
        augment: torch.Tensor | None = None,
        dropout_keys: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Denoised images.

        images: (N, C, H, W) float, noisy; sigma: (N,) noise levels > 0; labels: (N,) int64 classes;
        augment: (N, A) float augmentation labels or None for "not augmented"; dropout_keys: (N,)
        int32, each image's key for its dropout masks, or None for no dropout. Returns (N, C, H, W)
        float32.
        """
        images = images.to(torch.float32)
        sigma = sigma.to(torch.float32).reshape(-1, 1, 1, 1)
        variance = self.sigma_data**2
        c_skip = variance / (sigma**2 + variance)
        c_out = sigma * self.sigma_data / (sigma**2 + variance).sqrt()
        c_in = 1 / (sigma**2 + variance).sqrt()
        c_noise = sigma.log() / 4
        raw = self.model(c_in * images, c_noise.flatten(), labels, augment, dropout_keys)
        return c_skip * images + c_out * raw.to(torch.float32)


class UNet(nn.Module):
    """The raw network F of DDPM++ (Song et al. 2021, as configured by Karras et al. 2022, Table
    8).
    """

    def __init__(
        self,
        layout: Layout,
        *,
        image_channels: int,
        classes: int,
        augment_labels: int,
        embedding_mult: int,
        dropout: float,
        patch: int,
    ):
        super().__init__()
        self.patch = patch
        width, embedding = layout.width, layout.width * embedding_mult
        image_channels = image_channels * patch**2
        self.map_label = nn.Linear(classes, width)
        self.map_augment = nn.Linear(augment_labels, width, bias=False) if augment_labels else None
        self.map_layer0 = nn.Linear(width, embedding)
        self.map_layer1 = nn.Linear(embedding, embedding)
        self.enc = nn.ModuleDict({layout.stem: nn.Conv2d(image_channels, width, 3, padding=1)})
        for block in layout.encoder:
            self.enc[block.name] = UNetBlock(block, embedding, dropout)
        self.dec = nn.ModuleDict()
        for block in layout.decoder:
            self.dec[block.name] = UNetBlock(block, embedding, dropout)
        self.dec[f"{layout.head}_norm"] = norm(layout.width_out)
        self.dec[f"{layout.head}_conv"] = nn.Conv2d(layout.width_out, image_channels, 3, padding=1)
        self.layout = layout

    def forward(
        self,
        x: torch.Tensor,
        c_noise: torch.Tensor,
        labels: torch.Tensor,
        augment: torch.Tensor | None,
        dropout_keys: torch.Tensor | None,
    ) -> torch.Tensor:
        embedding = self.embed(c_noise, labels, augment).to(x.dtype)  # (N, E)
        x = F.pixel_unshuffle(x, self.patch)  # (N, C * patch**2, H, W), H and W those of the layout
        x = self.enc[self.layout.stem](x)  # (N, width, H, W)
        skips = [x]
        for depth, block in enumerate(self.layout.encoder):
            x = self.enc[block.name](x, embedding, fold(dropout_keys, depth))
            skips.append(x)
        for depth, block in enumerate(self.layout.decoder, start=len(self.layout.encoder)):
            if block.skip:
                x = torch.cat([x, skips.pop()], dim=1)
            x = self.dec[block.name](x, embedding, fold(dropout_keys, depth))
        x = F.silu(self.dec[f"{self.layout.head}_norm"](x))
        # (N, C, patch * H, patch * W)
        return F.pixel_shuffle(self.dec[f"{self.layout.head}_conv"](x), self.patch)

    def embed(
        self, c_noise: torch.Tensor, labels: torch.Tensor, augment: torch.Tensor | None
    ) -> torch.Tensor:
        """Noise level, class and augmentation as one vector: (N, embedding)."""
        classes = self.map_label.in_features
        # One-hot vectors scaled to unit mean square: sqrt(classes).
        one_hot = F.one_hot(labels, classes).to(self.map_label.weight.dtype) * math.sqrt(classes)
        embedding = positional(c_noise, self.map_layer0.in_features).to(
            one_hot.dtype
        ) + self.map_label(one_hot)
        if augment is not None:
            if self.map_augment is None:
                raise ValueError(
                    "augmentation labels given to a network that was built without them"
                )
            embedding = embedding + self.map_augment(augment.to(one_hot.dtype))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(embedding))))


class UNetBlock(nn.Module):
    """Residual block: norm, silu, (resample), conv, + embedding, norm, silu, dropout, conv; then
    attention.
    """

    def __init__(self, block: Block, embedding: int, dropout: float):
        super().__init__()
        self.resample, self.dropout, self.attends = block.resample, dropout, block.attention
        self.norm0 = norm(block.c_in)
        self.conv0 = nn.Conv2d(block.c_in, block.c_out, 3, padding=1)
        self.affine = nn.Linear(embedding, block.c_out)
        self.norm1 = norm(block.c_out)
        self.conv1 = nn.Conv2d(block.c_out, block.c_out, 3, padding=1)
        changes = block.c_in != block.c_out or block.resample is not None
        self.skip = nn.Conv2d(block.c_in, block.c_out, 1) if changes else None
        if block.attention:
            self.norm2 = norm(block.c_out)
            self.qkv = nn.Conv2d(block.c_out, 3 * block.c_out, 1)
            self.proj = nn.Conv2d(block.c_out, block.c_out, 1)

    def forward(
        self, x: torch.Tensor, embedding: torch.Tensor, keys: torch.Tensor | None
    ) -> torch.Tensor:
        y = self.conv0(resampled(F.silu(self.norm0(x)), self.resample))
        y = y + self.affine(embedding)[:, :, None, None]
        y = drop(F.silu(self.norm1(y)), self.dropout, keys)
        y = self.conv1(y)
        if self.skip is not None:
            x = self.skip(resampled(x, self.resample))
        x = (x + y) * SKIP_SCALE
        if self.attends:
            x = (x + self.proj(attention(self.qkv(self.norm2(x))))) * SKIP_SCALE
        return x


class GroupNorm(nn.GroupNorm):
    """torch's, which on a CUDA device brings images to another layout in memory and leaves them
    there, so that the next convolution brings them back. Where it is not compiled, this one
    computes the same in channels-last memory: sums in float32, whatever the images are.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.in_place(x) if _loses_layout(x) else super().forward(x)

    def in_place(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) in any layout -> float32 in the same one."""
        x = x.to(torch.float32)
        n, channels, height, width = x.shape
        each = channels // self.num_groups
        parts = x.view(n, self.num_groups, each, height, width)
        variance, mean = torch.var_mean(parts, dim=(2, 3, 4), correction=0)  # (N, G) each
        scale = (variance + self.eps).rsqrt()[:, :, None] * self.weight.view(1, -1, each)
        shift = self.bias.view(1, -1, each) - mean[:, :, None] * scale
        return torch.addcmul(shift.view(n, channels, 1, 1), x, scale.view(n, channels, 1, 1))


def _loses_layout(x: torch.Tensor) -> bool:
    """Whether torch's norm would return another layout in memory than x has."""
    eager_on_a_gpu = x.device.type == "cuda" and not torch.compiler.is_compiling()
    return eager_on_a_gpu and x.is_contiguous(memory_format=torch.channels_last)


def norm(channels: int) -> nn.GroupNorm:
    return GroupNorm(groups(channels), channels, eps=NORM_EPS)


def resampled(x: torch.Tensor, resample: str | None) -> torch.Tensor:
    """Half or double size with the filter [1, 1]: mean of 2x2 pixels, or each pixel four times."""
    if resample == "down":
        return F.avg_pool2d(x, 2)
    if resample == "up":
        return F.interpolate(x, scale_factor=2, mode="nearest")
    return x


def attention(qkv: torch.Tensor) -> torch.Tensor:
    """Self-attention of one head over all pixels: (N, 3C, H, W) -> (N, C, H, W).

    Query, key and value alternate along the channels: q0 k0 v0 q1 k1 v1 ...
    """
    n, channels, height, width = qkv.shape
    # (3, N, 1, HW, C)
    parts = qkv.reshape(n, 1, channels // 3, 3, height * width).permute(3, 0, 1, 4, 2)
    q, k, v = parts.contiguous()  # fused kernels want a pixel's channels side by side in memory
    out = F.scaled_dot_product_attention(q, k, v)  # (N, 1, HW, C), scaled by 1 / sqrt(C)
    return out.mT.reshape(n, channels // 3, height, width)


def positional(c_noise: torch.Tensor, channels: int) -> torch.Tensor:
    """Sines then cosines of c_noise at channels/2 frequencies from 1 down to 1/10,000, both ends
    included.

    (N,) -> (N, channels) float32.
    """
    half = channels // 2
    exponent = torch.arange(half, dtype=torch.float32, device=c_noise.device) / (half - 1)
    phase = c_noise.to(torch.float32)[:, None] * (1 / 10_000) ** exponent  # (N, half)
    return torch.cat([phase.sin(), phase.cos()], dim=1)


# Dropout masks by counter: the mask of an image depends on its key, the block and the element, not
# on the batch, the rank or the device, which torch's own stream of random numbers cannot give.


def mix(words: torch.Tensor) -> torch.Tensor:
    """Scrambles int32 words (two rounds in the manner of MurmurHash3's finaliser); the upper bits
    are the best.

    int32 for speed: products wrap around, as torch's integers do, and right shifts are made
    unsigned.
    """
    # In place after the first: these are as large as activations, and their memory is what costs.
    words = words ^ (words >> 16).bitwise_and_(0xFFFF)
    words.mul_(0x7FEB352D)
    return words.bitwise_xor_((words >> 15).bitwise_and_(0x1FFFF)).mul_(-0x7B935975)


def fold(keys: torch.Tensor | None, number: int) -> torch.Tensor | None:
    """Keys of the draw `number` under each image's key: (N,) int32 -> (N,) int32."""
    # The golden ratio of 2**32, as an int32 for every number.
    step = (number + 1) * 0x9E3779B9 % 2**32 - 2**31
    return None if keys is None else mix(mix(keys + step))


def drop(x: torch.Tensor, probability: float, keys: torch.Tensor | None) -> torch.Tensor:
    """Dropout with masks from `keys` ((N,) int32); the identity where keys is None or probability
    0.
    """
    if keys is None or probability == 0:
        return x
    counter = torch.arange(x[0].numel(), dtype=torch.int32, device=x.device).view(1, *x.shape[1:])
    keep = mix(counter + keys.view(-1, 1, 1, 1)) >= int(probability * 2**32) - 2**31
    return x * (keep.to(x.dtype) / (1 - probability))


def initialise(network: EDMNetwork, generator: torch.Generator) -> None:
    """All of the initialisation: Xavier uniform, with these gains, biases zero (Song et al. 2021).

    Layers that end a residual branch, and the last one, start near zero (1e-5), so that each block
    starts as its skip path; qkv starts small (sqrt(0.2)).
    """
    for name, module in network.named_modules():
        last = name.rsplit(".", 1)[-1]
        if isinstance(module, nn.Conv2d | nn.Linear):
            gain = 1e-5 if last in ("conv1", "proj") or last.endswith("_aux_conv") else 1.0
            gain = math.sqrt(0.2) if last == "qkv" else gain
            nn.init.xavier_uniform_(module.weight, gain=gain, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
