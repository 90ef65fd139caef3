"""Encoded images as people keep them, decoded to one form: uint8 RGB. Pillow and numpy, and pydicom
for what is DICOM.
"""

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import PurePath
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from equigrid.generators.common import dicom

_ORIENTATION = ExifTags.Base.Orientation
# Of TIFF 6.0.
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339
_UNSIGNED, _SIGNED = 1, 2

_BULK = (0.005, 0.995)
_NOT_DECODED = frozenset(("BUFR", "EPS", "FITS", "GRIB", "HDF5", "IPTC", "MPEG", "PSD", "WMF"))
"""Formats that Pillow knows by name and, by itself, does not decode; or not rightly: of FITS it
passes over sign and zero, of PSD over the alpha of grey ones, and takes black for white in bitmaps.
"""


class BrokenImage(ValueError):
    """The bytes are no image, or one that is cut short."""


class Seen(NamedTuple):
    """What decoding an image passes over: worth telling of a whole set.

    levels: the lowest and the highest of an image with more than 8 bits a pixel, before they were
    brought to 8, without the half percent at either end: a hot pixel says nothing of the others.
    pages: of a stack or an animation, of which one is taken. coloured: whether the levels are those
    of colours, of which only the highest 8 bits can be read.
    """

    levels: tuple[int, int] | None = None
    pages: int = 1
    coloured: bool = False


MOST_PIXELS = 89_478_485
"""Of an image, from which Pillow warns: 268 MB once it is RGB."""
_BLOCK_PIXELS = 2**20  # of a large image, converted at once: between forms it needs many times more
# Pixels that one image draws, some again and again: a file of kilobytes could cost minutes.
_MOST_DRAWN = 20 * MOST_PIXELS
_MOST_PAGES = 10_000  # of a TIFF: to count so many takes Pillow some seconds, of more the square
_MOST_SCANS = 1000  # of a JPEG: cameras write 1 to 10


def _formats() -> list[str]:
    """What is decoded, whatever a file is named: EPS and WMF would run another program."""
    Image.init()
    return [form for form in Image.OPEN if form not in _NOT_DECODED]


def _check_size(size: tuple[int, int]) -> None:
    """Before anything is decoded. Raises BrokenImage."""
    width, height = size
    if width * height > MOST_PIXELS:
        what = f"it has {width:,} × {height:,} pixels; {MOST_PIXELS:,} are the most"
        raise BrokenImage(f"{what}: scale it down, or cut it into tiles")


@cache
def image_suffixes() -> frozenset[str]:
    """Endings of files that Pillow, with the plugins it has here, decodes: `.png`, `.avif` …, and
    those of DICOM where pydicom is installed.
    """
    Image.init()
    known = Image.registered_extensions().items()
    return (
        frozenset(
            suffix for suffix, form in known if form in Image.OPEN and form not in _NOT_DECODED
        )
        | dicom.SUFFIXES
    )


def is_image_name(name: str) -> bool:
    """Whether a file of this name claims to be an image: by its suffix, and no hidden file such as
    `._x.jpg`.
    """
    path = PurePath(name)
    return path.suffix.lower() in image_suffixes() and not path.name.startswith(".")


def decode(
    data: bytes | None,
    size: int | None = None,
    *,
    levels: tuple[float, float] | None = None,
    page: int | None = None,
) -> np.ndarray:
    """An encoded image as (H, W, 3) uint8 RGB: upright (EXIF), alpha over white, 16-bit grey scaled
    to 8 bits.

    size: the short side is resized to it and the centre cropped to size × size, see `square`.
    levels: of grey images, the lowest becomes 0, the highest 255, what is beyond is clipped. page:
    which image of a stack or an animation, from 1 on; None: the first. DICOM is windowed as its
    header says, see `dicom.read`. Colour profiles are not applied. Raises BrokenImage.
    """
    return decode_and_see(data, size, levels=levels, page=page)[0]


def decode_and_see(
    data: bytes | None,
    size: int | None = None,
    *,
    levels: tuple[float, float] | None = None,
    page: int | None = None,
) -> tuple[np.ndarray, Seen]:
    """`decode`, and what was passed over."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise BrokenImage(f"there are no bytes, but {data!r:.40}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged tag, an odd palette: told by nobody else
            # Icons hold images of other sizes than they say.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if dicom.is_dicom(data):
                height, width = _dicom_size(io.BytesIO(data)) or (0, 0)
                _check_size((width, height))
                frame = dicom.read(bytes(data), levels=levels, page=(page or 1) - 1)
                seen = Seen(None, frame.pages)
                picture = Image.fromarray(frame.pixels).convert("RGB")
            else:
                picture, pages, deep_colours, inverted = _opened(data, page or 1)
                found = (
                    _extremes(picture, deep_colours) if deep_colours or _is_deep(picture) else None
                )
                seen = Seen(found, pages, deep_colours)
                picture = _rgb(picture, levels)
                picture = ImageOps.invert(picture) if inverted else picture
    except (BrokenImage, MemoryError):
        raise
    except Image.DecompressionBombWarning as error:
        height, width = header_size(io.BytesIO(data)) or (0, 0)
        _check_size((width, height))
        raise BrokenImage("it holds a larger image than it says; save it again") from error
    except UnidentifiedImageError as error:
        raise BrokenImage(_instead_of_an_image(bytes(data[:200]))) from error
    except Exception as error:
        # Pillow's plugins raise nearly anything on damaged bytes: struct.error, IndexError …
        raise BrokenImage(" ".join(str(error).split()) or type(error).__name__) from error
    return np.asarray(picture if size is None else square(picture, size)), seen


def _instead_of_an_image(start: bytes) -> str:
    """What bytes are that no kind of image begins with."""
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the image; run git lfs pull"
    if start.lstrip()[:9].lower() in (b"<!doctype", b"<html>") or b"<html" in start.lower():
        return "a web page, not an image; download it again"
    return "no kind of image that is known"


def _opened(data: bytes | bytearray | memoryview, page: int) -> tuple[Image.Image, int, bool, bool]:
    """An image, upright, how many lie in its file, whether its colours had 16 bits each, and
    whether its lowest level is white.
    """
    with Image.open(io.BytesIO(data), formats=_formats()) as opened:
        _check_size(opened.size)
        if isinstance(opened, TiffImageFile):
            _check_chain(data)
        pages = getattr(opened, "n_frames", 1)
        if page > pages:
            raise BrokenImage(f"it has {pages} pages or frames; page {page} is none of them")
        _seek(opened, page)
        _check_size(opened.size)  # pages differ
        _check_scans(opened, data)
        deep_colours = opened.mode in ("RGB", "RGBA") and _has_16_bits(opened)
        inverted = isinstance(opened, TiffImageFile) and _white_is_zero(opened)
        raw = str(opened.tile[0][3]) if opened.tile else ""
        opened.load()
        _check_transparent_level(opened, raw)
        # Programs of games leave its alpha 0: each image would be a white one.
        alpha = opened.getchannel("A") if (opened.format, opened.mode) == ("TGA", "RGBA") else None
        if alpha and not alpha.getbbox():
            raise BrokenImage("all of it is transparent; save it without alpha, or remove it")
        return ImageOps.exif_transpose(opened), pages, deep_colours, inverted


def _check_chain(data: bytes | bytearray | memoryview) -> None:
    """Raises BrokenImage for a TIFF of more pages than are counted, or whose pages go round."""
    order = ">" if data[:2] == b"MM" else "<"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43  # BigTIFF
    first, entries, place, each = (8, "Q", "Q", 20) if big else (4, "H", "I", 12)
    pages = 0
    with suppress(struct.error, OverflowError):  # beyond the end of the file: Pillow says so
        (at,) = struct.unpack_from(f"{order}{place}", data, first)
        while at:
            pages += 1
            if pages > _MOST_PAGES:
                raise BrokenImage(f"it has more than {_MOST_PAGES:,} pages; save them as images")
            (n,) = struct.unpack_from(f"{order}{entries}", data, at)
            after = at + struct.calcsize(f"{order}{entries}") + each * n
            (at,) = struct.unpack_from(f"{order}{place}", data, after)


def _white_is_zero(opened: TiffImageFile) -> bool:
    """Whether the lowest level of a TIFF is white and Pillow leaves it so, as it does beyond 8
    bits. Raises BrokenImage for kinds of which it makes other levels than are in the file.
    """
    tags = opened.tag_v2
    bits, form = tags.get(_BITS, (1,))[0], tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0]
    packed = opened.tile[0][0] == "libtiff"
    why = ""
    if bits == 8 and form == _SIGNED:
        why = "with signed bytes"
    elif bits == 16 and len(opened.getbands()) > 1 and tags.get(_PLANES, 1) == 2 and not packed:
        why = "with 16 bits and a plane for each colour"
    elif opened.mode in ("I", "F") and packed and opened.tag_v2.prefix == b"MM":
        why = "compressed and big-endian"
    elif opened.mode == "I" and form == _UNSIGNED and bits == 32:
        why = "with levels beyond 2,147,483,647" if np.asarray(opened).min() < 0 else ""
    if why:
        raise BrokenImage(f"a TIFF {why} is misread here; save it with unsigned 16 bits, or 8")
    return _is_deep(opened) and tags.get(_PHOTOMETRIC) == 0


def _check_transparent_level(opened: Image.Image, raw: str) -> None:
    """Of a PNG, one level or colour may be transparent. It is told in the file's own bits, and
    Pillow brings the pixels to 8: so must it be. raw: how the pixels lay in the file. Raises
    BrokenImage where that cannot be.
    """
    level = opened.info.get("transparency")
    if opened.format != "PNG" or level is None:
        return
    if ";16" in raw:
        raise BrokenImage("one of its 16-bit colours is transparent; save it with an alpha channel")
    if (bits := {"L;2": 2, "L;4": 4}.get(raw)) is not None:
        opened.info["transparency"] = level * 255 // (2**bits - 1)


def _seek(opened: Image.Image, page: int) -> None:
    """To a page, or to a frame, for which all frames before it are drawn. Raises BrokenImage where
    that would take minutes.
    """
    drawn = page if opened.format not in ("TIFF", "MPO") else 1
    if drawn > 1 and drawn * opened.width * opened.height > _MOST_DRAWN:
        what = f"frame {page} of {opened.width:,} × {opened.height:,} pixels"
        raise BrokenImage(f"{what} is drawn over all frames before it; save the frames as images")
    if page > 1:  # the first is there; a SPIDER file of one image cannot seek
        opened.seek(page - 1)


def _check_scans(opened: Image.Image, data: bytes | bytearray | memoryview) -> None:
    """Raises BrokenImage for a JPEG that is drawn over and over."""
    if opened.format not in ("JPEG", "MPO"):
        return
    scans = bytes(data).count(b"\xff\xda")  # no pixel is written so
    if scans > _MOST_SCANS or scans * opened.width * opened.height > _MOST_DRAWN:
        raise BrokenImage(f"it is drawn in {scans:,} scans; save it again, not progressive")


def header_size(data: BinaryIO | str, *, page: int | None = None) -> tuple[int, int] | None:
    """(height, width) that an image's header tells, upright; None where it tells none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if (found := _dicom_size(data)) is not None:
                return found
            # Opening an icon decodes it, and it may hold a larger image than it says.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            try:
                return _upright_size(data, _formats(), page)
            except Image.DecompressionBombWarning:
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                plain = [name for name in _formats() if name not in ("ICO", "ICNS", "CUR")]
                return _upright_size(data, plain, page)
    except Exception:
        return None  # a broken image: whoever decodes it says so


def _upright_size(
    data: BinaryIO | str, formats: list[str], page: int | None
) -> tuple[int, int] | None:
    if not isinstance(data, str):
        data.seek(0)
    with Image.open(data, formats=formats) as opened:
        _seek(opened, page or 1)
        width, height = opened.size
        # A PNG is decoded whole for its EXIF; a square is the same however it is turned.
        if width == height or width * height > MOST_PIXELS:
            return height, width
        # Of a TIFF, Pillow tells the size upright.
        turned = opened.format != "TIFF" and opened.getexif().get(_ORIENTATION, 1) in range(5, 9)
    return (width, height) if turned else (height, width)


def _dicom_size(data: BinaryIO | str) -> tuple[int, int] | None:
    """None where it is no DICOM file, or nothing reads such here."""
    if not dicom.SUFFIXES:
        return None
    if isinstance(data, str):
        with open(data, "rb") as file:
            return _dicom_size(file)
    head = data.read(132)
    data.seek(0)
    return dicom.size(data) if dicom.is_dicom(head) else None


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


def _is_deep(picture: Image.Image) -> bool:
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def _has_16_bits(opened: Image.Image) -> bool:
    """Whether the raw pixels of an image that is not loaded yet have 16 bits a channel."""
    tiles = getattr(opened, "tile", None) or ()
    return any(";16" in str(tile[3]) for tile in tiles)


def _extremes(picture: Image.Image, deep_colours: bool) -> tuple[int, int] | None:
    """Levels of 16 bits. deep_colours: of which Pillow has kept the highest 8."""
    values = np.asarray(picture)
    if not np.isfinite(values).all():
        return None
    if deep_colours:
        values = values[..., :3]
    if values.dtype.itemsize <= 2:  # what quantiles would copy is counted
        counts = np.zeros(2**16, np.int64)
        for top, bottom in _blocks(picture.size):
            counts += np.bincount(values[top:bottom].reshape(-1), minlength=2**16)
        places = np.rint(np.multiply(_BULK, values.size - 1)).astype(np.int64)
        low, high = np.searchsorted(np.cumsum(counts), places, side="right")
    else:
        low, high = np.quantile(values, _BULK, method="nearest")
    return (int(low) * 257, int(high) * 257) if deep_colours else (int(low), int(high))


def _rgb(picture: Image.Image, levels: tuple[float, float] | None) -> Image.Image:
    if levels:
        picture = _windowed(picture, *levels)
    elif picture.mode == "F":
        right = "save it with 8 or 16 bits, or set range: [lowest, highest]"
        raise BrokenImage(f"its pixels are floating-point numbers of no known range; {right}")
    elif _is_deep(picture):
        picture = _eight_bits(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    result = Image.new("RGB", picture.size)
    for top, bottom in _blocks(picture.size):
        part = picture.crop((0, top, picture.width, bottom)).convert("RGBA")
        white = Image.new("RGBA", part.size, (255, 255, 255, 255))
        result.paste(Image.alpha_composite(white, part).convert("RGB"), (0, top))
    return result


def _blocks(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """(first row, row after the last) of the parts of an image (width, height) converted at
    once.
    """
    width, height = size
    step = max(1, _BLOCK_PIXELS // max(1, width))
    return ((top, min(top + step, height)) for top in range(0, height, step))


def _windowed(picture: Image.Image, low: float, high: float) -> Image.Image:
    """Grey levels to 8 bits: `low` becomes 0, `high` 255; what is beyond is clipped."""
    if picture.mode not in ("1", "L") and not _is_deep(picture):
        raise BrokenImage(f"range is for grey images, and this is {picture.mode}; leave range out")
    values = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    if not np.isfinite(values).all():
        raise BrokenImage("it has pixels that are no numbers (NaN or infinity)")
    result = np.empty(values.shape, np.uint8)
    for top, bottom in _blocks(picture.size):
        scaled = (values[top:bottom].astype(np.float64) - low) * (255 / (high - low))
        result[top:bottom] = np.rint(scaled.clip(0, 255))
    return Image.fromarray(result)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits: 65,535 becomes 255."""
    levels = np.asarray(picture)
    if levels.min() < 0 or levels.max() > 65_535:
        found = f"its grey levels run from {levels.min()} to {levels.max()}"
        raise BrokenImage(
            f"{found}; 0 to 65535 can be converted, others with range: [lowest, highest]"
        )
    result = np.empty(levels.shape, np.uint8)
    for top, bottom in _blocks(picture.size):
        result[top:bottom] = np.rint(levels[top:bottom] / 257)
    return Image.fromarray(result)
