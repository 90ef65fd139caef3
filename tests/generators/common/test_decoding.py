"""Large images are converted in parts, to the same pixels; what would cost minutes is refused."""

import io
import struct
import time
import zlib

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


def tiff(levels: np.ndarray, *, packed: bool = False, big: bool = False, **tags: int) -> bytes:
    """A TIFF of one strip from (H, W) or (H, W, 3) levels; for planes, of (3, H, W). tags: their
    values in place of what the levels tell.
    """
    order, planes = ">" if big else "<", tags.get("planes", 1) == 2
    height, width = levels.shape[1:] if planes else levels.shape[:2]
    bands, bits = (3 if levels.ndim == 3 else 1), 8 * levels.dtype.itemsize
    strip = levels.astype(levels.dtype.newbyteorder(order)).tobytes()
    strip = zlib.compress(strip) if packed else strip
    form = {"u": 1, "i": 2, "f": 3}[levels.dtype.kind]
    n, parts = 11, 3 if planes else 1
    after = 8 + 2 + 12 * n + 4
    starts = [after + 24 + len(strip) // parts * i for i in range(parts)]
    many = struct.pack(f"{order}{parts}I", *starts).ljust(12, b"\0")
    many += struct.pack(f"{order}{parts}I", *[len(strip) // parts] * parts).ljust(12, b"\0")
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 8 if packed else 1),
        (262, 3, 1, tags.get("photometric", 2 if bands == 3 else 1)), (273, 4, parts, after if planes else starts[0]),
        (274, 3, 1, tags.get("orientation", 1)), (277, 3, 1, bands), (279, 4, parts, after + 12 if planes else len(strip)),
        (284, 3, 1, tags.get("planes", 1)), (339, 3, 1, form),
    ]  # fmt: skip
    assert len(entries) == n
    head = struct.pack(f"{order}2sHIH", b"MM" if big else b"II", 42, 8, n)
    for tag, kind, count, value in entries:
        one = struct.pack(f"{order}H2x" if kind == 3 else f"{order}I", value)
        head += struct.pack(f"{order}HHI", tag, kind, count) + one
    return head + bytes(4) + many + strip


def chain(pages: int, *, big: bool = False, round_: bool = False) -> bytes:
    """A TIFF, or a BigTIFF, of many pages of one pixel each."""
    tags = [
        (256, 4, 1),
        (257, 4, 1),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 1),
        (279, 4, 1),
    ]
    entry, count, place = ("<HHQQ", "<Q", "<Q") if big else ("<HHII", "<H", "<I")
    content = b"".join(struct.pack(entry, tag, kind, 1, value) for tag, kind, value in tags)
    each = struct.calcsize(count) + len(content) + struct.calcsize(place)
    head = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    )
    begin = len(head)
    after = [begin + (i + 1) * each for i in range(pages - 1)] + [begin if round_ else 0]
    page = [struct.pack(count, len(tags)) + content + struct.pack(place, at) for at in after]
    return head + b"".join(page)


@pytest.mark.parametrize("big", [False, True])
def test_the_pages_of_a_tiff_are_counted_within_bounds(big):
    """Pillow takes the square of their number: 24 MB took many minutes."""
    _, seen = decoding.decode_and_see(chain(300, big=big))
    assert seen.pages == 300
    began_s = time.process_time()
    for data in (chain(50_000, big=big), chain(3, big=big, round_=True)):
        with pytest.raises(BrokenImage, match="more than 10,000 pages; save them as images"):
            decode(data)
    assert time.process_time() - began_s < 2


LEVELS = np.random.default_rng(5).integers(0, 2**16, (5, 7)).astype(np.uint16)
EIGHT = np.rint(LEVELS / 257).astype(np.uint8)


@pytest.mark.parametrize("packed", [False, True])
def test_levels_of_a_tiff_of_which_0_is_white(packed):
    """Pillow inverts those of 8 bits alone."""
    light = tiff(LEVELS, photometric=0, packed=packed)
    assert np.array_equal(decode(light)[..., 0], 255 - EIGHT)
    assert np.array_equal(decode(tiff(LEVELS, packed=packed))[..., 0], EIGHT)
    assert np.array_equal(decode(light, levels=(0, 65_535))[..., 2], 255 - EIGHT)
    eight = tiff(EIGHT, photometric=0, packed=packed)
    assert np.array_equal(decode(eight)[..., 0], 255 - EIGHT)
    numbers = tiff(LEVELS.astype(np.float32), photometric=0, packed=packed)
    assert np.array_equal(decode(numbers, levels=(0, 65_535))[..., 1], 255 - EIGHT)


MISREAD = {
    "with signed bytes": tiff(EIGHT.view(np.int8)),
    "with 16 bits and a plane for each colour": tiff(np.stack([LEVELS] * 3), planes=2),
    "compressed and big-endian": tiff(LEVELS.astype(np.float32), packed=True, big=True),
    "with levels beyond 2,147,483,647": tiff(LEVELS.astype(np.uint32) * 65_537),
}


@pytest.mark.parametrize("why", MISREAD)
def test_a_tiff_that_would_be_misread_is_broken(why):
    with pytest.raises(BrokenImage, match=f"a TIFF {why} is misread here"):
        decode(MISREAD[why], levels=(0, 65_535))


def test_tiffs_like_those_that_are_misread_are_read():
    for numbers in (LEVELS.astype(np.float32), LEVELS.astype(np.int32)):
        for big, packed in ((False, False), (False, True), (True, False)):
            data = tiff(numbers, big=big, packed=packed)
            assert np.array_equal(decode(data, levels=(0, 65_535))[..., 0], EIGHT)
    planes = tiff(np.stack([EIGHT, EIGHT // 2, EIGHT // 3]), planes=2)
    assert np.array_equal(decode(planes)[..., 2], EIGHT // 3)
    assert np.array_equal(decode(tiff(LEVELS.astype(np.uint32)))[..., 0], EIGHT)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_of_a_turned_tiff_is_that_of_its_pixels(orientation):
    data = tiff(EIGHT, orientation=orientation)
    turned = EIGHT.T if orientation > 4 else EIGHT
    pixels = decode(data)
    assert header_size(io.BytesIO(data)) == pixels.shape[:2] == turned.shape
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0)}[(orientation - 1) % 4 + 1]
    corner = (
        corner if orientation < 5 else {5: (0, 0), 6: (-1, 0), 7: (-1, -1), 8: (0, -1)}[orientation]
    )
    assert pixels[0, 0, 0] == EIGHT[corner]


def png(rows: list[bytes], bits: int, colour: int, transparent: tuple[int, ...]) -> bytes:
    """Of 4 pixels a row, one colour of which is transparent."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    facts = struct.pack(">IIBBBBB", 4, len(rows), bits, colour, 0, 0, 0)
    level = struct.pack(f">{len(transparent)}H", *transparent)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = (b"IHDR", facts), (b"tRNS", level), (b"IDAT", packed), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("level", range(4))
def test_a_level_of_a_png_that_is_transparent_is_told_in_its_bits(level):
    greys = [0, 85, 170, 255]
    greys[level] = 255
    assert decode(png([b"\x1b"], 2, 0, (level,)))[0, :, 0].tolist() == greys
    assert decode(png([b"\x05\xaf"], 4, 0, (level * 5,)))[0, :, 0].tolist() == greys


def test_a_transparent_colour_of_16_bits_is_not_passed_over():
    for colour, transparent in ((0, (7,)), (2, (7, 7, 7))):
        row = b"".join(struct.pack(">H", i) for i in range(4 * len(transparent)))
        with pytest.raises(BrokenImage, match="one of its 16-bit colours is transparent"):
            decode(png([row], 16, colour, transparent))


def test_an_alpha_that_nobody_filled_in_makes_no_white_image():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4), np.uint8)
    pixels[..., 3] = 0
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 4, 6, 32, 0x20)
    with pytest.raises(BrokenImage, match="all of it is transparent; save it without alpha"):
        decode(head + pixels.tobytes())
    pixels[5, 3] = (10, 20, 30, 255)
    empty = io.BytesIO()  # as tiles beside a tissue are
    Image.new("RGBA", (4, 6)).save(empty, "PNG")
    assert (decode(empty.getvalue()) == 255).all()
    found = decode(head + pixels.tobytes())
    assert found[5, 3].tolist() == [30, 20, 10] and (found[:5] == 255).all()


@pytest.mark.parametrize("ending", [".fits", ".psd"])
def test_kinds_that_pillow_misreads_are_no_images(ending):
    assert ending not in decoding.image_suffixes() and ".tiff" in decoding.image_suffixes()


def test_an_image_of_which_there_is_one_need_not_seek(tmp_path):
    Image.fromarray(EIGHT).convert("F").save(tmp_path / "x.spi", "SPIDER")
    data = (tmp_path / "x.spi").read_bytes()
    assert np.array_equal(decode(data, levels=(0, 255))[..., 0], EIGHT)
