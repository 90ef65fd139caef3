"""The discrete diffusion of improved DDPM (Nichol and Dhariwal 2021, "ID"; Ho et al. 2020, "DDPM"),
as DiT uses it.

Tables are float64; every formula takes the number of a step of the (perhaps respaced) chain, one
for each image.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

TRAIN_STEPS = 1000
BETA_FIRST, BETA_LAST = 1e-4, 0.02
"""The linear schedule of DDPM, Section 4."""

_HALF_LEVEL = 1 / 255
"""Half the distance of two of 256 levels in [-1, 1]: latents are treated as pixels are (DDPM, Eq.
13).
"""


@dataclass(frozen=True)
class Diffusion:
    """A Markov chain that adds noise, and the reverse step's Gaussian.  S steps, numbered from
    0.
    """

    timesteps: torch.Tensor
    """(S,) int64: what the network is told at each step, in 0..999."""
    betas: torch.Tensor
    """(S,) float64 variances of a forward step."""

    @cached_property
    def alpha_bars(self) -> torch.Tensor:
        """(S,) the part of the clean signal's power left after each step."""
        return torch.cumprod(1 - self.betas, 0)

    @cached_property
    def alpha_bars_before(self) -> torch.Tensor:
        return torch.cat([self.alpha_bars.new_ones(1), self.alpha_bars[:-1]])

    @cached_property
    def posterior_variances(self) -> torch.Tensor:
        """(S,) variance of x_{t-1} given x_t and x_0 (DDPM, Eq. 7); 0 at step 0."""
        return self.betas * (1 - self.alpha_bars_before) / (1 - self.alpha_bars)

    @cached_property
    def least_log_variances(self) -> torch.Tensor:
        """(S,) logarithms of the posterior's variance; at step 0, where that is 0, step 1's is
        taken.
        """
        variances = self.posterior_variances
        following = variances[1:2] if len(variances) > 1 else self.betas[:1]
        return torch.cat([following, variances[1:]]).log()

    def noised(self, clean: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x_t (DDPM, Eq. 4): (N, C, H, W) of clean and noise (N, C, H, W), t (N,) int64."""
        return (
            _at(self.alpha_bars.sqrt(), t, clean) * clean
            + _at((1 - self.alpha_bars).sqrt(), t, noise) * noise
        )

    def clean_of(self, x: torch.Tensor, epsilon: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x_0 as x_t and its noise say: `noised` solved for `clean`."""
        a, b = (1 / self.alpha_bars).sqrt(), (1 / self.alpha_bars - 1).sqrt()
        return _at(a, t, x) * x - _at(b, t, x) * epsilon

    def posterior_mean(self, clean: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Mean of x_{t-1} given x_t and x_0 (DDPM, Eq. 7)."""
        a = self.betas * self.alpha_bars_before.sqrt() / (1 - self.alpha_bars)
        b = (1 - self.alpha_bars_before) * (1 - self.betas).sqrt() / (1 - self.alpha_bars)
        return _at(a, t, x) * clean + _at(b, t, x) * x

    def log_variance(self, v: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What the network's v in [-1, 1] (not clipped) says: ID, Eq. 15, between posterior
        variance and beta.
        """
        part = (v + 1) / 2
        return part * _at(self.betas.log(), t, v) + (1 - part) * _at(self.least_log_variances, t, v)

    def reverse(
        self, x: torch.Tensor, output: torch.Tensor, t: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and logarithm of the variance of x_{t-1}, each (N, C, H, W), of the network's output
        (N, 2C, H, W).
        """
        epsilon, v = output.chunk(2, dim=1)
        return self.posterior_mean(self.clean_of(x, epsilon, t), x, t), self.log_variance(v, t)

    def losses(
        self,
        output: torch.Tensor,
        clean: torch.Tensor,
        noise: torch.Tensor,
        x: torch.Tensor,
        t: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The two parts of the hybrid loss (ID, Eq. 16), each (N,) means over latent values.

        Squared error of the noise, and the variational bound in bits, whose gradient reaches the
        variance alone. ID weighs the sum of the bound over its 1,000 steps with 0.001; drawn at one
        step that weight is 1.
        """
        epsilon, v = output.chunk(2, dim=1)
        squared = (epsilon - noise).square().flatten(1).mean(1)
        mean, log_variance = self.reverse(x, torch.cat([epsilon.detach(), v], dim=1), t)
        target = self.posterior_mean(clean, x, t)
        divergence = gaussian_kl(target, _at(self.least_log_variances, t, x), mean, log_variance)
        first = -discretised_log_likelihood(clean, mean, log_variance)
        bound = torch.where((t == 0)[:, None], first.flatten(1), divergence.flatten(1))
        return squared, bound.mean(1) / math.log(2)


def diffusion(steps: int = TRAIN_STEPS) -> Diffusion:
    """The chain of 1,000 steps, or `steps` of them evenly spread, first and last included (ID,
    Section 4).
    """
    betas = torch.linspace(BETA_FIRST, BETA_LAST, TRAIN_STEPS, dtype=torch.float64)
    if not 1 <= steps <= TRAIN_STEPS:
        raise ValueError(f"steps lie in 1..{TRAIN_STEPS}, got {steps}")
    stride = (TRAIN_STEPS - 1) / max(steps - 1, 1)
    kept = torch.tensor(
        [round(i * stride) for i in range(steps)] if steps > 1 else [TRAIN_STEPS - 1]
    )
    alpha_bars = torch.cumprod(1 - betas, 0)[kept]
    before = torch.cat([alpha_bars.new_ones(1), alpha_bars[:-1]])
    return Diffusion(kept, 1 - alpha_bars / before)


def gaussian_kl(
    mean: torch.Tensor,
    log_variance: torch.Tensor,
    other_mean: torch.Tensor,
    other_log_variance: torch.Tensor,
) -> torch.Tensor:
    """Divergence of the second normal distribution from the first, value by value, in nats."""
    squared = (mean - other_mean).square() * torch.exp(-other_log_variance)
    return 0.5 * (
        other_log_variance
        - log_variance
        + torch.exp(log_variance - other_log_variance)
        + squared
        - 1
    )


def discretised_log_likelihood(
    x: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor
) -> torch.Tensor:
    """Logarithm of a normal distribution's mass in the level around x, value by value, in nats
    (DDPM, Eq. 13).

    Levels are 2/255 wide; the lowest and the highest of [-1, 1] reach to infinity.
    """
    inverse = torch.exp(-0.5 * log_variance)
    upper = torch.special.ndtr((x - mean + _HALF_LEVEL) * inverse)
    lower = torch.special.ndtr((x - mean - _HALF_LEVEL) * inverse)
    mass = torch.where(x < -0.999, upper, torch.where(x > 0.999, 1 - lower, upper - lower))
    return mass.clamp(min=1e-12).log()


def _at(table: torch.Tensor, t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Entries t of a table, (N, 1, 1, 1), in the precision of `like`."""
    return table.to(t.device)[t].to(like.dtype)[:, None, None, None]
