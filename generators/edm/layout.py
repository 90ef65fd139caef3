"""The blocks of the DDPM++ U-Net, as data: one list that the network is built from and checks read.

Free of torch, so that a spec can be validated and a network's size be known without it.
Karras et al. 2022 (EDM), Table 8 and Appendix F.3; Song et al. 2021, Appendix H (DDPM++).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """One residual block: `resample` is None, "down" or "up"; `skip` joins an encoder output
    first.
    """

    name: str
    c_in: int
    c_out: int
    resample: str | None = None
    attention: bool = False
    skip: bool = False


@dataclass(frozen=True)
class Layout:
    stem: str
    """Name of the first convolution, e.g. "32x32_conv"."""
    encoder: tuple[Block, ...]
    decoder: tuple[Block, ...]
    head: str
    """Prefix of the last norm and convolution, e.g. "32x32_aux"."""
    width: int
    """Channels of the stem's output."""
    width_out: int
    """Channels of the last block's output."""


def groups(channels: int) -> int:
    """Groups of a group norm: at least 4 channels in each, at most 32 groups."""
    return min(32, channels // 4)


def layout(
    *,
    height: int,
    width: int,
    model_channels: int,
    channel_mult: tuple[int, ...],
    num_blocks: int,
    attn_resolutions: tuple[int, ...],
) -> Layout:
    """The blocks in order of computation.

    Raises ValueError for a size the network cannot take, and for one of attn_resolutions that is no
    level's height.
    """
    if model_channels % 2:
        raise ValueError(
            f"model_channels {model_channels} must be even: noise levels enter as sines and cosines"
        )
    levels = len(channel_mult)
    factor = 2 ** (levels - 1)
    if height % factor or width % factor or min(height, width) < 8:
        raise ValueError(
            f"image size {height}x{width}: an EDM network of {levels} levels takes heights and "
            f"widths from 8 up that are divisible by {factor}"
        )
    heights = [height >> level for level in range(levels)]
    for resolution in attn_resolutions:
        if resolution not in heights:
            have = ", ".join(map(str, heights))
            raise ValueError(
                f"attn_resolutions {resolution}: no level has this height; the levels have {have}"
            )

    def size(level: int) -> str:
        return f"{height >> level}x{width >> level}"

    def attends(level: int) -> bool:
        return heights[level] in attn_resolutions

    encoder: list[Block] = []
    channels = model_channels
    skips = [channels]
    for level, mult in enumerate(channel_mult):
        if level > 0:
            encoder.append(Block(f"{size(level)}_down", channels, channels, resample="down"))
            skips.append(channels)
        for i in range(num_blocks):
            c_out = model_channels * mult
            encoder.append(
                Block(f"{size(level)}_block{i}", channels, c_out, attention=attends(level))
            )
            channels = c_out
            skips.append(channels)

    decoder: list[Block] = []
    for level, mult in reversed(list(enumerate(channel_mult))):
        if level == levels - 1:
            # The middle attends whatever the resolution.
            decoder.append(Block(f"{size(level)}_in0", channels, channels, attention=True))
            decoder.append(Block(f"{size(level)}_in1", channels, channels))
        else:
            decoder.append(Block(f"{size(level)}_up", channels, channels, resample="up"))
        for i in range(num_blocks + 1):
            # One block more than in the encoder; only the level's last one attends.
            attention = i == num_blocks and attends(level)
            c_out = model_channels * mult
            name = f"{size(level)}_block{i}"
            decoder.append(
                Block(name, channels + skips.pop(), c_out, attention=attention, skip=True)
            )
            channels = c_out
    for block in (*encoder, *decoder):
        _check_groups(block.c_in)
        _check_groups(block.c_out)
    return Layout(
        stem=f"{size(0)}_conv",
        encoder=tuple(encoder),
        decoder=tuple(decoder),
        head=f"{size(0)}_aux",
        width=model_channels,
        width_out=channels,
    )


def parameters(
    blocks: Layout, *, image_channels: int, classes: int, augment_labels: int, embedding_mult: int
) -> int:
    """Trained values of the network with these blocks; image_channels are those of the stem."""
    embedding = blocks.width * embedding_mult
    count = _linear(classes, blocks.width) + augment_labels * blocks.width
    count += _linear(blocks.width, embedding) + _linear(embedding, embedding)
    # A 3x3 convolution is a linear map of 9 pixels.
    count += _linear(9 * image_channels, blocks.width)
    count += 2 * blocks.width_out + _linear(9 * blocks.width_out, image_channels)
    return count + sum(
        _block_parameters(block, embedding) for block in (*blocks.encoder, *blocks.decoder)
    )


def _block_parameters(block: Block, embedding: int) -> int:
    c_in, c_out = block.c_in, block.c_out
    count = (
        2 * c_in
        + _linear(9 * c_in, c_out)
        + _linear(embedding, c_out)
        + 2 * c_out
        + _linear(9 * c_out, c_out)
    )
    if c_in != c_out or block.resample is not None:
        count += _linear(c_in, c_out)
    if block.attention:
        count += 2 * c_out + _linear(c_out, 3 * c_out) + _linear(c_out, c_out)
    return count


def flops(blocks: Layout, *, image_channels: int, classes: int, embedding_mult: int) -> int:
    """Floating-point operations of one forward pass of one image, a multiplication and an addition
    counted as two; image_channels are those of the stem.

    Of convolutions, matrix products and attention alone, as torch's FlopCounterMode counts them.
    Without augmentation labels, which sampling does not have.
    """
    embedding = blocks.width * embedding_mult
    count = 2 * (classes * blocks.width + blocks.width * embedding + embedding**2)
    pixels = _pixels(blocks.stem)
    count += 2 * 9 * image_channels * (blocks.width + blocks.width_out) * pixels
    return count + sum(
        _block_flops(block, embedding) for block in (*blocks.encoder, *blocks.decoder)
    )


def _block_flops(block: Block, embedding: int) -> int:
    c_in, c_out, pixels = block.c_in, block.c_out, _pixels(block.name)
    count = 2 * embedding * c_out + 2 * 9 * (c_in + c_out) * c_out * pixels
    if c_in != c_out or block.resample is not None:
        count += 2 * c_in * c_out * pixels
    if block.attention:  # its two products are pixels × pixels, its maps 1×1 convolutions
        count += 2 * 4 * c_out**2 * pixels + 2 * 2 * pixels**2 * c_out
    return count


def _pixels(name: str) -> int:
    """Of a block's output, by its name: "16x16_down" has 256."""
    height, width = name.partition("_")[0].split("x")
    return int(height) * int(width)


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs


def _check_groups(channels: int) -> None:
    if channels < 4 or channels % groups(channels):
        raise ValueError(
            f"a block of {channels} channels cannot be normalised in {max(groups(channels), 1)} "
            "groups: choose model_channels divisible by 4, and by 32 from 128 on"
        )
