"""Labels and shard sizes of pools, seeds, pixels."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from equigrid.generators.common import pools
from equigrid.generators.common.pixels import to_float, to_uint8
from equigrid.generators.common.rng import permutation, seed_of


class TestLabels:
    @pytest.mark.parametrize("classes", [1, 2, 10, 100])
    def test_every_prefix_is_balanced(self, classes):
        labels = pools.labels(7, 0, 5 * classes + 3, classes)
        counts = np.cumsum(labels[:, None] == np.arange(classes), axis=0)
        assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
        assert labels.dtype == np.int64

    def test_a_label_depends_on_seed_and_number_alone(self):
        whole = pools.labels(3, 0, 1000, 10)
        for start, stop in [(0, 0), (0, 7), (13, 14), (95, 415), (999, 1000)]:
            assert np.array_equal(pools.labels(3, start, stop, 10), whole[start:stop])
        assert not np.array_equal(pools.labels(4, 0, 1000, 10), whole)

    def test_blocks_differ(self):
        blocks = pools.labels(0, 0, 10_000, 10).reshape(-1, 10)
        assert len(np.unique(blocks, axis=0)) > 990
        # Each class is equally often at each place of a block: 1,000 times 1 in 10.
        places = (blocks[:, :, None] == np.arange(10)).sum(axis=0)
        assert abs(places - 100).max() < 5 * np.sqrt(1000 * 0.1 * 0.9)

    def test_golden(self):
        """Pools in stores were made with these labels: a change needs a new SHARD_FORMAT."""
        assert pools.labels(20_250_101, 0, 12, 4).tolist() == [3, 1, 2, 0, 0, 2, 1, 3, 1, 3, 2, 0]

    @pytest.mark.parametrize(("start", "stop", "classes"), [(3, 2, 10), (-1, 2, 10), (0, 2, 0)])
    def test_bad_ranges(self, start, stop, classes):
        with pytest.raises(ValueError, match="start|classes"):
            pools.labels(0, start, stop, classes)


def test_shard_sizes():
    sizes = {(8, 8, 1): 512, (28, 28, 1): 512, (28, 28, 3): 4096, (32, 32, 3): 4096, (64, 64, 3): 1024,
             (256, 256, 3): 64, (512, 512, 3): 64}  # fmt: skip
    assert {shape: pools.shard_size(*shape) for shape in sizes} == sizes
    with pytest.raises(ValueError, match="0x8x1"):
        pools.shard_size(0, 8, 1)


SHAPES = [(8, 8, 1), (32, 32, 3), (64, 64, 3), (96, 96, 1), (256, 256, 3)]


class TestShards:
    def test_golden(self):
        """Shards in stores begin here: a change needs a new SHARD_FORMAT, and a revision."""
        starts = [pools.shard(j, 32, 32, 3).start for j in range(9)]
        assert starts == [0, 256, 512, 1_024, 2_048, 4_096, 8_192, 12_288, 16_384]
        assert [pools.shard(j, 8, 8, 1).start for j in range(5)] == [0, 256, 512, 1_024, 1_536]
        assert [pools.shard(j, 256, 256, 3).start for j in range(4)] == [0, 64, 128, 192]

    @pytest.mark.parametrize("shape", SHAPES)
    def test_each_image_is_in_one_shard(self, shape):
        """Without gaps, none larger than before, none smaller than the one before it."""
        found = [pools.shard(j, *shape) for j in range(40)]
        assert found[0].start == 0
        assert all(one.stop == other.start for one, other in zip(found, found[1:]))
        sizes = [len(one) for one in found]
        assert sizes == sorted(sizes)
        assert sizes[-1] == pools.shard_size(*shape)
        assert sizes[0] == min(256, sizes[-1])

    @pytest.mark.parametrize("shape", SHAPES)
    def test_the_shards_that_hold_n_images_are_the_fewest(self, shape):
        edges = {
            n for j in range(12) for n in (pools.shard(j, *shape).stop + d for d in (-1, 0, 1))
        }
        for n in [1, *sorted(edges), 100_000]:
            last = pools.shards(n, *shape) - 1
            assert pools.shard(last, *shape).start < n <= pools.shard(last, *shape).stop
        assert pools.shards(0, *shape) == 0

    @pytest.mark.parametrize("shape", SHAPES)
    def test_no_batch_is_computed_for_two_shards(self, shape):
        first = len(pools.shard(0, *shape))
        for batch in (16, 32, 64, 128, 256):
            if batch <= first:
                assert all(pools.shard(j, *shape).start % batch == 0 for j in range(20))

    def test_little_costs_little(self):
        """200 images of 32x32 cost 256, and 4,096 no more than before."""
        assert pools.shard(pools.shards(200, 32, 32, 3) - 1, 32, 32, 3).stop == 256
        assert pools.shard(pools.shards(4_000, 32, 32, 3) - 1, 32, 32, 3).stop == 4_096

    def test_shards_count_from_0(self):
        with pytest.raises(ValueError, match="from 0"):
            pools.shard(-1, 8, 8, 1)


class TestSeeds:
    def test_distinct_and_in_range(self):
        seeds = {
            seed_of(s, p, i)
            for s in (0, 1, 2**32, 2**63 - 1)
            for p in ("a", "b")
            for i in (0, 1, 2**32)
        }
        assert len(seeds) == 24
        assert all(0 <= s < 2**63 for s in seeds)
        assert seed_of(2**32 + 5, "a") != seed_of(5, "a", 1)

    def test_golden(self):
        assert seed_of(1, "pool noise", 2) == 1_445_929_147_159_148_305
        assert permutation(1, "order", 0, 6).tolist() == [2, 1, 5, 0, 3, 4]

    def test_out_of_range(self):
        with pytest.raises(ValueError, match="-1"):
            seed_of(0, "a", -1)


class TestPixels:
    def test_all_256_values_survive(self):
        levels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
        values = to_float(levels)
        assert values.shape == (1, 1, 16, 16)
        assert (values.min(), values.max()) == (-1, 1)
        assert torch.equal(to_uint8(values), levels)
        assert torch.equal(to_uint8(values.double()), levels)

    def test_nearest_level_and_clipping(self):
        half = 1 / 127.5 / 2
        x = torch.tensor([-3.0, -1 + 0.98 * half, -1 + 1.02 * half, 0.9999, 7.0]).view(1, 1, 1, 5)
        assert to_uint8(x).flatten().tolist() == [0, 0, 1, 255, 255]

    def test_channels_go_last(self):
        x = torch.rand(2, 3, 4, 5) * 2 - 1
        assert to_uint8(x).shape == (2, 4, 5, 3)
        assert torch.allclose(to_float(to_uint8(x)), x, atol=0.5 / 127.5 + 1e-6)

    def test_refused(self):
        with pytest.raises(ValueError, match="not a number"):
            to_uint8(torch.full((1, 1, 2, 2), torch.nan))
        with pytest.raises(ValueError, match="float32"):
            to_float(torch.zeros(1, 2, 2, 1))


def test_configurations_need_no_torch():
    code = (
        "import sys, equigrid.generators.common.pools; from equigrid.generators import registry; registry.config({'kind': 'edm', 'preset': 'digits'})"
        ".check(8, 8, 1, 10, 100); assert not {'torch', 'ray', 'diffusers', 'grid'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
