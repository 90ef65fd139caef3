"""DICOM as its header says it is to be looked at; written by pydicom, computed by hand."""

import io

import numpy as np
import pytest

from equigrid.generators.common import decoding
from equigrid.generators.common.decoding import BrokenImage, decode, decode_and_see, header_size

pydicom = pytest.importorskip("pydicom")

HOUNSFIELD = {"RescaleSlope": "2", "RescaleIntercept": "-1000"}


def dicom(pixels: np.ndarray, *, photometric="MONOCHROME2", bits=12, signed=False, **tags) -> bytes:
    """A file of (H, W), (frames, H, W) or (H, W, 3) pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = Dataset()
    header.file_meta = meta
    header.SOPClassUID, header.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    header.Modality = "CT"
    header.PhotometricInterpretation = photometric
    coloured = photometric in ("RGB", "YBR_FULL")
    header.SamplesPerPixel = 3 if coloured else 1
    if coloured:
        header.PlanarConfiguration = 0
    frames = pixels if pixels.ndim == 3 and not coloured else pixels[None]
    if len(frames) > 1:
        header.NumberOfFrames = len(frames)
    header.Rows, header.Columns = frames.shape[1:3]
    header.BitsStored, header.HighBit = bits, bits - 1
    header.BitsAllocated = 8 if bits <= 8 else 16
    header.PixelRepresentation = int(signed)
    for name, value in tags.items():
        setattr(header, name, value)
    header.PixelData = pixels.astype(
        f"{'i' if signed else 'u'}{header.BitsAllocated // 8}"
    ).tobytes()
    file = io.BytesIO()
    header.save_as(file, enforce_file_format=True)
    return file.getvalue()


RAMP = np.arange(0, 4096, 273, dtype=np.uint16).reshape(4, 4)[:, :4]  # 0 to 4,095 in 16 steps


def grey(data: bytes, **how) -> np.ndarray:
    """(H, W), once all three channels are the same."""
    image = decode(data, **how)
    assert image.dtype == np.uint8 and (image == image[..., :1]).all()
    return image[..., 0]


def test_without_a_window_all_that_can_be_stored_is_black_to_white():
    assert np.array_equal(grey(dicom(RAMP)), np.rint(RAMP / 4095 * 255))
    signed = RAMP.astype(np.int16) - 2048
    assert np.array_equal(grey(dicom(signed, signed=True)), np.rint(RAMP / 4095 * 255))


@pytest.mark.parametrize(
    ("function", "expected"),
    [  # PS3.3 C.11.2.1.2.1, C.11.2.1.3.1 and .2: x in Hounsfield units, centre 40, width 400
        (None, lambda x: (x - 39.5) / 399 + 0.5),
        ("LINEAR", lambda x: (x - 39.5) / 399 + 0.5),
        ("LINEAR_EXACT", lambda x: (x - 40) / 400 + 0.5),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 40) / 400))),
    ],
)
def test_a_window_is_of_the_units_that_slope_and_intercept_give(function, expected):
    stored = np.arange(400, 656, 16).reshape(4, 4)
    tags = {"WindowCenter": "40", "WindowWidth": "400", **HOUNSFIELD}
    tags |= {"VOILUTFunction": function} if function else {}
    wanted = np.rint(255 * np.clip(expected(stored * 2.0 - 1000), 0, 1))
    assert np.array_equal(grey(dicom(stored, **tags)), wanted)
    assert wanted.min() < 40 and wanted.max() > 200


def test_the_first_of_several_windows_counts_and_a_centre_may_be_0():
    stored = np.arange(440, 568, 8).reshape(4, 4)  # -120 to 120 HU
    tags = {"WindowCenter": ["0", "40"], "WindowWidth": ["200", "80"], **HOUNSFIELD}
    wanted = np.rint(255 * np.clip((stored * 2.0 - 1000 + 0.5) / 199 + 0.5, 0, 1))
    assert np.array_equal(grey(dicom(stored, **tags)), wanted)


def test_a_range_takes_the_place_of_the_windows():
    stored = np.arange(400, 656, 16).reshape(4, 4)
    tags = {"WindowCenter": "40", "WindowWidth": "400", **HOUNSFIELD}
    wanted = np.rint(255 * np.clip((stored * 2.0 - 1000 + 100) / 340, 0, 1))
    assert np.array_equal(grey(dicom(stored, **tags), levels=(-100, 240)), wanted)


def test_monochrome1_is_inverted():
    light = grey(dicom(RAMP, photometric="MONOCHROME1"))
    assert np.array_equal(light, 255 - grey(dicom(RAMP)))
    assert light[0, 0] == 255


def test_colours_and_frames():
    colours = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    data = dicom(colours, photometric="RGB", bits=8)
    assert np.array_equal(decode(data), colours)
    assert header_size(io.BytesIO(data)) == (5, 4)
    with pytest.raises(BrokenImage, match="range is for grey images"):
        decode(data, levels=(0, 9))
    stack = dicom(np.stack([RAMP, RAMP // 2, RAMP // 4]))
    image, seen = decode_and_see(stack, page=2)
    assert seen.pages == 3
    assert np.array_equal(image[..., 0], np.rint(RAMP // 2 / 4095 * 255))
    with pytest.raises(BrokenImage, match="it has 3 frames; page 4 is none of them"):
        decode(stack, page=4)


def test_what_is_no_image_or_cut_short_is_told():
    whole = dicom(RAMP)
    with pytest.raises(BrokenImage):
        decode(whole[: len(whole) - 9])
    report = pydicom.dcmread(io.BytesIO(whole))
    del report.PixelData
    file = io.BytesIO()
    report.save_as(file)
    with pytest.raises(BrokenImage, match="this DICOM file has no pixels"):
        decode(file.getvalue())


def test_without_pydicom_it_is_named(monkeypatch):
    monkeypatch.setattr(decoding.dicom, "SUFFIXES", frozenset())
    with pytest.raises(BrokenImage, match="it is DICOM; install pydicom"):
        decode(dicom(RAMP))


def test_an_enhanced_file_has_its_window_in_groups():
    """Of all frames in the one, of each in the other (PS3.3 C.7.6.16)."""
    from pydicom import Dataset

    def group(name: str, **values: str) -> Dataset:
        item, holder = Dataset(), Dataset()
        for key, value in values.items():
            setattr(item, key, value)
        setattr(holder, name, [item])
        return holder

    stored = np.arange(400, 656, 16).reshape(4, 4)
    shared = group("PixelValueTransformationSequence", **HOUNSFIELD)
    own = [group("FrameVOILUTSequence", WindowCenter=at, WindowWidth="400") for at in ("40", "90")]
    data = dicom(
        np.stack([stored, stored]),
        SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=own,
    )  # fmt: skip
    for page, centre in ((1, 40), (2, 90)):
        wanted = np.rint(255 * np.clip((stored * 2.0 - 1000 - centre + 0.5) / 399 + 0.5, 0, 1))
        assert np.array_equal(grey(data, page=page), wanted)


@pytest.mark.parametrize(
    ("slope", "centre", "width", "message"),
    [
        ("0", "2000", "4000", "its slope or table makes 0 to 0 of all that it stores"),
        ("NaN", "2000", "4000", "makes nan to nan"),
        ("inf", "2000", "4000", "makes nan to inf"),
        ("1", "2000", "0", "a window at 2000 of width 0, which shows nothing"),
        ("1", "2000", "-50", "of width -50"),
        ("1", "2000", "nan", "of width nan"),
        ("1", "nan", "4000", "a window at nan"),
        ("1", "2000", "inf", "of width inf"),
    ],
)
def test_a_header_that_would_make_all_one_grey_is_told(slope, centre, width, message):
    data = dicom(RAMP, RescaleSlope="1111", RescaleIntercept="0", WindowCenter="2222", WindowWidth="3333")  # fmt: skip
    for old, new in (("1111", slope), ("2222", centre), ("3333", width)):
        data = data.replace(old.encode(), new.ljust(4).encode())
    with pytest.raises(BrokenImage, match=message):
        decode(data)
