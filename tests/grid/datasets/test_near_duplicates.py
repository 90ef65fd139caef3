"""Near-duplicates: planted ones are found, and what is merely alike is not called one."""

import io
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits

from equigrid.grid.cli import entry
from equigrid.grid.datasets import near_duplicates

PLANTED = 30


def textures(n: int, side: int = 32) -> list[np.ndarray]:
    """Images with the spectrum of photographs, amplitudes falling as 1 / frequency: (side, side, 3)
    uint8.
    """
    draw = np.random.default_rng(0)
    down, right = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    fall = 1 / np.maximum(np.hypot(down, right), 1 / side)
    found = []
    for _ in range(n):
        noise = np.fft.fft2(draw.normal(size=(3, side, side)), axes=(1, 2)) * fall
        waves = np.fft.ifft2(noise, axes=(1, 2)).real.transpose(1, 2, 0)
        spread = (waves - waves.mean()) / waves.std()
        found.append((128 + 40 * spread).clip(0, 255).astype(np.uint8))
    return found


def digits() -> list[np.ndarray]:
    return [np.rint(image * 255 / 16).astype(np.uint8)[..., None] for image in load_digits().images]


def recompressed(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=50)
    return Image.open(file)


def shifted(picture: Image.Image) -> Image.Image:
    step = max(1, picture.width // 16)
    padded = np.pad(np.asarray(picture), ((step, step), (step, step), (0, 0)), mode="edge")
    return Image.fromarray(padded[2 * step :, : -2 * step])


def lighter(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.25)


CHANGES = {"recompressed": recompressed, "shifted": shifted, "lighter": lighter}


def planted(images: list[np.ndarray], change) -> tuple[np.ndarray, set[tuple[int, int]]]:
    """Thumbnails of the images and of changed copies of some, and the pairs that these are."""
    chosen = np.random.default_rng(1).choice(len(images), PLANTED, replace=False)
    copies = []
    for i in chosen:
        pixels = images[i] if images[i].shape[2] == 3 else images[i].repeat(3, axis=2)
        copies.append(np.asarray(change(Image.fromarray(pixels)).convert("RGB")))
    side = near_duplicates.side_of(*images[0].shape[:2])
    every = np.stack([near_duplicates.thumbnail(image, side) for image in [*images, *copies]])
    return every, {(int(i), len(images) + j) for j, i in enumerate(chosen)}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("images", "least"), [(textures(250), 0.96), (digits()[:800], 0.7)], ids=["textures", "digits"]
)
def test_changed_copies_are_found(images, least, change):
    """Digits are alike by themselves, and 8×8 pixels tell little: some of these are not found."""
    every, wanted = planted(images, CHANGES[change])
    found = {tuple(pair) for pair in near_duplicates.find(every).numbers.tolist()}
    assert len(found & wanted) >= least * PLANTED


@pytest.mark.parametrize(
    ("images", "most"), [(textures(400), 0), (digits(), 0.04)], ids=["textures", "digits"]
)
def test_what_is_merely_alike_is_not_called_one(images, most):
    side = near_duplicates.side_of(*images[0].shape[:2])
    every = np.stack([near_duplicates.thumbnail(image, side) for image in images])
    assert len(near_duplicates.find(every).numbers) <= most * len(images)


def test_distances_are_what_is_left_unexplained():
    """The best shift is found, nearest first; brightness and contrast count for nothing."""
    one, other = textures(2)
    grey = near_duplicates.thumbnail(one, 32)
    darker = (grey * 0.5 + 7).astype(np.uint8)
    moved = np.roll(grey, (2, -3), (0, 1))
    stranger = near_duplicates.thumbnail(other, 32)
    found = near_duplicates.find(np.stack([grey, darker, moved, stranger]))
    pairs = [tuple(pair) for pair in found.numbers.tolist()]
    assert set(pairs) == {(0, 1), (0, 2), (1, 2)}
    assert (np.diff(found.distances) >= 0).all() and found.distances[0] < 1e-3


@pytest.mark.parametrize("n", [0, 1, 3])
def test_images_of_one_colour_are_near_duplicates_of_none(n):
    assert not len(near_duplicates.find(np.full((n, 8, 8), 7, np.uint8)).numbers)


@pytest.fixture
def leaking(tmp_path):
    """40 textures in train and 10 in test, of which one is a lighter copy of train's, one a copy
    saved again under another class; and in train one shifted copy, and one that is equal.
    """
    images = [Image.fromarray(image) for image in textures(50)]
    for i, image in enumerate(images):
        split, number = ("train", i) if i < 40 else ("test", i - 40)
        folder = tmp_path / "set" / split / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number:02d}.png")
    root = tmp_path / "set"
    lighter(images[4]).save(root / "test/a/lighter.png")
    recompressed(images[6]).convert("RGB").save(root / "test/b/again.png")
    shifted(images[8]).save(root / "train/a/shifted.png")
    images[10].save(root / "train/a/equal.png")
    return root


def test_inspect_tells_where_they_lie(leaking, capsys):
    assert entry.outcome(["dataset", "inspect", str(leaking), "--near-duplicates", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["duplicates"]["train"] == 1
    near = found["near_duplicates"]
    assert (near["train"], near["train_test"], near["other_class"]) == (1, 2, 1)
    assert {(one, other) for one, other, _ in near["first"]} == {
        ("train/a/04.png", "test/a/lighter.png"),
        ("train/a/06.png", "test/b/again.png"),
        ("train/a/08.png", "train/a/shifted.png"),
    }
    assert entry.outcome(["dataset", "inspect", str(leaking), "--near-duplicates"]) == 0
    text = capsys.readouterr().out
    for part in (
        "near-duplicates: 1 train images nearly repeat an earlier one",
        "near-duplicates: 2 test images nearly repeat one of train",
        "near-duplicates: 1 of them are under another class",
        "test/b/again.png is nearly train/a/06.png",
    ):
        assert part in text


def test_they_are_looked_for_on_request_alone(leaking, capsys):
    assert entry.outcome(["dataset", "inspect", str(leaking), "--json"]) == 0
    assert "near_duplicates" not in json.loads(capsys.readouterr().out)
