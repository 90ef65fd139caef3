"""Large images are converted in parts, to the same pixels; what would cost minutes is refused."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from equigrid.generators.common import decoding
from equigrid.generators.common.decoding import BrokenImage, decode, header_size


def encoded(mode: str, form: str = "png") -> bytes:
    """13 × 7 pixels of any values, of a palette with transparent entries for `P`."""
    draw = np.random.default_rng(3)
    if mode == "I;16":
        picture = Image.fromarray(draw.integers(0, 2**16, (7, 13), np.uint16))
    elif mode == "F":
        picture = Image.fromarray(draw.normal(0, 1000, (7, 13)).astype(np.float32))
    else:
        channels = {"RGBA": 4, "LA": 2, "RGB": 3, "P": 1, "L": 1}[mode]
        pixels = draw.integers(0, 256, (7, 13, channels), np.uint8)
        picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode=None)
    file, more = io.BytesIO(), {}
    if mode == "P":
        picture = picture.convert("RGB").quantize(16)
        more = {"transparency": bytes(range(0, 256, 16))}
    picture.save(file, form, **more)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "P", "L", "I;16", "F"])
@pytest.mark.parametrize("levels", [None, (100, 3000)])
def test_parts_of_an_image_are_those_of_the_whole(monkeypatch, mode, levels):
    data = encoded(mode, "tiff" if mode == "F" else "png")

    def read() -> object:
        try:
            pixels, seen = decoding.decode_and_see(data, levels=levels)
            return pixels.tolist(), seen
        except decoding.BrokenImage as error:
            return str(error)

    whole = read()
    for block in (1, 13, 40):
        monkeypatch.setattr(decoding, "_BLOCK_PIXELS", block)
        assert read() == whole


@pytest.mark.parametrize("n", [1, 2, 91, 400, 1000])
def test_levels_are_counted_as_quantiles_are(n):
    values = np.random.default_rng(n).integers(0, 2**16, (1, n), np.uint16)
    found = decoding._extremes(Image.fromarray(values), False)
    expected = np.quantile(values, decoding._BULK, method="nearest")
    assert found == tuple(map(int, expected))


def a_gif_of_many_frames(width: int, height: int, frames: int) -> bytes:
    """Each one pixel that is drawn on the whole."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes([0] * 3 + [255] * 3)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frames * frame + b";"


def test_a_frame_for_which_thousands_are_drawn_is_refused_at_once():
    data = a_gif_of_many_frames(9000, 9000, 3000)
    began_s = time.process_time()
    with pytest.raises(BrokenImage, match=r"frame 2000 of 9,000 × 9,000 pixels is drawn over all"):
        decode(data, page=2000)
    assert header_size(io.BytesIO(data), page=2000) is None
    assert time.process_time() - began_s < 2
    assert decode(a_gif_of_many_frames(90, 60, 3000), page=2000).shape == (60, 90, 3)
    assert header_size(io.BytesIO(data)) == (9000, 9000)
