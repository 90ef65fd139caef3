"""Counted operations of classifiers are those that torch counts on networks without values."""

import pytest

from equigrid.classifiers import flops
from equigrid.classifiers.names import MODELS


@pytest.mark.parametrize("name", flops.COUNTED)
def test_the_table_is_what_is_counted_anew(name):
    side, count = flops.COUNTED[name]
    assert flops.count_anew(name, side, side, 3) == count
    assert flops.forward(name, side, side, 3).per_image == count


def test_every_model_of_ours_is_in_the_table():
    assert set(flops.COUNTED) == set(MODELS)


@pytest.mark.parametrize(
    ("name", "height", "width", "channels"),
    [("resnet20", 48, 32, 1), ("resnet50", 96, 128, 3), ("vit-b32", 160, 192, 3)],
)
def test_other_sizes_go_by_the_pixels(name, height, width, channels):
    counted = flops.count_anew(name, height, width, channels)
    assert flops.forward(name, height, width, channels).per_image == pytest.approx(
        counted, rel=0.03
    )


def test_any_other_of_timms_is_counted_on_the_spot():
    found = flops.forward("timm/resnet18", 64, 64, 3)
    assert found.wide
    # 1.81 billion multiplications and additions at 224×224, as timm lists it.
    assert found.per_image == pytest.approx(2 * 1.81e9 * (64 / 224) ** 2, rel=0.02)
    assert flops.forward("timm/no-such-network", 64, 64, 3) is None
