"""Trained values of the networks, counted without building them: free of torch."""

from equigrid.generators.dit.parts import VAE, Network

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
