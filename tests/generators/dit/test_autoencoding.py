"""The retrained autoencoder: shapes, its losses by hand, the discriminator's turn, latents and what
is measured.
"""

import numpy as np
import pytest
import torch

from equigrid.generators import registry
from equigrid.generators.dit import latents as latents_module
from equigrid.generators.dit.autoencoding import Autoencoder, AutoencoderTrainer
from equigrid.generators.dit.latents import Latents
from equigrid.generators.dit.network import autoencoder, discriminator
from equigrid.generators.dit.weights import joined
from equigrid.generators.registry import config

CPU = torch.device("cpu")


def tiny(*, flips: bool = True, **training):
    judge = {
        "base_channels": 8,
        "layers": 1,
        "starts_at_part": 0.5,
        **training.pop("discriminator", {}),
    }
    vae = {
        "downsample": 2, "base_channels": 8, "layers_per_block": 1, "latent_channels": 3, "norm_groups": 4,
        "attention": False, "training": {"steps": 6, "batch": 4, "discriminator": judge, **training},
    }  # fmt: skip
    network = {"depth": 1, "width": 16, "heads": 2}
    return config({"kind": "dit", "vae": vae, "network": network, "flips": flips})


def pictures(n: int = 20, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, channels), dtype=np.uint8)


def stage(chosen, images=None, seed: int = 0) -> AutoencoderTrainer:
    return AutoencoderTrainer(
        pictures() if images is None else images, chosen, seed=seed, device=CPU
    )


def untrained(chosen, channels: int = 1) -> dict[str, torch.Tensor]:
    return stage(chosen, pictures(channels=channels)).weights()


class TestNetworks:
    @pytest.mark.parametrize("factor", [1, 2, 4, 8])
    def test_downsampling(self, factor):
        vae = config(
            {"kind": "dit", "vae": {"downsample": factor, "base_channels": 8, "norm_groups": 4}}
        ).vae
        made = autoencoder(vae, side=16, channels=3, seed=0)
        moments = made.encode(torch.zeros(1, 3, 16, 16)).latent_dist
        assert moments.mean.shape == moments.logvar.shape == (1, 4, 16 // factor, 16 // factor)
        assert made.decode(moments.mean).sample.shape == (1, 3, 16, 16)

    def test_the_default_has_the_size_of_stable_diffusions(self):
        with torch.device("meta"):
            made = autoencoder(config({"kind": "dit"}).vae, side=256, channels=3, seed=0)
        assert sum(p.numel() for p in made.parameters()) == 83_653_863

    def test_patches_and_no_word_between_images(self):
        """Three layers see 70 pixels (Isola et al. 2017): 32 pixels give 4 - 2 patches a side."""
        judge = discriminator(
            config({"kind": "dit"}).vae.training.discriminator, channels=3, seed=0
        )
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        scores = judge(images)
        assert scores.shape == (4, 1, 2, 2)
        torch.testing.assert_close(judge(images[:1]), scores[:1], rtol=1e-4, atol=1e-5)

    def test_the_seed_decides_and_torch_is_left_alone(self):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        one, two, other = (stage(tiny(), seed=seed) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        for name in ("autoencoder", "discriminator"):
            weights = [of.learners[name].weights() for of in (one, two, other)]
            assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
            assert any(not torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


class TestLosses:
    def test_by_hand(self):
        """L1 per value, the divergence through torch.distributions, hinge; and what is minimised of
        them.
        """
        of = stage(tiny(kl_weight=0.01, discriminator={"starts_at_part": 0.0, "weight": 0.3}))
        part = of.batch()
        coder, judge = of.learners["autoencoder"].network, of.learners["discriminator"].network
        with torch.no_grad():
            made, mean, log_variance = coder(*part)
            posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
            kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
            l1 = (made - part.clean).abs().mean()
            kl = kl.sum((1, 2, 3)).mean()
            fake, real = judge(made), judge(part.clean)
            hinge = 0.5 * ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())
        losses = of.losses_of(part, 1.0)
        wanted = torch.stack([l1 + 0.01 * kl / 64, l1, kl, -fake.mean(), hinge])
        torch.testing.assert_close(losses, wanted, rtol=1e-4, atol=1e-5)

        gradient = coder.vae.decoder.conv_out.bias.grad.clone()
        coder.zero_grad()
        made, mean, log_variance = coder(*part)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
        ((made - part.clean).abs().mean() + 0.01 * kl / 64 - 0.3 * judge(made).mean()).backward()
        torch.testing.assert_close(coder.vae.decoder.conv_out.bias.grad, gradient)

    def test_the_draw_has_the_encoders_mean_and_variance(self):
        of = stage(tiny())
        part, coder = of.batch(), of.learners["autoencoder"].network
        with torch.no_grad():
            made, mean, log_variance = coder(*part)
            latents = mean + (0.5 * log_variance).exp() * part.noise
            torch.testing.assert_close(made, coder.vae.decode(latents).sample)
            torch.testing.assert_close(coder.vae.encode(part.clean).latent_dist.mean, mean)

    def test_the_discriminator_waits_and_teaches_nothing_before(self):
        of = stage(tiny())  # of 6 steps, 3 are without it
        before = of.learners["discriminator"].weights()
        for _ in range(3):
            assert of.advance()[3:].tolist() == [0, 0]
        assert all(
            torch.equal(before[name], value)
            for name, value in of.learners["discriminator"].weights().items()
        )
        assert (of.advance()[3:] != 0).all()
        assert any(
            not torch.equal(before[name], v)
            for name, v in of.learners["discriminator"].weights().items()
        )

    def test_the_autoencoders_step_leaves_no_gradient_in_the_discriminator(self):
        of = stage(tiny(discriminator={"starts_at_part": 0.0, "weight": 100.0}))
        part = of.batch()
        of.losses_of(part, 1.0)
        judge = of.learners["discriminator"].network
        made = {name: p.grad.clone() for name, p in judge.named_parameters()}
        judge.zero_grad()
        with torch.no_grad():
            fake = of.learners["autoencoder"].network(*part)[0]
        real, fake = judge(torch.cat([part.clean, fake])).chunk(2)
        (0.5 * ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean())).backward()
        for name, p in judge.named_parameters():
            torch.testing.assert_close(p.grad, made[name], rtol=1e-3, atol=1e-6)

    def test_half_of_the_images_are_mirrored_where_asked(self):
        images = pictures()
        images[:, :, :4], images[:, :, 4:] = 0, 255
        of = stage(tiny(), images)
        seen = [bool(image[0, 0, 0] < 0) for step in range(25) for image in batch_at(of, step)]
        assert 30 < sum(seen) < 70  # of 100, 4 deviations
        still = batch_at(stage(tiny(flips=False), images), 0)
        assert (still[:, 0, 0, 0] < 0).all()


def batch_at(of: AutoencoderTrainer, step: int) -> torch.Tensor:
    of.step = step
    return of.batch().clean


def test_it_learns_to_reconstruct():
    images = np.zeros((16, 8, 8, 1), np.uint8)
    for i in range(16):
        images[i, i % 8 : i % 8 + 2, : 4 + 4 * (i // 8)] = 255
    chosen = tiny(steps=60, batch=16, lr=5e-3, discriminator={"starts_at_part": 1.0})
    of = stage(chosen, images)
    losses = [float(of.advance()[1]) for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.35 * np.mean(losses[:10])
    measured = Latents(images, chosen, of.weights(), {}, device=CPU).measured
    assert float(measured["psnr_db"]) > 15


class TestLatents:
    def made(self, images=None, artefacts=None, chosen=None, weights=None) -> Latents:
        chosen = chosen or tiny()
        images = pictures() if images is None else images
        weights = weights or untrained(chosen, images.shape[3])
        return Latents(images, chosen, weights, {} if artefacts is None else artefacts, device=CPU)

    def test_are_the_encoders_mirrored_too(self):
        images, weights = pictures(channels=3), untrained(tiny(), 3)
        made = self.made(images, weights=weights)
        assert made.moments.shape == (20, 2, 6, 4, 4) and made.moments.dtype == torch.float16
        coder = Autoencoder(weights, tiny(), side=8, channels=3, device=CPU)
        for view, seen in enumerate((images, np.ascontiguousarray(images[:, :, ::-1]))):
            torch.testing.assert_close(
                made.moments[:, view].float(), coder.encode(seen), rtol=2e-3, atol=2e-3
            )
        assert self.made(images, chosen=tiny(flips=False), weights=weights).moments.shape[1] == 1

    def test_the_scale_is_measured_and_makes_draws_of_unit_deviation(self):
        made = self.made()
        n = 4000
        noise = torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        drawn = made.drawn(torch.arange(n) % 20, torch.arange(n) // 20 % 2 == 1, noise)
        assert float(drawn.std()) == pytest.approx(1, abs=0.01)
        scale = float(made.measured["scale"])
        torch.testing.assert_close(
            drawn.mean((0, 2, 3)) / scale, made.measured["mean"], rtol=0.05, atol=0.02
        )
        torch.testing.assert_close(
            drawn.std((0, 2, 3)) / scale, made.measured["std"], rtol=0.02, atol=0
        )
        mean, log_variance = made.moments[7, 1].float().chunk(2)
        wanted = scale * (mean + (0.5 * log_variance).exp() * noise[27])
        torch.testing.assert_close(drawn[27], wanted)

    def test_reconstruction_error(self):
        images, weights = pictures(), untrained(tiny())
        coder = Autoencoder(weights, tiny(), side=8, channels=1, device=CPU)
        back = coder.reconstruct(images)
        assert back.dtype == np.uint8 and back.shape == images.shape
        error = ((back.astype(float) - images) ** 2).mean()
        measured = self.made(images, weights=weights).measured
        assert float(measured["psnr_db"]) == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)
        assert float(measured["l1"]) == pytest.approx(
            np.abs(back.astype(float) - images).mean(), rel=1e-4
        )

    def test_the_reconstructor_is_the_autoencoder_of_the_weights(self):
        images, weights = pictures(), untrained(tiny())
        back = registry.reconstructor(joined(vae=weights), tiny(), shape=(8, 8, 1))(images)
        coder = Autoencoder(weights, tiny(), side=8, channels=1, device=CPU)
        assert np.array_equal(back, coder.reconstruct(images))
        assert [kind for kind in registry.BACKENDS if registry.reconstructs(kind)] == ["dit"]

    def test_kept_shards_are_used_again_if_they_are_this_autoencoders(self, monkeypatch):
        monkeypatch.setattr(latents_module, "SHARD_IMAGES", 8)
        encoded = []
        real = Autoencoder.encode
        monkeypatch.setattr(
            Autoencoder, "encode", lambda self, x, **o: encoded.append(len(x)) or real(self, x, **o)
        )
        monkeypatch.setattr(latents_module, "_reconstruction", lambda *_: {})
        kept, weights = {}, untrained(tiny())
        first = self.made(artefacts=kept, weights=weights)
        assert sorted(kept) == ["latents/00000", "latents/00001", "latents/00002"]
        assert encoded == [8, 8, 8, 8, 4, 4]
        assert torch.equal(self.made(artefacts=kept, weights=weights).moments, first.moments)
        assert len(encoded) == 6  # none again
        del kept["latents/00001"]  # as one that was lost or damaged
        again = self.made(artefacts=kept, weights=weights)
        assert encoded[6:] == [8, 8] and torch.equal(again.moments, first.moments)
        other = stage(tiny(), seed=9).weights()
        assert not torch.equal(self.made(artefacts=kept, weights=other).moments, first.moments)
        assert encoded[8:] == [8, 8, 8, 8, 4, 4]

    def test_latents_that_went_astray(self):
        weights = {name: value * 1e4 for name, value in untrained(tiny()).items()}
        with pytest.raises(ValueError, match="not finite in float16"):
            self.made(weights=weights)
