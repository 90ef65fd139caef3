"""The sampler against closed forms and against Algorithm 2 written out; pools against their
cutting.
"""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from equigrid.generators import registry
from equigrid.generators.common import pools
from equigrid.generators.edm.config import Sampler
from equigrid.generators.edm.network import initialise
from equigrid.generators.edm.sampling import heun, sigmas
from equigrid.generators.edm.weights import network_for
from equigrid.generators.registry import config, sample
from equigrid.generators.trainer.compilation import compiles_sampling

DEVIATION = 0.5  # of the Gaussian data whose denoiser and whose ODE are known


def gaussian_denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[clean | noisy] for clean ~ N(0, DEVIATION**2)."""
    s = sigma.double().view(-1, 1, 1, 1)
    return x.double() * DEVIATION**2 / (DEVIATION**2 + s**2)


def at_zero(x: float, sigma: float) -> float:
    """Where the probability flow ODE dx/ds = (x - D(x; s)) / s takes x from noise level sigma."""
    return x * DEVIATION / math.sqrt(DEVIATION**2 + sigma**2)


class TestSolver:
    def error(self, steps: int, order: int) -> float:
        sampler = Sampler(steps=steps, sigma_min=1e-4, sigma_max=10.0, rho=7.0)
        start = torch.ones(1, 1, 1, 1)
        if order == 2:
            end = heun(gaussian_denoiser, lambda: start, sampler)
        else:
            end, levels = start.double() * 10.0, sigmas(sampler)
            for now, after in zip(levels[:-1], levels[1:]):
                slope = (end - gaussian_denoiser(end, torch.tensor([now]))) / now
                end = end + (after - now) * slope
        return abs(float(end) - at_zero(10.0, 10.0))

    @pytest.mark.parametrize("order", [1, 2])
    def test_order_of_convergence(self, order):
        steps = [32, 64, 128]
        errors = [self.error(n, order) for n in steps]
        slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
        assert slope == pytest.approx(-order, abs=0.15)

    def test_published_noise_levels(self):
        levels = sigmas(Sampler())
        assert len(levels) == 19
        assert levels[:4] == pytest.approx([80, 57.586, 40.7856, 28.3748], rel=1e-5)
        assert levels[17:] == pytest.approx([0.002, 0])
        assert sigmas(Sampler(steps=1)) == pytest.approx([80, 0])

    def test_evaluations(self):
        calls = []

        def denoise(x, sigma):
            calls.append(float(sigma[0]))
            return gaussian_denoiser(x, sigma)

        heun(denoise, lambda: torch.ones(2, 1, 1, 1), Sampler(steps=18))
        assert len(calls) == 35
        assert min(calls) == pytest.approx(0.002)

    def test_state_is_float64_and_the_denoiser_sees_float32(self):
        seen = set()

        def denoise(x, sigma):
            seen.update([x.dtype, sigma.dtype])
            return gaussian_denoiser(x, sigma).float()

        assert (
            heun(denoise, lambda: torch.ones(1, 1, 1, 1), Sampler(steps=4)).dtype == torch.float64
        )
        assert seen == {torch.float32}

    @pytest.mark.parametrize(
        "extra",
        [{"S_churn": 40.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003}, {"S_churn": 3.0}],
    )
    def test_stochastic_equals_algorithm_2(self, extra):
        sampler = Sampler(steps=18, **extra)
        draws = torch.randn(40, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        stream = iter(draws)
        have = heun(gaussian_denoiser, lambda: next(stream), sampler)

        eps = iter(draws.double().numpy())
        n, t = 18, sigmas(sampler)
        high = sampler.S_max or math.inf
        x = next(eps) * t[0]
        for i in range(n):
            gamma = (
                min(sampler.S_churn / n, math.sqrt(2) - 1) if sampler.S_min <= t[i] <= high else 0
            )
            hat = t[i] * (1 + gamma)
            if gamma:
                x = x + math.sqrt(hat**2 - t[i] ** 2) * sampler.S_noise * next(eps)
            d = (x - x * 0.25 / (0.25 + hat**2)) / hat
            after = x + (t[i + 1] - hat) * d
            if t[i + 1] != 0:
                e = (after - after * 0.25 / (0.25 + t[i + 1] ** 2)) / t[i + 1]
                after = x + (t[i + 1] - hat) * (d / 2 + e / 2)
            x = after
        assert np.allclose(have.numpy(), x, atol=1e-5)
        assert len(list(stream)) == len(list(eps))

    def test_stochastic_sampler_keeps_the_distribution(self):
        generator = torch.Generator().manual_seed(0)
        sampler = Sampler(steps=250, S_churn=60.0)
        end = heun(
            gaussian_denoiser, lambda: torch.randn(20_000, 1, 1, 1, generator=generator), sampler
        )
        assert float(end.std()) == pytest.approx(DEVIATION, rel=0.02)


@pytest.fixture(scope="module")
def model():
    """A digits network that was not trained, with outputs of visible size: (weights, config)."""
    chosen = config({"kind": "edm", "preset": "digits", "sampler": {"steps": 4, "batch": 8}})
    network = network_for(chosen, shape=(8, 8, 1), classes=10).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    initialise(network, generator)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return network.state_dict(), chosen


def made(model, start, stop, **changes):
    weights, chosen = model
    sampler = chosen.sampler.model_copy(update={"batch": changes.pop("batch", 8), **changes})
    chosen = chosen.model_copy(update={"sampler": sampler})
    return sample(weights, chosen, classes=10, shape=(8, 8, 1), seed=5, start=start, stop=stop)


class TestPools:
    @pytest.mark.parametrize("churn", [0.0, 2.0])
    def test_pixels_do_not_depend_on_the_cutting(self, model, churn):
        images, labels = made(model, 0, 40, S_churn=churn)
        assert images.shape == (40, 8, 8, 1)
        assert images.dtype == np.uint8
        assert np.array_equal(labels, pools.labels(5, 0, 40, 10))
        for start, stop in [(0, 8), (8, 40), (3, 5), (15, 17), (39, 40), (7, 7)]:
            part, part_labels = made(model, start, stop, S_churn=churn)
            assert np.array_equal(part, images[start:stop])
            assert np.array_equal(part_labels, labels[start:stop])

    def test_another_batch_changes_pixels_by_rounding_alone(self, model):
        """float32 sums in another order: at most a level, at few pixels (about 1 in 10,000
        here).
        """
        one = made(model, 0, 40)[0].astype(int)
        other = made(model, 0, 40, batch=20)[0].astype(int)
        assert abs(one - other).max() <= 1
        assert (one != other).mean() < 0.01

    def test_images_differ_and_seeds_differ(self, model):
        images, _ = made(model, 0, 16)
        assert len(np.unique(images.reshape(16, -1), axis=0)) == 16
        weights, chosen = model
        other, _ = sample(weights, chosen, classes=10, shape=(8, 8, 1), seed=6, start=0, stop=16)
        assert not np.array_equal(other, images)

    def test_the_class_matters(self, model):
        weights, chosen = model
        changed = {**weights, "model.map_label.weight": -weights["model.map_label.weight"]}
        other, _ = sample(changed, chosen, classes=10, shape=(8, 8, 1), seed=5, start=0, stop=8)
        assert not np.array_equal(other, made(model, 0, 8)[0])

    def test_weights_that_do_not_fit(self, model):
        weights, chosen = model
        with pytest.raises(
            ValueError, match=r"model\.map_label\.weight has shape \[16, 10\].*\[16, 7\]"
        ):
            sample(weights, chosen, classes=7, shape=(8, 8, 1), seed=5, start=0, stop=8)


class Compilations(list):
    """Stands in for torch.compile: notes each call's options, and whether a compiler's caches were
    cleared.
    """

    resets = 0

    def compile(self, network, *, options):
        self.append(options)
        return network

    def reset(self):
        self.resets += 1


@pytest.fixture
def compilations(monkeypatch):
    noted = Compilations()
    monkeypatch.setattr(torch, "compile", noted.compile)
    monkeypatch.setattr(torch.compiler, "reset", noted.reset)
    yield noted
    registry.release()


def compiled(model, start=0, stop=8, weights=None, **changes):
    chosen = model[1].model_copy(
        update={"compute": model[1].compute.model_copy(update={"compile": "on"})}
    )
    return made((weights or model[0], chosen), start, stop, **changes)[0]


class TestCompiling:
    @pytest.mark.parametrize(
        ("mapping", "shape", "large"),
        [
            ({"kind": "edm", "preset": "cifar10"}, (32, 32, 3), True),
            ({"kind": "edm", "preset": "cifar10-2cores"}, (32, 32, 3), False),
            ({"kind": "edm", "preset": "digits"}, (8, 8, 1), False),
            ({"kind": "dit", "preset": "dit-xl2"}, (256, 256, 3), True),
            ({"kind": "dit", "preset": "digits"}, (8, 8, 1), False),
        ],
    )
    def test_auto_goes_by_network_and_device(self, mapping, shape, large):
        chosen = config(mapping)
        parameters = chosen.cost_facts(*shape, 10, None)["parameters"]
        assert compiles_sampling(chosen.compute, torch.device("cuda"), parameters) == large
        assert not compiles_sampling(chosen.compute, torch.device("cpu"), parameters)

    def test_one_compilation_serves_shard_after_shard_of_pool_after_pool(self, model, compilations):
        others = {name: -value for name, value in model[0].items()}
        whole, of_others = made(model, 0, 16)[0], made((others, model[1]), 0, 8)[0]
        assert np.array_equal(compiled(model), whole[:8])
        assert np.array_equal(compiled(model, 8, 16), whole[8:])
        assert np.array_equal(compiled(model, weights=others), of_others)
        assert np.array_equal(compiled(model), whole[:8])
        assert all(torch.equal(value, -others[name]) for name, value in model[0].items())
        assert compilations == [{"deterministic": True, "triton.cudagraphs": False}]

    def test_another_sampler_is_compiled_anew_and_one_is_kept(self, model, compilations):
        for steps in (4, 3, 4):
            compiled(model, steps=steps)
        assert (len(compilations), compilations.resets) == (3, 2)

    def test_what_is_not_compiled_is_not_kept(self, model, compilations):
        made(model, 0, 8)
        registry.release()
        assert (len(compilations), compilations.resets) == (0, 0)

    def test_release_lets_all_go(self, model, compilations, monkeypatch):
        released = []
        parts = SimpleNamespace(release=lambda: released.append("pre-trained parts"))
        monkeypatch.setitem(sys.modules, "equigrid.generators.stable_diffusion.models", parts)
        compiled(model)
        registry.release()
        registry.release()
        assert compilations.resets == 1
        assert released == ["pre-trained parts"] * 2
        compiled(model)
        assert len(compilations) == 2


@pytest.mark.slow
def test_compiled_equals_eager(model):
    """But for rounding, as between batches; and other weights, or a later shard, need no second
    compilation.
    """
    from torch._dynamo.utils import counters

    counters.clear()
    others = {name: -value for name, value in model[0].items()}
    wanted = [made((weights, model[1]), 0, 40)[0].astype(int) for weights in (model[0], others)]
    for weights, want in zip((model[0], others, model[0]), (*wanted, wanted[0])):
        have = np.concatenate(
            [compiled(model, 0, 16, weights), compiled(model, 16, 40, weights)]
        ).astype(int)
        assert abs(have - want).max() <= 1
        assert (have != want).mean() < 0.01
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    registry.release()
