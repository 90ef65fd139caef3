"""The diffusion's equations against closed forms, Bayes' rule, another implementation, and a
Gaussian to sample.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from equigrid.generators.dit.diffusion import diffusion, discretised_log_likelihood, gaussian_kl
from equigrid.generators.dit.sampling import ancestral, guide
from equigrid.generators.registry import config

CHAINS = [(1000, 1), (1000, 500), (1000, 999), (250, 1), (250, 100), (10, 9)]


def draws(n: int = 4, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 4, 2, 2, generator=generator, dtype=torch.float64) for _ in range(4)]


def steps(number: int, n: int = 4) -> torch.Tensor:
    return torch.full((n,), number)


class TestSchedule:
    def test_linear_betas(self):
        chain = diffusion()
        assert chain.timesteps.tolist() == list(range(1000))
        betas = [1e-4 + i * (0.02 - 1e-4) / 999 for i in range(1000)]
        np.testing.assert_allclose(chain.betas, betas, rtol=1e-9)
        left = math.prod(1 - beta for beta in betas)
        assert float(chain.alpha_bars[-1]) == pytest.approx(left, rel=1e-9)
        assert left == pytest.approx(4.036e-5, rel=1e-3)

    def test_respacing_keeps_the_signal_left_at_the_kept_steps(self):
        whole, part = diffusion(), diffusion(250)
        kept = part.timesteps
        assert (len(kept), int(kept[0]), int(kept[-1])) == (250, 0, 999)
        assert kept[:5].tolist() == [0, 4, 8, 12, 16] and kept[1:].sub(
            kept[:-1]
        ).unique().tolist() == [4, 5]
        torch.testing.assert_close(part.alpha_bars, whole.alpha_bars[kept])
        assert diffusion(1).timesteps.tolist() == [999]

    def test_steps_out_of_range(self):
        with pytest.raises(ValueError, match="got 1001"):
            diffusion(1001)


class TestPosterior:
    @pytest.mark.parametrize(("length", "number"), CHAINS)
    def test_bayes_rule(self, length, number):
        """x_{t-1} given x_0 is a prior, x_t given x_{t-1} a measurement of it: precisions add."""
        chain, t = diffusion(length), steps(number)
        clean, noise, *_ = draws()
        x = chain.noised(clean, noise, t)
        beta, before = float(chain.betas[number]), float(chain.alpha_bars[number - 1])
        precision = 1 / (1 - before) + (1 - beta) / beta
        mean = (before**0.5 * clean / (1 - before) + (1 - beta) ** 0.5 * x / beta) / precision
        torch.testing.assert_close(chain.posterior_mean(clean, x, t), mean)
        assert float(chain.posterior_variances[number]) == pytest.approx(1 / precision, rel=1e-9)
        assert float(chain.least_log_variances[number].exp()) == pytest.approx(
            1 / precision, rel=1e-9
        )

    def test_noise_gives_the_clean_signal_back(self):
        clean, noise, *_ = draws()
        for number in (0, 500, 999):
            x = diffusion().noised(clean, noise, steps(number))
            torch.testing.assert_close(diffusion().clean_of(x, noise, steps(number)), clean)
            left = float(diffusion().alpha_bars[number])
            torch.testing.assert_close(x, left**0.5 * clean + (1 - left) ** 0.5 * noise)

    def test_the_learned_variance_lies_between(self):
        chain, t = diffusion(250), torch.tensor([0, 1, 100, 249])
        ones = torch.ones(4, 1, 1, 1, dtype=torch.float64)
        low, middle, high = (chain.log_variance(v * ones, t).flatten() for v in (-1, 0, 1))
        torch.testing.assert_close(high.exp(), chain.betas[t])
        torch.testing.assert_close(low[1:].exp(), chain.posterior_variances[t][1:])
        # 0 has no logarithm
        assert float(low[0].exp()) == pytest.approx(float(chain.posterior_variances[1]))
        torch.testing.assert_close(middle, (low + high) / 2)

    @pytest.mark.parametrize("number", [1, 500, 999])
    def test_a_step_equals_diffusers(self, number):
        """Mean and learned variance of diffusers' DDPM scheduler, which draws its noise from the
        given generator.
        """
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler(
            beta_start=1e-4, beta_end=0.02, variance_type="learned_range", clip_sample=False
        )
        x, epsilon, v, _ = (value.float() for value in draws())
        output = torch.cat([epsilon, v], dim=1)
        made = scheduler.step(
            output, number, x, generator=torch.Generator().manual_seed(1)
        ).prev_sample
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        mean, log_variance = diffusion().reverse(x, output, steps(number))
        torch.testing.assert_close(
            mean + torch.exp(0.5 * log_variance) * noise, made, rtol=1e-4, atol=1e-5
        )


class TestLoss:
    def test_divergence_of_gaussians(self):
        a, b, c, d = draws()
        one = torch.distributions.Normal(a, (0.5 * b).exp())
        two = torch.distributions.Normal(c, (0.5 * d).exp())
        torch.testing.assert_close(
            gaussian_kl(a, b, c, d), torch.distributions.kl_divergence(one, two)
        )

    def test_likelihood_of_levels(self):
        levels = torch.linspace(-1, 1, 256, dtype=torch.float64)
        mean = torch.tensor(0.3, dtype=torch.float64)
        log_variance = torch.tensor(-2.0, dtype=torch.float64)
        mass = discretised_log_likelihood(levels, mean, log_variance).exp()
        assert float(mass.sum()) == pytest.approx(1, abs=1e-9)
        normal = stats.norm(0.3, math.exp(-1))
        for i in (1, 100, 254):
            low, high = float(levels[i]) - 1 / 255, float(levels[i]) + 1 / 255
            assert float(mass[i]) == pytest.approx(normal.cdf(high) - normal.cdf(low), rel=1e-9)
        assert float(mass[0]) == pytest.approx(normal.cdf(-1 + 1 / 255), rel=1e-9)
        far = discretised_log_likelihood(levels[:1], mean + 50, log_variance)
        assert math.isfinite(far)

    def test_a_perfect_mean_and_the_least_variance_leave_no_divergence(self):
        chain, t = diffusion(), torch.tensor([1, 10, 500, 999])
        clean, noise, *_ = draws()
        x = chain.noised(clean, noise, t)
        squared, bound = chain.losses(
            torch.cat([noise, -torch.ones_like(noise)], 1), clean, noise, x, t
        )
        torch.testing.assert_close(squared, torch.zeros(4, dtype=torch.float64))
        torch.testing.assert_close(bound, torch.zeros(4, dtype=torch.float64), atol=1e-9, rtol=0)
        _, bound = chain.losses(torch.cat([noise, torch.ones_like(noise)], 1), clean, noise, x, t)
        ratio = chain.posterior_variances[t] / chain.betas[t]
        torch.testing.assert_close(bound, 0.5 * (ratio - 1 - ratio.log()) / math.log(2))  # bits

    def test_a_wrong_mean_costs_what_the_closed_form_says(self):
        chain, t = diffusion(), steps(300)
        clean, noise, error, _ = draws()
        x = chain.noised(clean, noise, t)
        squared, bound = chain.losses(
            torch.cat([noise + error, -torch.ones_like(noise)], 1), clean, noise, x, t
        )
        torch.testing.assert_close(squared, error.square().mean((1, 2, 3)))
        beta, left = float(chain.betas[300]), float(chain.alpha_bars[300])
        shift = beta / math.sqrt((1 - beta) * (1 - left)) * error  # DDPM, Eq. 12
        variance = float(chain.posterior_variances[300])
        torch.testing.assert_close(
            bound, (shift.square() / (2 * variance)).mean((1, 2, 3)) / math.log(2)
        )

    def test_the_first_step_is_a_likelihood(self):
        chain, t = diffusion(), steps(0)
        clean, noise, error, v = draws()
        x = chain.noised(clean, noise, t)
        _, bound = chain.losses(torch.cat([noise + error, v], 1), clean, noise, x, t)
        mean, log_variance = chain.reverse(x, torch.cat([noise + error, v], 1), t)
        likelihood = discretised_log_likelihood(clean, mean, log_variance)
        torch.testing.assert_close(bound, -likelihood.mean((1, 2, 3)) / math.log(2))

    def test_the_bound_teaches_the_variance_alone(self):
        chain, t = diffusion(), torch.tensor([0, 1, 500, 999])
        clean, noise, error, v = draws()
        output = torch.cat([noise + error, v], 1).requires_grad_()
        squared, bound = chain.losses(output, clean, noise, chain.noised(clean, noise, t), t)
        (of_bound,) = torch.autograd.grad(bound.sum(), output, retain_graph=True)
        (of_squared,) = torch.autograd.grad(squared.sum(), output)
        assert (of_bound[:, :4] == 0).all() and (of_bound[:, 4:] != 0).any(dim=(1, 2, 3)).all()
        torch.testing.assert_close(of_squared[:, :4], 2 * error / 16)
        assert (of_squared[:, 4:] == 0).all()


class TestGuidance:
    def outputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        return draws(seed=1)[0].repeat(1, 2, 1, 1), draws(seed=2)[1].repeat(1, 2, 1, 1)

    def sampler(self, **values):
        return config({"kind": "dit", "sampler": values}).sampler

    def test_all_channels(self):
        one, two = self.outputs()
        made = guide(one, two, self.sampler(guidance=4.0))
        torch.testing.assert_close(made[:, :4], 4 * one[:, :4] - 3 * two[:, :4])
        assert torch.equal(made[:, 4:], one[:, 4:])

    def test_three_channels_by_name(self):
        one, two = self.outputs()
        made = guide(one, two, self.sampler(guidance=4.0, guidance_channels="three"))
        torch.testing.assert_close(made[:, :3], 4 * one[:, :3] - 3 * two[:, :3])
        assert torch.equal(made[:, 3:], one[:, 3:])

    def test_guidance_one_is_none(self):
        one, two = self.outputs()
        torch.testing.assert_close(guide(one, two, self.sampler(guidance=1.0)), one)


class TestAncestral:
    @pytest.mark.parametrize("length", [10, 50, 250])
    def test_a_gaussian_is_reached_with_its_mean_and_variance(self, length):
        """With the exact noise and the exact reverse variance of N(m, s**2), the chain is exact at
        any length.
        """
        m, s, n = 0.7, 0.4, 20_000
        chain = diffusion(length)
        number = {int(told): i for i, told in enumerate(chain.timesteps)}

        def denoise(x, t):
            i = number[int(t[0])]
            left = float(chain.alpha_bars[i])
            total = left * s**2 + 1 - left
            epsilon = (1 - left) ** 0.5 * (x - left**0.5 * m) / total
            beta, before = float(chain.betas[i]), float(chain.alpha_bars_before[i])
            of_clean = s**2 * (1 - left) / total
            variance = (
                float(chain.posterior_variances[i])
                + (beta * before**0.5 / (1 - left)) ** 2 * of_clean
            )
            low, high = float(chain.least_log_variances[i]), math.log(beta)
            v = 2 * (math.log(variance) - low) / (high - low) - 1 if high > low else 0.0
            return torch.cat([epsilon, torch.full_like(x, v)], dim=1)

        generator = torch.Generator().manual_seed(0)
        made = ancestral(denoise, lambda: torch.randn(n, 1, 1, 1, generator=generator), chain)
        assert made.dtype == torch.float64
        assert float(made.mean()) == pytest.approx(m, abs=4 * s / math.sqrt(n))
        # The last step adds no noise: what is left of it, at most 1e-4, is missing; 4 deviations of
        # a variance.
        assert float(made.var()) == pytest.approx(s**2, abs=4 * s**2 * math.sqrt(2 / n) + 1e-4)

    def test_the_network_is_told_the_step_of_training(self):
        told = []

        def denoise(x, t):
            assert x.dtype == torch.float32
            told.append(int(t[0]))
            return torch.zeros(len(x), 2, 1, 1)

        count = []
        ancestral(denoise, lambda: count.append(1) or torch.zeros(3, 1, 1, 1), diffusion(4))
        assert told == [999, 666, 333, 0]
        assert len(count) == 4  # the start, and one for each step but the last
