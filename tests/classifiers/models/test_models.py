"""Networks: parameter counts from the papers, shapes, and option A's shortcut."""

import pytest
import torch

from equigrid.classifiers.models import build, check
from equigrid.classifiers.models.resnet import BasicBlock, CifarResNet


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
        # Dosovitskiy et al. 2020's ViT-B/32 at 224: 88,224,232 with 1,000 classes (769 weights
        # each).
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


@pytest.mark.parametrize(
    ("name", "size", "refusal"),
    [
        ("vit_tiny_patch16_224", (32, 32, 3), "224×224"),
        ("swin_tiny_patch4_window7_224", (64, 64, 3), "224×224"),
        ("inception_v3", (32, 32, 3), "299×299"),  # not fixed, but its last map has no pixel left
        # The size that it sees, as after a resized crop.
        ("vit_tiny_patch16_224", (224, 224, 1), None),
        ("convnext_atto", (37, 41, 1), None),
        ("mobilenetv3_small_050", (32, 32, 3), None),
        ("xcit_nano_12_p8_224", (64, 64, 3), None),  # fixed by timm's word, but takes it
    ],
)
def test_timm_models_are_checked_for_the_size_they_see(name, size, refusal):
    if refusal is None:
        check(f"timm/{name}", *size, classes=10)
        return
    with pytest.raises(ValueError, match=refusal) as raised:
        check(f"timm/{name}", *size, classes=10)
    assert f"timm/{name} cannot take {'×'.join(map(str, size))}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_timms_own_size_is_taken_without_building(monkeypatch):
    monkeypatch.setattr("timm.create_model", None)
    check("timm/swin_small_patch4_window7_224", 224, 224, 3, classes=10)


def test_a_check_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    check("timm/resnet14t", 40, 40, 3, classes=10)
    assert torch.equal(state, torch.get_rng_state())


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
