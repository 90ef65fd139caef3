"""Trained values of the networks, and operations of their passes, counted without building them:
free of torch.

Operations are floating-point ones of one forward pass of one image, a multiplication and an
addition counted as two: of convolutions, matrix products and attention alone, as torch's
FlopCounterMode counts them.
"""

from equigrid.generators.dit.parts import VAE, Discriminator, Network

_FREQUENCIES = 256
"""Sines and cosines of a step's number, from which its embedding is made."""


def transformer(network: Network, *, channels: int, classes: int) -> int:
    """Of `equigrid.generators.dit.network.transformer` on latents of `channels`; one row of the
    table of labels is for none.
    """
    width, patch = network.width, network.patch**2 * channels
    embedding = _linear(_FREQUENCIES, width) + _linear(width, width) + (classes + 1) * width
    attention = 4 * _linear(width, width)
    mlp = _linear(width, 4 * width) + _linear(4 * width, width)
    # The first: shifts, scales and gates of the block's parts.
    block = _linear(width, 6 * width) + attention + mlp
    last = _linear(width, 2 * width) + _linear(width, 2 * patch)
    return _linear(patch, width) + embedding + network.depth * block + last


def autoencoder(vae: VAE, *, channels: int) -> int:
    """Of `equigrid.generators.dit.network.autoencoder` for images of `channels`; the discriminator
    is no part of it.
    """
    latent, first, last = vae.latent_channels, vae.widths[0], vae.widths[-1]
    middle = 2 * _residual(last, last) + (
        2 * last + 4 * _linear(last, last) if vae.attention else 0
    )
    encoder = _conv(channels, first) + _levels(vae.widths, vae.layers_per_block) + middle
    encoder += 2 * last + _conv(last, 2 * latent) + _linear(2 * latent, 2 * latent)
    decoder = _linear(latent, latent) + _conv(latent, last) + middle
    decoder += (
        _levels(vae.widths[::-1], vae.layers_per_block + 1) + 2 * first + _conv(first, channels)
    )
    return encoder + decoder


def transformer_flops(network: Network, *, side: int, channels: int) -> int:
    """Of the transformer on latents of `channels` with this side."""
    width, patch = network.width, network.patch**2 * channels
    tokens = (side // network.patch) ** 2
    # Each block, and the last layer, makes the embedding of the step for itself.
    embedding = 2 * (_FREQUENCIES * width + width**2)
    maps = 2 * 12 * width**2 * tokens  # query, key, value, output; the MLP of four times the width
    block = maps + 4 * tokens**2 * width + 2 * 6 * width**2 + embedding
    last = embedding + 2 * 2 * width**2 + 2 * 2 * patch * width * tokens
    return 2 * patch * width * tokens + network.depth * block + last


def encoder_flops(vae: VAE, *, side: int, channels: int) -> int:
    """Of the autoencoder's first half, for images of `channels` with this side."""
    count, side_now, before = 2 * 9 * channels * vae.widths[0] * side**2, side, vae.widths[0]
    for level, width in enumerate(vae.widths):
        count += _residuals_flops(before, width, vae.layers_per_block, side_now)
        before = width
        if level < len(vae.widths) - 1:
            side_now //= 2
            count += _conv_flops(width, width, side_now)
    out = 2 * vae.latent_channels
    count += _middle_flops(vae, side_now) + _conv_flops(before, out, side_now)
    return count + 2 * out**2 * side_now**2


def decoder_flops(vae: VAE, *, side: int, channels: int) -> int:
    """Of its second half, to images of `channels` with this side."""
    latent, widths = vae.latent_channels, vae.widths[::-1]
    side_now = side // 2 ** (len(widths) - 1)
    count = 2 * latent**2 * side_now**2 + _conv_flops(latent, widths[0], side_now)
    count += _middle_flops(vae, side_now)
    before = widths[0]
    for level, width in enumerate(widths):
        count += _residuals_flops(before, width, vae.layers_per_block + 1, side_now)
        before = width
        if level < len(widths) - 1:
            side_now *= 2
            count += _conv_flops(width, width, side_now)
    return count + _conv_flops(before, channels, side_now)


def discriminator_flops(config: Discriminator, *, side: int, channels: int) -> int:
    """Of `equigrid.generators.dit.network.discriminator`: convolutions of 4×4, padded by one."""
    widths = [config.base_channels * min(2**i, 8) for i in range(config.layers + 1)]
    count, side, before = 0, side // 2, channels
    for i, width in enumerate(widths):
        if i:
            side = side // 2 if i + 1 <= config.layers else side - 1
        count += 2 * 16 * before * width * side**2
        before = width
    return count + 2 * 16 * before * (side - 1) ** 2


def _middle_flops(vae: VAE, side: int) -> int:
    last = vae.widths[-1]
    attention = 2 * 4 * last**2 * side**2 + 4 * side**4 * last
    return _residuals_flops(last, last, 2, side) + (attention if vae.attention else 0)


def _residuals_flops(inputs: int, outputs: int, blocks: int, side: int) -> int:
    """So many residual blocks, the first of which may change the width."""
    count = _conv_flops(inputs, outputs, side) + (2 * blocks - 1) * _conv_flops(
        outputs, outputs, side
    )
    return count + (2 * inputs * outputs * side**2 if inputs != outputs else 0)


def _conv_flops(inputs: int, outputs: int, side: int) -> int:
    return 2 * 9 * inputs * outputs * side**2


def _levels(widths: tuple[int, ...], blocks: int) -> int:
    """`blocks` residual blocks at each width, and between two widths a convolution that halves or
    doubles the size.
    """
    count, before = sum(_conv(width, width) for width in widths[:-1]), widths[0]
    for width in widths:
        count += _residual(before, width) + (blocks - 1) * _residual(width, width)
        before = width
    return count


def _residual(inputs: int, outputs: int) -> int:
    """Two norms, two convolutions, and a skip path where the width changes."""
    count = 2 * inputs + _conv(inputs, outputs) + 2 * outputs + _conv(outputs, outputs)
    return count + (_linear(inputs, outputs) if inputs != outputs else 0)


def _conv(inputs: int, outputs: int) -> int:
    return _linear(9 * inputs, outputs)  # 3x3: a linear map of 9 pixels


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs
