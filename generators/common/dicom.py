"""DICOM images as their headers say they are to be looked at. pydicom, which is optional, reads
them.
"""

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = frozenset((".dcm", ".dicom", ".dic")) if find_spec("pydicom") else frozenset()
"""Endings that are read here."""
_PREAMBLE, _MAGIC = 128, b"DICM"
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

    header = dcmread(io.BytesIO(data))
    if "PixelData" not in header:
        kind = header.get("Modality", "of no modality")
        raise BadDicom(f"this DICOM file has no pixels ({kind}: a report or a plan?); remove it")
    pages = int(header.get("NumberOfFrames", 1) or 1)
    if page >= pages:
        raise BadDicom(f"it has {pages} frames; page {page + 1} is none of them")
    stored = pixel_array(header, index=page)
    photometric = str(header.get("PhotometricInterpretation", ""))
    if photometric == "PALETTE COLOR":
        stored = _of_palette(stored, header)
    elif photometric in _GREY:
        grey = _windowed(stored, header, levels)
        return Frame(255 - grey if photometric == "MONOCHROME1" else grey, pages)
    if levels:
        raise BadDicom(f"range is for grey images, and this is {photometric}; leave range out")
    if stored.dtype != np.uint8:
        deepest = 2 ** int(header.BitsStored) - 1
        stored = np.rint(stored.astype(np.float64) * (255 / deepest)).astype(np.uint8)
    return Frame(stored, pages)


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
    if levels:
        return _to_bytes((units - levels[0]) / (levels[1] - levels[0]))
    if centre := _first(header.get("WindowCenter")):
        width = _first(header.get("WindowWidth"))
        if width is None:
            raise BadDicom("its header has a WindowCenter without a WindowWidth; set range")
        how = str(header.get("VOILUTFunction", "LINEAR") or "LINEAR")
        return _to_bytes(_window(how)(units, centre[0], width[0]))
    if header.get("VOILUTSequence"):
        item = header.VOILUTSequence[0]
        looked_up = np.asarray(apply_voi(units.astype(stored.dtype), header), np.float64)
        return _to_bytes(looked_up / (2 ** int(item.LUTDescriptor[2]) - 1))
    low, high = _all_that_can_be_stored(stored, header)
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
    """The units of the lowest and the highest value that the file's bits can hold."""
    from pydicom.pixels import apply_modality_lut

    bits, signed = int(header.BitsStored), bool(header.get("PixelRepresentation", 0))
    extremes = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1]
    units = np.asarray(apply_modality_lut(np.array(extremes, stored.dtype), header), np.float64)
    low, high = sorted(units.tolist())
    return low, high if high > low else low + 1


def _to_bytes(share: np.ndarray) -> np.ndarray:
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)
