"""The EDM network against the published one: names, shapes, and every equation, written out
anew.
"""

import csv
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from equigrid.generators.edm import network as net
from equigrid.generators.edm.layout import groups, layout
from equigrid.generators.edm.weights import load, network_for
from equigrid.generators.registry import config

STATE_DICT = Path(__file__).parent / "data" / "edm_cifar10_state_dict.tsv"


def published_names(kind: str) -> dict[str, tuple[int, ...]]:
    with open(STATE_DICT) as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {
            r["name"]: tuple(map(int, r["shape"].split("x"))) for r in rows if r["kind"] == kind
        }


def small(classes: int = 5, augment: int = 9, channels: int = 3, height: int = 16, width: int = 16):
    """A network of every kind of block, all its parameters random: (network, its layout)."""
    blocks = layout(
        height=height,
        width=width,
        model_channels=16,
        channel_mult=(1, 2, 2),
        num_blocks=2,
        attn_resolutions=(8,),
    )
    made = net.EDMNetwork(
        blocks, image_channels=channels, classes=classes, augment_labels=augment, dropout=0.3
    )
    generator = torch.Generator().manual_seed(1)
    net.initialise(made, generator)
    with torch.no_grad():  # of size 1, so that no part of the network is invisible in the output
        for p in made.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return made, blocks


class TestPublishedShape:
    def test_names_shapes_and_count_are_those_of_the_released_network(self):
        network = network_for(
            config({"kind": "edm", "preset": "cifar10"}), shape=(32, 32, 3), classes=10
        )
        have = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        assert have == published_names("parameter")
        assert list(have) == list(published_names("parameter"))
        assert sum(p.numel() for p in network.parameters()) == 55_735_299

    def test_released_state_dict_with_filters_loads(self):
        cifar10 = config({"kind": "edm", "preset": "cifar10"})
        network = network_for(cifar10, shape=(32, 32, 3), classes=10)
        weights = {
            name: torch.zeros(1).expand(shape)
            for name, shape in published_names("parameter").items()
        }
        weights |= {
            name: torch.full(shape, 0.25) for name, shape in published_names("buffer").items()
        }
        load(network, weights)

    @pytest.mark.parametrize(
        ("size", "channels", "count"),
        [((8, 8), 1, 93_969), ((16, 8), 3, None), ((24, 40), 1, None)],
    )
    def test_sizes_from_8_up(self, size, channels, count):
        given = {"kind": "edm", "preset": "digits"}
        if size != (8, 8):
            given["network"] = {"channel_mult": [1, 1, 2], "num_blocks": 1}
        made = network_for(config(given), shape=(*size, channels), classes=10).to_empty(
            device="cpu"
        )
        net.initialise(made, torch.Generator().manual_seed(0))
        x = torch.randn(2, channels, *size)
        assert made(x, torch.ones(2), torch.tensor([0, 9])).shape == x.shape
        if count:
            assert sum(p.numel() for p in made.parameters()) == count

    def test_attention_lies_where_published(self):
        cifar10 = config({"kind": "edm"}).layout(32, 32)
        assert [b.name for b in (*cifar10.encoder, *cifar10.decoder) if b.attention] == [
            "16x16_block0", "16x16_block1", "16x16_block2", "16x16_block3", "8x8_in0", "16x16_block4",
        ]  # fmt: skip


def reference(
    state: dict,
    blocks,
    x: torch.Tensor,
    sigma: torch.Tensor,
    labels: torch.Tensor,
    augment,
    sigma_data: float,
    dropout=None,
) -> torch.Tensor:
    """D(x; sigma) in float64 from a state dict, after the papers: an index at a time, no torch
    modules.
    """
    state = {name.removeprefix("model."): value.double() for name, value in state.items()}

    def linear(name, v):
        out = torch.einsum("oi,ni->no", state[f"{name}.weight"], v)
        return out + state[f"{name}.bias"] if f"{name}.bias" in state else out

    def conv(name, v):
        weight = state[f"{name}.weight"]
        k = weight.shape[-1]
        n, _, h, w = v.shape
        padded = torch.zeros(n, v.shape[1], h + k - 1, w + k - 1, dtype=v.dtype)
        padded[:, :, k // 2 : k // 2 + h, k // 2 : k // 2 + w] = v
        out = state[f"{name}.bias"].view(1, -1, 1, 1)
        for i in range(k):
            for j in range(k):
                out = out + torch.einsum(
                    "oc,nchw->nohw", weight[:, :, i, j], padded[:, :, i : i + h, j : j + w]
                )
        return out

    def group_norm(name, v):
        n, c, h, w = v.shape
        count = min(32, c // 4)
        grouped = v.reshape(n, count, -1)
        mean = grouped.mean(2, keepdim=True)
        var = (grouped - mean).square().mean(2, keepdim=True)
        normal = ((grouped - mean) / (var + 1e-6).sqrt()).reshape(n, c, h, w)
        return normal * state[f"{name}.weight"].view(1, -1, 1, 1) + state[f"{name}.bias"].view(
            1, -1, 1, 1
        )

    def silu(v):
        return v / (1 + (-v).exp())

    def down(v):
        return (
            v[:, :, ::2, ::2] + v[:, :, 1::2, ::2] + v[:, :, ::2, 1::2] + v[:, :, 1::2, 1::2]
        ) / 4

    def up(v):
        return v.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    def attention(name, v):
        n, c, h, w = v.shape
        qkv = conv(f"{name}.qkv", group_norm(f"{name}.norm2", v)).reshape(n, 3 * c, h * w)
        q, k, value = qkv[:, 0::3], qkv[:, 1::3], qkv[:, 2::3]
        logits = torch.einsum("ncq,nck->nqk", q, k) / c**0.5
        weight = logits.exp() / logits.exp().sum(2, keepdim=True)
        return conv(f"{name}.proj", torch.einsum("nqk,nck->ncq", weight, value).reshape(n, c, h, w))

    def block(part, of, v, emb, depth):
        name = f"{part}.{of.name}"
        move = {None: lambda u: u, "down": down, "up": up}[of.resample]
        y = conv(f"{name}.conv0", move(silu(group_norm(f"{name}.norm0", v))))
        y = y + linear(f"{name}.affine", emb)[:, :, None, None]
        y = silu(group_norm(f"{name}.norm1", y))
        y = conv(f"{name}.conv1", y if dropout is None else dropout(y, depth))
        v = move(v)
        v = conv(f"{name}.skip", v) if f"{name}.skip.weight" in state else v
        v = (v + y) * 0.5**0.5
        return (v + attention(name, v)) * 0.5**0.5 if of.attention else v

    x, sigma = x.double(), sigma.double()
    s = sigma.view(-1, 1, 1, 1)
    total = s**2 + sigma_data**2
    # Mapping: [sin, cos] of ln(sigma) / 4, classes scaled by sqrt(classes), augmentation labels as
    # they are.
    half = blocks.width // 2
    angles = [sigma.log() / 4 * 10_000 ** (-i / (half - 1)) for i in range(half)]
    embedding = torch.stack([a.sin() for a in angles] + [a.cos() for a in angles], dim=1)
    classes = state["map_label.weight"].shape[1]
    one_hot = torch.zeros(len(labels), classes, dtype=torch.float64)
    one_hot[torch.arange(len(labels)), labels] = classes**0.5
    embedding = embedding + linear("map_label", one_hot)
    if augment is not None:
        embedding = embedding + linear("map_augment", augment.double())
    embedding = silu(linear("map_layer1", silu(linear("map_layer0", embedding))))
    v = conv(f"enc.{blocks.stem}", x / total.sqrt())
    skips = [v]
    for depth, of in enumerate(blocks.encoder):
        v = block("enc", of, v, embedding, depth)
        skips.append(v)
    for depth, of in enumerate(blocks.decoder, start=len(blocks.encoder)):
        if v.shape[1] != of.c_in:
            v = torch.cat([v, skips.pop()], dim=1)
        v = block("dec", of, v, embedding, depth)
    raw = conv(f"dec.{blocks.head}_conv", silu(group_norm(f"dec.{blocks.head}_norm", v)))
    return sigma_data**2 / total * x + s * sigma_data / total.sqrt() * raw


class TestPublishedEquations:
    """Parameters are of size 1, so each wrong constant or order changes the output by far more than
    rounding.
    """

    @pytest.mark.parametrize(
        ("augmented", "layout"),
        [
            (False, torch.contiguous_format),
            (True, torch.contiguous_format),
            (True, torch.channels_last),
        ],
    )
    def test_network_equals_the_equations(self, augmented, layout):
        made, blocks = small()
        made = made.to(memory_format=layout)
        generator = torch.Generator().manual_seed(2)
        x = 3 * torch.randn(4, 3, 16, 16, generator=generator).contiguous(memory_format=layout)
        sigma = torch.tensor([0.002, 0.3, 2.0, 80.0])
        labels = torch.tensor([0, 4, 2, 1])
        augment = torch.randn(4, 9, generator=generator) if augmented else None
        with torch.no_grad():
            have = made(x, sigma, labels, augment)
            want = reference(made.state_dict(), blocks, x, sigma, labels, augment, sigma_data=0.5)
        scale = want.abs().amax(dim=(1, 2, 3), keepdim=True)
        assert ((have - want).abs() / scale).max() < 2e-5  # float32 through 20 blocks
        assert scale.min() > 0.1

    def test_dropout_sits_before_the_second_convolution_and_is_unbiased(self):
        made, blocks = small()
        x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
        keys = torch.tensor([11, 12], dtype=torch.int32)
        masks = lambda y, depth: net.drop(y, 0.3, net.fold(keys, depth))  # noqa: E731
        with torch.no_grad():
            have = made(x, torch.ones(2), torch.tensor([0, 1]), None, keys)
            want = reference(
                made.state_dict(), blocks, x, torch.ones(2), torch.tensor([0, 1]), None, 0.5, masks
            )
            without = made(x, torch.ones(2), torch.tensor([0, 1]))
        assert (have - want).abs().max() / want.abs().max() < 2e-5
        assert (have - without).abs().max() > 1e-2

    def test_preconditioning_at_its_ends(self):
        """Table 1: at small sigma the input passes, at large sigma the network's output, scaled by
        sigma_data.
        """
        made, _ = small()
        made.eval()
        x = torch.randn(1, 3, 16, 16)
        with torch.no_grad():
            assert torch.allclose(made(x, torch.tensor([1e-6]), torch.tensor([0])), x, atol=1e-4)
            big = made(1e4 * x, torch.tensor([1e4]), torch.tensor([0]))
            raw = made.model(x, torch.tensor([math.log(1e4) / 4]), torch.tensor([0]), None, None)
        assert torch.allclose(big, 0.5 * raw, atol=1e-3)

    def test_groups_are_of_four_channels_and_at_most_32(self):
        assert [groups(c) for c in (16, 48, 128, 256, 512)] == [4, 12, 32, 32, 32]


class TestAttention:
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_a_fused_kernel_takes_it(self, layout, monkeypatch):
        """The kernels refuse inputs whose channels do not lie side by side, and say so to
        nobody.
        """
        seen, real = [], F.scaled_dot_product_attention
        qkv = torch.randn(2, 3 * 16, 4, 8, generator=torch.Generator().manual_seed(0)).contiguous(
            memory_format=layout
        )

        def watched(q, k, v):
            seen.append(torch._fused_sdp_choice(q, k, v))
            return real(q, k, v)

        monkeypatch.setattr(net.F, "scaled_dot_product_attention", watched)
        have = net.attention(qkv)
        assert seen == [1]  # flash attention; 0 is the plain products
        q, k, v = (qkv[:, i::3].flatten(2) for i in range(3))  # (N, C, HW)
        weights = (q.mT @ k / 4).softmax(2)  # 4: the root of 16 channels
        assert torch.allclose(have.flatten(2), v @ weights.mT, atol=1e-5)


class TestPatches:
    def test_patches_are_channels_of_a_smaller_network(self):
        made, blocks = small(channels=12)
        patched = net.EDMNetwork(
            blocks, image_channels=3, classes=5, augment_labels=9, dropout=0.3, patch=2
        )
        patched.load_state_dict(made.state_dict())
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
        sigma, labels = torch.tensor([0.3, 2.0]), torch.tensor([1, 4])
        # (N, 3, 16, 2, 16, 2) -> channel 4 c + 2 row + column
        squares = x.reshape(2, 3, 16, 2, 16, 2).permute(0, 1, 3, 5, 2, 4).reshape(2, 12, 16, 16)
        with torch.no_grad():
            want = (
                made(squares, sigma, labels)
                .reshape(2, 3, 2, 2, 16, 16)
                .permute(0, 1, 4, 2, 5, 3)
                .reshape(x.shape)
            )
            assert torch.allclose(patched(x, sigma, labels), want, atol=1e-5)

    def test_sizes_divide_into_patches(self):
        made = config({"kind": "edm", "preset": "cifar10-2cores"})
        assert made.layout(32, 32).stem == "16x16_conv"
        with pytest.raises(ValueError, match="33x32 does not divide into patches of 2x2"):
            made.check(33, 32, 3, 10, 500)


class TestInitialisation:
    def test_gains_and_zeros(self):
        blocks = config({"kind": "edm"}).layout(32, 32)
        made = net.EDMNetwork(blocks, image_channels=3, classes=10, augment_labels=9)
        net.initialise(made, torch.Generator().manual_seed(0))
        state = made.state_dict()

        # Of a Xavier uniform matrix, whose variance is 2 / (fan_in + fan_out).
        def gain(name: str) -> float:
            weight = state[f"model.{name}.weight"]
            fan = weight[0].numel() + weight.numel() // weight.shape[1]
            return float(weight.std() * math.sqrt(fan / 2))

        for name in ("enc.32x32_conv", "map_layer0", "map_label", "map_augment", "enc.32x32_block0.skip",
                     "dec.8x8_in0.conv0", "dec.8x8_in0.affine"):  # fmt: skip
            assert gain(name) == pytest.approx(1, rel=0.05), name
        assert gain("dec.8x8_in0.qkv") == pytest.approx(math.sqrt(0.2), rel=0.02)
        for name in ("dec.8x8_in0.conv1", "dec.8x8_in0.proj", "dec.32x32_aux_conv"):
            assert gain(name) == pytest.approx(1e-5, rel=0.05), name
        assert all(not v.any() for name, v in state.items() if name.endswith(".bias"))
        assert all(
            torch.all(v == 1)
            for name, v in state.items()
            if "norm" in name and name.endswith("weight")
        )

    def test_same_generator_same_weights(self):
        one, two = (small()[0].state_dict() for _ in range(2))
        assert all(torch.equal(one[name], two[name]) for name in one)


class TestDropout:
    def test_masks_depend_on_key_and_element_alone(self):
        x = torch.ones(6, 8, 4, 4)
        keys = net.fold(torch.arange(6, dtype=torch.int32), 3)
        whole = net.drop(x, 0.13, keys)
        assert torch.equal(whole[2:5], net.drop(x[2:5], 0.13, keys[2:5]))
        assert not torch.equal(whole[0], whole[1])
        assert not torch.equal(
            whole, net.drop(x, 0.13, net.fold(torch.arange(6, dtype=torch.int32), 4))
        )

    def test_rate_scale_and_independence(self):
        x = torch.ones(64, 32, 16, 16)
        kept = net.drop(x, 0.13, net.fold(torch.arange(64, dtype=torch.int32) * 2**25, 0))
        values = torch.unique(kept)
        assert values.tolist() == pytest.approx([0, 1 / 0.87], rel=1e-6)
        rate = float((kept == 0).float().mean())
        assert abs(rate - 0.13) < 5 * math.sqrt(0.13 * 0.87 / x.numel())
        flat = (kept.view(64, -1) - kept.mean()).double()
        correlation = torch.corrcoef(flat)
        assert correlation.fill_diagonal_(0).abs().max() < 6 / math.sqrt(flat.shape[1])

    def test_words_are_those_of_arithmetic_modulo_2_to_the_32(self):
        def unsigned(word: int) -> int:
            word = ((word ^ (word >> 16)) * 0x7FEB352D) % 2**32
            return ((word ^ (word >> 15)) * 0x846CA68B) % 2**32

        given = torch.randint(
            -(2**31), 2**31, (4000,), dtype=torch.int32, generator=torch.Generator().manual_seed(0)
        )
        assert [w % 2**32 for w in net.mix(given).tolist()] == [
            unsigned(w % 2**32) for w in given.tolist()
        ]

    def test_neighbouring_elements_are_independent(self):
        kept = (
            net.drop(
                torch.ones(1, 64, 64, 64), 0.5, net.fold(torch.zeros(1, dtype=torch.int32), 0)
            ).flatten()
            - 1
        )
        for lag in (1, 2, 8, 64, 4096):
            correlation = float((kept[lag:] * kept[:-lag]).mean())
            assert abs(correlation) < 5 / math.sqrt(len(kept))

    def test_no_keys_no_dropout(self):
        x = torch.randn(2, 4, 4, 4)
        assert net.drop(x, 0.5, None) is x


class TestWeightsFromElsewhere:
    def network(self):
        return network_for(config({"kind": "edm", "preset": "digits"}), shape=(8, 8, 1), classes=10)

    def weights(self) -> dict[str, torch.Tensor]:
        return {
            name: torch.zeros(value.shape) for name, value in self.network().state_dict().items()
        }

    def test_first_difference_is_named(self):
        weights = self.weights()
        del weights["model.map_layer0.bias"]
        with pytest.raises(ValueError, match=r"model\.map_layer0\.bias is missing"):
            load(self.network(), weights)
        weights = self.weights()
        weights["model.map_label.weight"] = torch.zeros(16, 7)
        with pytest.raises(
            ValueError, match=r"model\.map_label\.weight has shape \[16, 7\].*\[16, 10\]"
        ):
            load(self.network(), weights)
        with pytest.raises(ValueError, match=r"model\.extra is not in"):
            load(self.network(), self.weights() | {"model.extra": torch.zeros(1)})

    def test_another_resampling_filter_is_refused(self):
        name = "model.dec.8x8_up.conv0.resample_filter"
        with pytest.raises(ValueError, match="resample_filter"):
            load(
                self.network(), self.weights() | {name: torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]])}
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_that_keeps_its_layout_is_torchs(dtype):
    own = net.norm(64)
    with torch.no_grad():
        own.weight.normal_()
        own.bias.normal_()
    x = (3 + 2 * torch.randn(4, 64, 6, 5)).to(dtype).contiguous(memory_format=torch.channels_last)
    expected = torch.nn.functional.group_norm(
        x.float(), own.num_groups, own.weight, own.bias, own.eps
    )
    found = own.in_place(x)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    # Sums of 120 float32 numbers around 3, in another order.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(own(x.float()), expected)  # on a CPU it is torch's own


def test_the_hash_is_that_of_its_formula():
    """Masks are part of what a generator learns: each word by Python's integers."""

    def scrambled(word: int) -> int:
        word = (word ^ (word >> 16)) * 0x7FEB352D % 2**32
        return (word ^ (word >> 15)) * 0x846CA68B % 2**32

    words = torch.tensor([0, 1, -1, 2**31 - 1, -(2**31), 123456789, -987654321], dtype=torch.int32)
    before = words.clone()
    found = net.mix(words)
    assert torch.equal(words, before)
    assert [w % 2**32 for w in found.tolist()] == [scrambled(w % 2**32) for w in before.tolist()]
