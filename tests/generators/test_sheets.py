"""Sample sheets: every image lies in the row of its class."""

import io

import numpy as np
import pytest
from PIL import Image

from equigrid.generators import previews, registry
from equigrid.generators.common import pools
from equigrid.generators.registry import config
from equigrid.generators.sheets import neighbour_sheet, sheet


def pixels(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)))


def cells(canvas: np.ndarray, side: int, zoom: int, rows: int, columns: int) -> np.ndarray:
    """Cells (rows, columns, side, side, ...) of a canvas with gaps of one pixel, before zooming."""
    small = canvas[::zoom, ::zoom]
    return np.stack(
        [
            np.stack(
                [
                    small[i * (side + 1) + 1 :, j * (side + 1) + 1 :][:side, :side]
                    for j in range(columns)
                ]
            )
            for i in range(rows)
        ]
    )


@pytest.mark.parametrize(("side", "channels", "zoom"), [(8, 1, 4), (32, 3, 1), (28, 3, 2)])
def test_one_row_per_class(side, channels, zoom):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, side, side, channels), dtype=np.uint8)
    labels = rng.integers(0, 3, 30)
    labels[labels == 2] = 0  # class 2 has no image
    found = cells(
        pixels(sheet(images, labels, classes=3, columns=5)), side, zoom, rows=3, columns=5
    )
    shown = images if channels == 3 else images[..., 0]
    for label in (0, 1):
        assert np.array_equal(found[label], shown[labels == label][:5])
    assert (found[2] == 96).all()


def test_neighbours_lie_below_their_samples():
    rng = np.random.default_rng(0)
    samples, neighbours = rng.integers(0, 256, (2, 6, 32, 32, 3), dtype=np.uint8)
    found = cells(pixels(neighbour_sheet(samples, neighbours, columns=4)), 32, 1, rows=4, columns=4)
    assert np.array_equal(found[0], samples[:4])
    assert np.array_equal(found[1], neighbours[:4])
    assert np.array_equal(found[2, :2], samples[4:])
    assert np.array_equal(found[3, :2], neighbours[4:])


@pytest.fixture
def untrained():
    """An EDM of random weights for digits: (weights, options of sampling, configuration)."""
    import torch

    from equigrid.generators.edm.network import initialise
    from equigrid.generators.edm.weights import network_for

    chosen = config({"kind": "edm", "preset": "digits", "sampler": {"steps": 2, "batch": 20}})
    network = network_for(chosen, shape=(8, 8, 1), classes=10).to_empty(device="cpu")
    initialise(network, torch.Generator().manual_seed(0))
    return network.state_dict(), {"classes": 10, "shape": (8, 8, 1), "seed": 4}, chosen


def test_a_preview_shows_the_first_images_of_the_pool(untrained):
    weights, options, chosen = untrained
    ten = chosen.model_copy(update={"sampler": chosen.sampler.model_copy(update={"batch": 10})})
    images, labels = registry.sample(weights, ten, start=0, stop=20, **options)
    assert np.array_equal(labels, pools.labels(4, 0, 20, 10))
    shown = previews.preview({"average": weights}, chosen, columns=2, budget_s=1e9, **options)
    assert shown == sheet(images, labels, classes=10, columns=2)


def test_a_preview_out_of_time_has_one_column(untrained):
    weights, options, chosen = untrained
    one = previews.preview({"average": weights}, chosen, columns=8, budget_s=0, **options)
    assert pixels(one).shape == (10 * 9 * 4 + 4, 9 * 4 + 4)


def test_a_preview_of_many_classes_shows_some_in_few_steps(untrained, monkeypatch):
    asked = []

    def sample(weights, config, *, start, stop, **options):
        asked.append((config.sampler.steps, config.compute.compile, stop))
        return np.zeros((stop - start, 8, 8, 1), np.uint8), np.arange(start, stop) * 3

    monkeypatch.setattr(registry, "sample", sample)
    long = config({"kind": "edm", "sampler": {"steps": 250}, "compute": {"compile": "on"}})
    shown = previews.preview({"average": {}}, long, classes=1000, shape=(8, 8, 1), seed=0)
    assert asked == [(12, "off", 100)]
    assert pixels(shown).shape == (100 * 9 * 4 + 4, 9 * 4 + 4)


def test_nothing_to_preview(untrained):
    assert previews.preview({"step": 3}, untrained[2], **untrained[1]) is None
    imported = config({"kind": "imported", "path": "x"})
    assert previews.preview({"average": {}}, imported, **untrained[1]) is None


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 8, 8, 4), np.uint8), np.zeros(2, int), "1 or 3"),
        (np.zeros((2, 8, 8, 1)), np.zeros(2, int), "float64"),
        (np.zeros((2, 8, 8, 1), np.uint8), np.zeros(3, int), "one label per image"),
    ],
)
def test_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        sheet(images, labels, classes=2)
