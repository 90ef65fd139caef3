"""Encoded images as users bring them: each kind of pixel becomes what its owner sees, or is told to
be broken.
"""

import io

import numpy as np
import pytest
from PIL import Image

from equigrid.generators.common.decoding import BrokenImage, decode, is_image_name, resized


def encoded(array: np.ndarray, mode: str | None = None, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(array)
    if mode:
        picture = picture.quantize(4) if mode == "P" else picture.convert(mode)
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


def flat(*levels, dtype=np.uint8) -> np.ndarray:
    return np.dstack([np.full((4, 4), level, dtype) for level in levels]).squeeze()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(flat(77)), (77, 77, 77)),  # greyscale
        (encoded(flat(77 * 257, dtype=np.uint16)), (77, 77, 77)),  # 16 bits
        (encoded(flat(77 * 257, dtype=np.uint16), format="TIFF"), (77, 77, 77)),
        (encoded(flat(77 * 257, dtype=np.int32), format="TIFF"), (77, 77, 77)),  # 16 bits in 32
        (encoded(flat(9, 8, 7, 255)), (9, 8, 7)),  # opaque alpha
        (encoded(flat(0, 0, 0, 0)), (255, 255, 255)),  # clear: white
        (encoded(flat(0, 0, 0, 128)), (127, 127, 127)),  # half clear
        (encoded(flat(0, 0), "LA"), (255, 255, 255)),  # grey and clear
        (encoded(flat(200, 10, 30), "P"), (200, 10, 30)),  # palette
        # Palette with a clear colour.
        (encoded(flat(200, 10, 30), "P", transparency=0), (255, 255, 255)),
        (encoded(flat(0, 0, 0), "1"), (0, 0, 0)),  # one bit
        (encoded(flat(9, 8, 7), format="WEBP", lossless=True), (9, 8, 7)),
        (encoded(flat(9, 8, 7), format="GIF"), (9, 8, 7)),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(data, expected):
    image = decode(data)
    assert image.shape == (4, 4, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.reshape(-1, 3).astype(int) - expected).max() <= 1


def test_all_16_bit_levels_go_to_the_nearest_of_256():
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = (levels.astype(float) * 255 / 65535 + 0.5).astype(int)
    assert (decode(encoded(levels))[..., 0] == expected).all()


def test_cmyk_jpeg_is_converted():
    data = encoded(np.full((16, 16, 3), (200, 40, 60), np.uint8), "CMYK", "JPEG", quality=95)
    assert np.abs(decode(data).astype(int) - (200, 40, 60)).max() <= 6


# For each EXIF orientation, where the stored top left corner belongs: (row, column) of the upright
# image.
@pytest.mark.parametrize(
    ("orientation", "shape", "corner"),
    [
        (1, (4, 6), (0, 0)), (2, (4, 6), (0, -1)), (3, (4, 6), (-1, -1)), (4, (4, 6), (-1, 0)),
        (5, (6, 4), (0, 0)), (6, (6, 4), (0, -1)), (7, (6, 4), (-1, -1)), (8, (6, 4), (-1, 0)),
    ],
)  # fmt: skip
def test_exif_rotation_is_applied(orientation, shape, corner):
    stored = np.zeros((4, 6, 3), np.uint8)
    stored[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(encoded(stored, exif=exif))
    assert upright.shape == (*shape, 3)
    assert upright[corner].tolist() == [255, 255, 255]
    assert upright.sum() == 3 * 255


def test_size_resizes_the_short_side_and_crops_the_centre():
    wide = np.zeros((20, 40, 3), np.uint8)
    wide[:, 10:30] = 255  # exactly the central square
    assert (decode(encoded(wide), 10) >= 250).mean() > 0.75
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    assert (decode(encoded(tall), 10) == decode(encoded(wide), 10).transpose(1, 0, 2)).all()
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    small = decode(encoded(checks.astype(np.uint8)), 16)
    # Antialiased: a fine check becomes grey, not black or white.
    assert np.abs(small.astype(int) - 127).max() < 40
    assert decode(encoded(flat(1, 2, 3)), 8).shape == (8, 8, 3)  # a smaller one is enlarged


def test_arrays_are_resized_as_pictures_are():
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    assert (resized(images, 8) == [decode(encoded(image), 8) for image in images]).all()
    assert resized(images[..., :1], 8).shape == (3, 8, 8, 1)
    grey = resized(images[..., :1], 8)[0, ..., 0]
    assert (decode(encoded(images[0, ..., 0]), 8)[..., 0] == grey).all()
    assert resized(images, 16) is images


@pytest.mark.parametrize(
    "data",
    [
        b"", b"not an image", None, encoded(flat(1, 2, 3))[:50], encoded(flat(1, 2, 3), format="JPEG")[:-20],
        encoded(flat(1, 2, 3), format="GIF")[:20], encoded(flat(1, 2, 3), format="TIFF")[:60],
        encoded(flat(0.5, dtype=np.float32), format="TIFF"), encoded(flat(70_000, dtype=np.int32), format="TIFF"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_broken_images_are_told(data):
    with pytest.raises(BrokenImage) as error:
        decode(data)
    assert str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_anywhere_gives_a_whole_image_or_is_told():
    """Whatever Pillow's plugins raise on damaged bytes, it is BrokenImage."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    told = 0
    for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        whole = encoded(pixels, format=format)
        for _ in range(40):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 4):
                damaged[place] = rng.integers(256)
            try:
                assert decode(bytes(damaged)).dtype == np.uint8
            except BrokenImage:
                told += 1
    assert told > 40


def test_names_that_claim_to_be_images():
    yes = ("a.png", "a.JPEG", "x/a.Jpg", "a.tiff", "a.b.webp")
    no = ("notes.txt", ".DS_Store", "Thumbs.db", "._a.png", ".png", "png", "a.json")
    assert all(map(is_image_name, yes))
    assert not any(map(is_image_name, no))
