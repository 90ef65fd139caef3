"""Encoded images as people keep them, decoded to one form: uint8 RGB. Pillow and numpy alone."""

import io
from pathlib import PurePath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = frozenset(
    (
        ".bmp",
        ".gif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    )
)


class BrokenImage(ValueError):
    """The bytes are no image, or one that is cut short."""


def is_image_name(name: str) -> bool:
    """Whether a file of this name claims to be an image: by its suffix, and no hidden file such as
    `._x.jpg`.
    """
    path = PurePath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def decode(data: bytes, size: int | None = None) -> np.ndarray:
    """An encoded image as (H, W, 3) uint8 RGB: upright (EXIF), alpha over white, 16-bit grey scaled
    to 8 bits.

    size: the short side is resized to it and the centre cropped to size × size, see `square`.
    Colour profiles are not applied; of an animation the first frame is taken. Raises BrokenImage.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BrokenImage(f"there are no bytes, but {data!r:.40}")
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            picture = _rgb(ImageOps.exif_transpose(opened))
    except (BrokenImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage("no kind of image that is known") from error
    except Exception as error:
        # Pillow's plugins raise nearly anything on damaged bytes: struct.error, IndexError …
        raise BrokenImage(" ".join(str(error).split()) or type(error).__name__) from error
    return np.asarray(picture if size is None else square(picture, size))


def square(picture: Image.Image, size: int) -> Image.Image:
    """The central square of a picture, resized to size × size (bicubic, antialiased)."""
    if picture.size == (size, size):
        return picture
    return ImageOps.fit(picture, (size, size), method=Image.Resampling.BICUBIC)


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Images (N, H, W, C) uint8 with 1 or 3 channels, as `square` makes them: (N, size, size, C)
    uint8.
    """
    if images.shape[1:3] == (size, size):
        return images
    result = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for image, place in zip(images, result):
        small = square(Image.fromarray(image if image.shape[2] == 3 else image[..., 0]), size)
        place[...] = np.asarray(small).reshape(place.shape)
    return result


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        picture = _eight_bits(picture)
    if picture.mode == "F":
        raise BrokenImage(
            "its pixels are floating-point numbers of no known range; save it with 8 or 16 bits"
        )
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits: 65,535 becomes 255."""
    levels = np.asarray(picture).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65_535:
        raise BrokenImage(
            f"its grey levels run from {levels.min()} to {levels.max()}; 0 to 65535 can be converted"
        )
    return Image.fromarray(np.rint(levels / 257).astype(np.uint8))
