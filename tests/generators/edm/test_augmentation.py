"""Non-leaking augmentation: labels, amounts, and what the warps do to pixels."""

import math

import pytest
import torch
import torch.nn.functional as F

from equigrid.generators.edm import augmentation
from equigrid.generators.edm.augmentation import SYM6, apply, draw
from equigrid.generators.edm.config import PUBLISHED_AUGMENTATIONS, Augmentation


def drawn(*kinds: str, probability: float = 1.0, n: int = 4000, size: int = 16, **more):
    chosen = Augmentation(kinds=kinds, probability=probability, **more)
    return draw(chosen, n, size, size, torch.Generator().manual_seed(0))


def smooth(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """Images without fine detail, for which positions between pixels make sense."""
    x = torch.randn(n, 3, size // 4, size // 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(x, size=(size, size), mode="bicubic", align_corners=True)


class TestLabels:
    def test_nine_in_the_published_order(self):
        d = drawn(*PUBLISHED_AUGMENTATIONS, probability=0.12, n=40_000)
        assert d.labels.shape == (40_000, 9)
        assert torch.equal(d.labels[:, 0], d.flip_x.float())
        assert torch.equal(d.labels[:, 1], d.flip_y.float())
        used = (d.labels != 0).float().mean(dim=0)
        # The flip along x is always drawn, that along y with p; half of each shows.
        assert used[0] == pytest.approx(0.5, abs=0.02)
        assert used[1] == pytest.approx(0.06, abs=0.01)
        assert used[2:].tolist() == pytest.approx([0.12] * 5 + [0.12] * 2, abs=0.07)
        assert used[[2, 3, 4, 5, 7, 8]].tolist() == pytest.approx([0.12] * 6, abs=0.01)
        assert used[6] == pytest.approx(0.06, abs=0.01)  # the sine of half of the stretches is zero

    def test_values(self):
        turn = drawn("rotate").labels
        angle = torch.atan2(turn[:, 1], turn[:, 0] + 1)
        assert torch.allclose((turn[:, 0] + 1) ** 2 + turn[:, 1] ** 2, torch.ones(4000), atol=1e-5)
        assert angle.abs().max() > 0.99 * math.pi
        assert angle.std() == pytest.approx(math.pi / math.sqrt(3), rel=0.05)
        for kind in ("scale", "translate"):
            values = drawn(kind).labels
            assert values.std(dim=0).tolist() == pytest.approx([1] * values.shape[1], rel=0.05)

    def test_not_augmented_is_zero(self):
        d = drawn("y_flip", "scale", "rotate", "stretch", "translate", "shift", probability=0.0)
        assert not d.labels.any()
        x = torch.randn(4000, 1, 16, 16)
        assert torch.equal(apply(x, d), x)

    def test_a_part_of_the_draws_gives_a_part_of_the_images(self):
        d = drawn(*PUBLISHED_AUGMENTATIONS, probability=0.8, n=12)
        x = smooth(12, 16)
        assert torch.allclose(apply(x, d)[4:7], apply(x[4:7], d.part(slice(4, 7))), atol=1e-5)


class TestWarps:
    def test_filter_is_orthonormal_to_its_even_shifts(self):
        taps = torch.tensor(SYM6, dtype=torch.float64)
        for shift in range(0, 12, 2):
            product = float((taps[shift:] * taps[: 12 - shift]).sum())
            assert product == pytest.approx(float(shift == 0), abs=1e-12)
        assert float(taps.sum()) == pytest.approx(math.sqrt(2), abs=1e-12)

    def test_identity_is_exact(self):
        x = torch.randn(2, 3, 16, 24)
        assert torch.allclose(augmentation._warped(x, torch.eye(3).expand(2, 3, 3)), x, atol=1e-5)

    @pytest.mark.parametrize(("right", "down"), [(3, 0), (0, 2), (-4, 1)])
    def test_whole_pixel_translation(self, right, down):
        x = smooth(1, 32)
        inverse = torch.eye(3)[None].clone()
        inverse[:, 0, 2], inverse[:, 1, 2] = -right, -down
        moved = augmentation._warped(x, inverse)
        want = torch.roll(x, (down, right), dims=(2, 3))
        inside = (..., slice(6, 26), slice(6, 26))
        assert torch.allclose(moved[inside], want[inside], atol=1e-4)

    @pytest.mark.parametrize(
        ("angle", "turns"), [(math.pi / 2, 1), (math.pi, 2), (-math.pi / 2, -1)]
    )
    def test_quarter_turns_about_the_centre(self, angle, turns):
        x = smooth(1, 32)
        inverse = torch.eye(3)[None].clone()
        inverse[:, :2, :2] = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        turned = augmentation._warped(x, inverse)
        # The filter is nearly, not quite, symmetric: hence a tolerance of an eighth of the
        # deviation.
        assert torch.allclose(turned, torch.rot90(x, turns, dims=(2, 3)), atol=0.1)

    def test_stretch_against_plain_resampling(self):
        x = smooth(1, 32)
        inverse = torch.diag(torch.tensor([1 / 1.5, 1 / 0.8, 1.0]))[None]
        have = augmentation._warped(x, inverse)
        theta = torch.tensor([[[1 / 1.5, 0, 0], [0, 1 / 0.8, 0.0]]])
        grid = F.affine_grid(theta, [1, 3, 32, 32], align_corners=False)
        want = F.grid_sample(
            x, grid, mode="bicubic", padding_mode="reflection", align_corners=False
        )
        inside = (..., slice(8, 24), slice(8, 24))
        assert (have - want)[inside].abs().max() < 0.1

    def test_labels_tell_the_matrix(self):
        """From the labels the warp can be rebuilt: that is what makes it non-leaking.

        Up to one sign that the published labels leave open: -1 octaves along x reads as 1 octave
        along -x.
        """
        d = drawn("scale", "rotate", "stretch", "translate", n=50, size=32)
        for label, inverse in zip(d.labels.tolist(), d.inverse.double()):
            products = [rebuilt(label, sign) @ inverse for sign in (1, -1)]
            assert min(float((p - torch.eye(3).double()).abs().max()) for p in products) < 1e-4


def rebuilt(label: list[float], sign: int) -> torch.Tensor:
    octaves, cos, sin, a, b, right, down = label
    size, angle = 2 ** (0.2 * octaves), math.atan2(sin, cos + 1)
    stretch, along = 2 ** (0.2 * sign * math.hypot(a, b)), math.atan2(b, a)
    return (
        torch.tensor([[1, 0, right * 4], [0, 1, down * 4], [0, 0, 1.0]]).double()
        @ turn(along).T @ torch.diag(torch.tensor([stretch, 1 / stretch, 1]).double()) @ turn(along)
        @ turn(angle).T @ torch.diag(torch.tensor([size, size, 1]).double())
    )  # fmt: skip


def turn(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]).double()


class TestShift:
    def test_moves_by_its_label_and_brings_black(self):
        d = drawn("shift", n=200, size=8, shift_pixels=2)
        x = torch.rand(200, 1, 8, 8)
        y = apply(x, d)
        seen = set()
        for image, moved, (right, down) in zip(x, y, (d.labels * 2).round().int().tolist()):
            want = torch.full_like(image, -1)
            for i in range(8):
                for j in range(8):
                    if 0 <= i - down < 8 and 0 <= j - right < 8:
                        want[:, i, j] = image[:, i - down, j - right]
            assert torch.equal(moved, want)
            seen.add((right, down))
        assert len(seen) == 25


def test_flips():
    d = drawn("x_flip", "y_flip", n=64)
    x = torch.randn(64, 1, 16, 16)
    y = apply(x, d)
    for image, flipped, (along_x, along_y) in zip(x, y, d.labels.tolist()):
        axes = [1 + 1] * int(along_x) + [1] * int(along_y)
        assert torch.equal(flipped, image.flip(axes))
