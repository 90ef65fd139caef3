"""DICOM images as their headers say they are to be looked at. pydicom, which is optional, reads
them.
"""

import io
import math
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = frozenset((".dcm", ".dicom", ".dic")) if find_spec("pydicom") else frozenset()
"""Endings that are read here."""
_PREAMBLE, _MAGIC = 128, b"DICM"
_HEAD_BYTES, _DEFLATED = 2**12, b"1.2.840.10008.1.2.1.99"
# Of a file that is compressed as a whole: all of that is unpacked for its header too.
MOST_BYTES, _FEW_BYTES, _UNPACKS = 2**29, 2**26, 100
_BLOCK_PIXELS = 2**20
_GREY = ("MONOCHROME1", "MONOCHROME2")


class BadDicom(ValueError):
    """One line: why a DICOM file gives no image."""


class Frame(NamedTuple):
    """One image of a file: (H, W) or (H, W, 3) uint8, and of how many in the file."""

    pixels: np.ndarray
    pages: int


def is_dicom(data: bytes | memoryview) -> bool:
    """Whether bytes begin as a DICOM file does."""
    return bytes(data[_PREAMBLE : _PREAMBLE + len(_MAGIC)]) == _MAGIC


def size(data: BinaryIO) -> tuple[int, int]:
    """(height, width) that a file's header tells. Raises whatever pydicom does."""
    from pydicom import dcmread

    _check_packed(data)
    header = dcmread(data, stop_before_pixels=True)
    return int(header.Rows), int(header.Columns)


def read(data: bytes, *, levels: tuple[float, float] | None, page: int) -> Frame:
    """An image as its header says it is to be looked at.

    Stored values become units by the header's slope or table (CT: Hounsfield units), and grey
    levels by its first window (PS3.3 C.11.2.1.2) or table; without either all that the file can
    store becomes black to white. MONOCHROME1 is inverted. levels: a window in those units instead,
    of which the lowest becomes black. page: from 0 on. Raises BadDicom, and whatever pydicom does.
    """
    if not SUFFIXES:
        raise BadDicom("it is DICOM; install pydicom (equigrid[dicom])")
    from pydicom import dcmread
    from pydicom.pixels import pixel_array

    _check_packed(file := io.BytesIO(data))
    header = dcmread(file)
    if "PixelData" not in header:
        kind = header.get("Modality", "of no modality")
        raise BadDicom(f"this DICOM file has no pixels ({kind}: a report or a plan?); remove it")
    pages = int(header.get("NumberOfFrames", 1) or 1)
    if page >= pages:
        raise BadDicom(f"it has {pages} frames; page {page + 1} is none of them")
    stored = pixel_array(header, index=page)
    _take_from_groups(header, page)
    photometric = str(header.get("PhotometricInterpretation", ""))
    if photometric == "PALETTE COLOR":
        stored = _of_palette(stored, header)
    elif photometric in _GREY:
        grey = np.empty(stored.shape, np.uint8)
        for rows in _row_blocks(stored.shape):
            grey[rows] = _windowed(stored[rows], header, levels)
        return Frame(255 - grey if photometric == "MONOCHROME1" else grey, pages)
    if levels:
        raise BadDicom(f"range is for grey images, and this is {photometric}; leave range out")
    if stored.dtype != np.uint8:
        deepest, deep = 2 ** int(header.BitsStored) - 1, stored
        stored = np.empty(deep.shape, np.uint8)
        for rows in _row_blocks(deep.shape):
            stored[rows] = np.rint(deep[rows].astype(np.float64) * (255 / deepest))
    return Frame(stored, pages)


def _take_from_groups(header: "Dataset", page: int) -> None:
    """Brings up slope, intercept and window to where files of one frame have them: of several, they
    may be those of all frames or of each (PS3.3 C.7.6.16).
    """
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    for group in (*shared[:1], *own[page : page + 1]):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in (group.get(name) or ())[:1]:
                header.update(item)


def _row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows converted at once: as units, in 64 bits, an image needs many times more."""
    step = max(1, _BLOCK_PIXELS // max(1, shape[1]))
    return (slice(top, top + step) for top in range(0, shape[0], step))


def _check_packed(file: BinaryIO) -> None:
    """Raises BadDicom for a file, compressed as a whole, that unpacks to far more than it
    is: pydicom unpacks it into memory, for the header alone too. Leaves `file` where it was.
    """
    place = file.tell()
    head = file.read(_HEAD_BYTES)
    if _DEFLATED in head:
        # The group's length (0002,0000) is its first element, in the last 4 of 12 bytes (PS3.10).
        start = _PREAMBLE + len(_MAGIC) + 12
        begin = place + start + int.from_bytes(head[start - 4 : start], "little")
        unpacker, whole = zlib.decompressobj(-zlib.MAX_WBITS), 0
        most = min(MOST_BYTES, _FEW_BYTES + _UNPACKS * file.seek(0, io.SEEK_END))
        file.seek(begin)
        while (packed := unpacker.unconsumed_tail or file.read(2**20)) and not unpacker.eof:
            whole += len(unpacker.decompress(packed, 2**24))
            if whole > most:
                raise BadDicom(f"it unpacks to more than {most:,} bytes; is it damaged?")
    file.seek(place)


def _of_palette(stored: np.ndarray, header: "Dataset") -> np.ndarray:
    from pydicom.pixels import apply_color_lut

    coloured = apply_color_lut(stored, header)
    return coloured if coloured.dtype == np.uint8 else (coloured >> 8).astype(np.uint8)


def _windowed(
    stored: np.ndarray, header: "Dataset", levels: tuple[float, float] | None
) -> np.ndarray:
    """(H, W) uint8, before MONOCHROME1 is inverted."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    units = np.asarray(apply_modality_lut(stored, header), np.float64)
    low, high = _all_that_can_be_stored(stored, header)
    if levels:
        return _to_bytes((units - levels[0]) / (levels[1] - levels[0]))
    if centre := _first(header.get("WindowCenter")):
        width = _first(header.get("WindowWidth"))
        if width is None:
            raise BadDicom("its header has a WindowCenter without a WindowWidth; set range")
        if not (math.isfinite(centre[0]) and 0 < width[0] < math.inf):
            what = f"a window at {centre[0]:g} of width {width[0]:g}"
            raise BadDicom(f"its header has {what}, which shows nothing; set range")
        how = str(header.get("VOILUTFunction", "LINEAR") or "LINEAR")
        return _to_bytes(_window(how)(units, centre[0], width[0]))
    if header.get("VOILUTSequence"):
        item = header.VOILUTSequence[0]
        looked_up = np.asarray(apply_voi(units.astype(stored.dtype), header), np.float64)
        return _to_bytes(looked_up / (2 ** int(item.LUTDescriptor[2]) - 1))
    return _to_bytes((units - low) / (high - low))


def _first(value: Any) -> tuple[float] | None:
    """The first of one or several numbers, in a tuple, since a window's centre may be 0."""
    if value is None or value == "":
        return None
    several = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return (float(several[0]),)


def _window(how: str) -> Callable[[np.ndarray, float, float], np.ndarray]:
    """From units to 0 (black) to 1, by a window's centre and width."""
    if how == "LINEAR":
        return lambda x, centre, width: (x - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
    if how == "LINEAR_EXACT":
        return lambda x, centre, width: (x - centre) / max(width, 1e-9) + 0.5
    if how == "SIGMOID":
        return lambda x, centre, width: 1 / (1 + np.exp(-4 * (x - centre) / width))
    raise BadDicom(f"its header has the window function {how!r}, which is unknown; set range")


def _all_that_can_be_stored(stored: np.ndarray, header: "Dataset") -> tuple[float, float]:
    """The units of the lowest and the highest value that the file's bits can hold. Raises BadDicom
    where slope and intercept, or a table, make them one, or no numbers.
    """
    from pydicom.pixels import apply_modality_lut

    bits, signed = int(header.BitsStored), bool(header.get("PixelRepresentation", 0))
    extremes = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1]
    units = np.asarray(apply_modality_lut(np.array(extremes, stored.dtype), header), np.float64)
    low, high = sorted(units.tolist())
    if not (math.isfinite(high - low) and high > low):
        what = f"its slope or table makes {low:g} to {high:g} of all that it stores"
        raise BadDicom(f"{what}; mend its header")
    return low, high


def _to_bytes(share: np.ndarray) -> np.ndarray:
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)
