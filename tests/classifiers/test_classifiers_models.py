"""Networks: parameter counts from the papers, shapes, and option A's shortcut."""

import pytest
import torch

from classifiers.models import build
from classifiers.resnet import BasicBlock, CifarResNet


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "channels", "side", "count"),
    [
        ("digits-cnn", 1, 8, 15_418),
        ("resnet20", 3, 32, 269_722),
        ("resnet110", 3, 32, 1_727_962),
        # torchvision's 25,557,032 with a head of 10 instead of 1,000 classes (2,049 weights each).
        ("resnet50", 3, 32, 25_557_032 - 990 * 2_049),
        # Dosovitskiy et al. 2020's ViT-B/32 at 224: 88,224,232 with 1,000 classes (769 weights each).
        ("vit-b32", 3, 224, 88_224_232 - 990 * 769),
    ],
)
def test_parameter_counts_for_ten_classes(name, channels, side, count):
    module = build(name, classes=10, height=side, width=side, channels=channels)
    assert parameters(module) == count
    module.eval()
    with torch.inference_mode():
        assert module(torch.zeros(2, channels, side, side)).shape == (2, 10)


@pytest.mark.parametrize("side", [8, 28, 31, 33])
def test_cifar_resnet_takes_other_sides(side):
    with torch.inference_mode():
        assert CifarResNet(20, 1, 3).eval()(torch.zeros(1, 1, side, side)).shape == (1, 3)


def test_any_timm_model_by_name():
    module = build("timm/resnet10t", classes=3, height=32, width=32, channels=1)
    with torch.inference_mode():
        assert module.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


def test_option_a_keeps_every_second_pixel_and_pads_channels_with_zeros():
    block = BasicBlock(2, 4, stride=2).eval()
    torch.nn.init.zeros_(block.conv2.weight)  # the residual branch gives 0
    x = torch.arange(2 * 4 * 4, dtype=torch.float32).view(1, 2, 4, 4)
    with torch.inference_mode():
        out = block(x)
    assert torch.equal(out[0, 1:3], x[0, :, ::2, ::2])
    assert out[0, 0].abs().sum() == out[0, 3].abs().sum() == 0


def test_resnet_depth_must_be_6n_plus_2():
    with pytest.raises(ValueError, match=r"6·n \+ 2"):
        CifarResNet(100)
