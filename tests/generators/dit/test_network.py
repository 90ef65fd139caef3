"""diffusers' transformer as the DiT's publication has it: sizes, output against the equations,
first weights.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from equigrid.generators.dit.network import initialise, transformer
from equigrid.generators.dit.parts import Network
from equigrid.generators.registry import config

WIDTH, HEADS, DEPTH, SIDE, CLASSES = 24, 3, 2, 4, 5


def tiny(patch: int = 2, seed: int = 0, **values):
    network = Network(depth=DEPTH, width=WIDTH, heads=HEADS, patch=patch, **values)
    made = transformer(network, side=SIDE * patch // 2, channels=4, classes=CLASSES)
    initialise(made, torch.Generator().manual_seed(seed))
    return made


def filled(seed: int = 1):
    """With all weights drawn, so that nothing is hidden by zeros."""
    made, generator = tiny(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return made


class TestSizes:
    @pytest.mark.parametrize(("name", "count"), [("s2", None), ("b4", None), ("xl2", 675_129_632)])
    def test_parameters(self, name, count):
        """By hand; the published count of DiT-XL/2 at 256x256 includes its fixed table of 256
        positions.
        """
        n = config({"kind": "dit", "preset": f"dit-{name}"}).network
        made = transformer(n, side=32, channels=4, classes=1000)
        w, tokens_in = n.width, 4 * n.patch**2
        embedding = (256 * w + w) + (w * w + w) + 1001 * w
        block = 4 * (w * w + w) + (4 * w * w + 4 * w) + (4 * w * w + w) + (6 * w * w + 6 * w)
        last = (2 * w * w + 2 * w) + (2 * tokens_in * w + 2 * tokens_in)
        by_hand = (tokens_in * w + w) + embedding + n.depth * block + last
        assert sum(p.numel() for p in made.parameters()) == by_hand
        if count is not None:
            assert by_hand + (32 // n.patch) ** 2 * w == count


def published(w: dict, x: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Peebles and Xie 2023, Section 3, written out for patches of 2: (N, 4, 4, 4) to (N, 8, 4,
    4).
    """
    n, head = len(x), WIDTH // HEADS
    # Row, column; channel, y, x.
    patches = x.reshape(n, 4, 2, 2, 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, 4, 16)
    tokens = (
        patches @ w["pos_embed.proj.weight"].reshape(WIDTH, 16).T
        + w["pos_embed.proj.bias"]
        + positions()
    )
    c = condition(w, t, labels)
    for i in range(DEPTH):
        p = f"transformer_blocks.{i}."
        modulation = F.silu(c) @ w[p + "norm1.linear.weight"].T + w[p + "norm1.linear.bias"]
        shift1, scale1, gate1, shift2, scale2, gate2 = (m[:, None] for m in modulation.chunk(6, 1))
        y = normed(tokens) * (1 + scale1) + shift1
        q, k, v = (
            (y @ w[p + f"attn1.to_{z}.weight"].T + w[p + f"attn1.to_{z}.bias"])
            .reshape(n, 4, HEADS, head)
            .transpose(1, 2)
            for z in "qkv"
        )
        mixed = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(head), -1) @ v
        mixed = mixed.transpose(1, 2).reshape(n, 4, WIDTH)
        tokens = tokens + gate1 * (
            mixed @ w[p + "attn1.to_out.0.weight"].T + w[p + "attn1.to_out.0.bias"]
        )
        y = normed(tokens) * (1 + scale2) + shift2
        y = gelu(y @ w[p + "ff.net.0.proj.weight"].T + w[p + "ff.net.0.proj.bias"])
        tokens = tokens + gate2 * (y @ w[p + "ff.net.2.weight"].T + w[p + "ff.net.2.bias"])
    shift, scale = (F.silu(c) @ w["proj_out_1.weight"].T + w["proj_out_1.bias"]).chunk(2, 1)
    y = normed(tokens) * (1 + scale[:, None]) + shift[:, None]
    y = y @ w["proj_out_2.weight"].T + w["proj_out_2.bias"]  # (n, 4, 2 * 2 * 8), channels last
    return y.reshape(n, 2, 2, 2, 2, 8).permute(0, 5, 1, 3, 2, 4).reshape(n, 8, 4, 4)


def condition(w: dict, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    p = "transformer_blocks.0.norm1.emb."
    angles = t[:, None] * 10_000 ** (-torch.arange(128) / 128)
    wave = torch.cat([angles.cos(), angles.sin()], 1)
    wave = F.silu(
        wave @ w[p + "timestep_embedder.linear_1.weight"].T
        + w[p + "timestep_embedder.linear_1.bias"]
    )
    wave = (
        wave @ w[p + "timestep_embedder.linear_2.weight"].T
        + w[p + "timestep_embedder.linear_2.bias"]
    )
    return wave + w[p + "class_embedder.embedding_table.weight"][labels]


def positions() -> torch.Tensor:
    """Sines and cosines of the column, then of the row: (4, WIDTH)."""
    frequencies = 10_000.0 ** (-torch.arange(WIDTH // 4) / (WIDTH // 4))

    def waves(values):
        return torch.cat(
            [(values[:, None] * frequencies).sin(), (values[:, None] * frequencies).cos()], 1
        )

    row, column = torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 1, 0, 1])
    return torch.cat([waves(column), waves(row)], 1)


def normed(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, correction=0, keepdim=True) + 1e-6)


def gelu(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def test_output_equals_the_equations():
    network = filled()
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 4, 4, 4, generator=generator)
    t, labels = torch.tensor([0, 500, 999]), torch.tensor([0, CLASSES, 2])
    weights = {name: p.detach() for name, p in network.named_parameters()}
    network.train()  # labels are not dropped inside
    wanted = published(weights, x, t, labels)
    for _ in range(2):
        made = network(x, timestep=t, class_labels=labels).sample
        # At t = 999 float32 angles are known to 6e-5, which the layers enlarge; values are of size
        # 1 to 10.
        torch.testing.assert_close(made, wanted, rtol=1e-3, atol=1e-3)
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.LayerNorm)]
    assert {(layer.eps, layer.elementwise_affine) for layer in norms} == {(1e-6, False)}
    # diffusers' own frequencies.
    network.transformer_blocks[0].norm1.emb.time_proj.downscale_freq_shift = 1
    assert (network(x, timestep=t, class_labels=labels).sample - wanted).abs().max() > 0.1


def test_the_last_class_is_no_label():
    network = filled()
    table = network.transformer_blocks[0].norm1.emb.class_embedder.embedding_table.weight
    assert table.shape == (CLASSES + 1, WIDTH)
    x, t = torch.ones(2, 4, 4, 4), torch.tensor([3, 3])
    before = network(x, timestep=t, class_labels=torch.tensor([1, CLASSES])).sample
    with torch.no_grad():
        table[CLASSES] += 1
    after = network(x, timestep=t, class_labels=torch.tensor([1, CLASSES])).sample
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


class TestInitialisation:
    def test_gates_and_output_are_zero(self):
        network = tiny()
        zero = [block.norm1.linear for block in network.transformer_blocks] + [
            network.proj_out_1,
            network.proj_out_2,
        ]
        assert all((p == 0).all() for layer in zero for p in layer.parameters())
        x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        t, labels = torch.tensor([1, 2]), torch.tensor([0, 1])
        assert (network(x, timestep=t, class_labels=labels).sample == 0).all()
        tokens = network.pos_embed(x)
        assert torch.equal(
            network.transformer_blocks[0](tokens, timestep=t, class_labels=labels), tokens
        )

    def test_the_rest_is_drawn_as_published(self):
        made = transformer(Network(depth=1, width=192, heads=3), side=8, channels=4, classes=400)
        initialise(made, torch.Generator().manual_seed(0))
        block = made.transformer_blocks[0]
        # One matrix, 3 * 192 high.
        for layer in (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v):
            assert float(layer.weight.detach().abs().max()) == pytest.approx(
                math.sqrt(6 / (192 + 3 * 192)), rel=0.01
            )
        assert float(block.ff.net[2].weight.detach().abs().max()) == pytest.approx(
            math.sqrt(6 / (5 * 192)), rel=0.01
        )
        assert float(made.pos_embed.proj.weight.detach().abs().max()) == pytest.approx(
            math.sqrt(6 / (192 + 16)), rel=0.01
        )
        emb = block.norm1.emb
        drawn = (
            emb.timestep_embedder.linear_1,
            emb.timestep_embedder.linear_2,
            emb.class_embedder.embedding_table,
        )
        for layer in drawn:
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
        assert all((p == 0).all() for name, p in made.named_parameters() if name.endswith("bias"))

    def test_the_seed_decides_and_torch_is_left_alone(self):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        one, two, other = (dict(tiny(seed=seed).named_parameters()) for seed in (3, 3, 4))
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert not torch.equal(one["pos_embed.proj.weight"], other["pos_embed.proj.weight"])


def test_the_state_between_blocks_stays_float32_under_autocast():
    network = filled()
    seen = []
    network.transformer_blocks[1].register_forward_hook(
        lambda m, i, o: seen.append((i[0].dtype, o.dtype))
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(torch.ones(1, 4, 4, 4), timestep=torch.tensor([1]), class_labels=torch.tensor([0]))
    assert seen == [(torch.float32, torch.float32)]
