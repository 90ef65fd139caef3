"""Training and sampling speed of the DiT against plain fp32 eager code on diffusers' classes, in
one run.

Usage: python benchmarks/dit.py [--size tiny|small|full] [--device cpu|cuda] [--threads N]
[--seconds OF_EACH_FIGURE] [--json FILE]

Training: "fp32 eager" as one would first write it (TF32 off, images encoded at every step, torch's
own AdamW, a loop over parameters for the average), the same on latents encoded once, and
"equigrid", what `generators.dit` does on this device.  Sampling: diffusers' own DiTPipeline in
fp32, and "equigrid"; both guided, with the decoder. full is DiT-XL/2 at 256x256 and wants a GPU;
small is a reduced network for a CPU; tiny only shows that it runs.
"""

from collections.abc import Callable

import comparing
import numpy as np
import torch
from comparing import rates

try:
    from diffusers import AutoencoderKL, DDPMScheduler, DiTPipeline, DiTTransformer2DModel
except ModuleNotFoundError as error:
    raise SystemExit(
        f"benchmarks/dit.py compares with diffusers' classes, and there is no {error.name} here: "
        "pip install diffusers"
    ) from None

from equigrid.generators.common.pixels import to_float
from equigrid.generators.dit.autoencoding import AutoencoderTrainer
from equigrid.generators.dit.config import DiTConfig
from equigrid.generators.dit.denoising import TransformerTrainer
from equigrid.generators.dit.diffusion import TRAIN_STEPS, diffusion
from equigrid.generators.dit.latents import Latents
from equigrid.generators.dit.network import autoencoder
from equigrid.generators.dit.sampling import Painter
from equigrid.generators.dit.weights import joined
from equigrid.generators.registry import config

CLASSES = 1000
"""What diffusers' pipeline takes for granted."""

REDUCED = {
    "downsample": 4,
    "base_channels": 16,
    "layers_per_block": 1,
    "norm_groups": 8,
    "attention": False,
}
SIZES = {
    "full": {
        "side": 256, "images": 256, "steps": 10, "rounds": 3,
        "spec": {
            "preset": "dit-xl2", "training": {"batch": 32}, "sampler": {"steps": 25, "batch": 32},
        },
    },
    "small": {
        "side": 32, "images": 64, "steps": 2, "rounds": 5,
        "spec": {
            "network": {"depth": 6, "width": 128, "heads": 4}, "vae": REDUCED,
            "training": {"batch": 16}, "sampler": {"steps": 10, "batch": 8},
        },
    },
    "tiny": {
        "side": 32, "images": 4, "steps": 1, "rounds": 1,
        "spec": {
            "network": {"depth": 1, "width": 16, "heads": 2}, "vae": REDUCED,
            "training": {"batch": 4}, "sampler": {"steps": 2, "batch": 2},
        },
    },
}  # fmt: skip


def measure(size: dict, device: torch.device) -> dict:
    spec = config({"kind": "dit", **size["spec"]})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size["images"], size["side"], size["side"], 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, len(images))
    vae = AutoencoderTrainer(images, spec, seed=0, device=torch.device("cpu")).weights()
    latents = Latents(images, spec, vae, {}, device=device)
    own = TransformerTrainer(
        latents, torch.from_numpy(labels), spec, classes=CLASSES, seed=0, device=device
    )
    own.prepare()
    weights = joined(dit=own.learners["transformer"].averaged(), vae=vae, measured=latents.measured)
    trains = {
        "fp32 eager, encoding each step": plain_step(
            images, labels, vae, spec, device, latents=None
        ),
        "fp32 eager, latents kept": plain_step(images, labels, vae, spec, device, latents=latents),
        "equigrid": own.advance,
    }
    painter = Painter(weights, spec, shape=images.shape[1:], device=device)
    samples = {
        "fp32 eager, DiTPipeline": plain_sampler(vae, spec, size["side"], device),
        "equigrid": lambda: painter.batch(
            0, range(spec.sampler.batch), labels[: spec.sampler.batch]
        ),
    }
    return {
        "training": rates(trains, spec.training.batch, device, size),
        "sampling": rates(samples, spec.sampler.batch, device, {**size, "steps": 1}),
        "microbatch": own.microbatch,
        "checkpointing": own.checkpointing,
        "batch": spec.training.batch,
        "sampling_batch": spec.sampler.batch,
        "sampling_steps": spec.sampler.steps,
    }


def plain_transformer(spec: DiTConfig, side: int) -> DiTTransformer2DModel:
    network = spec.network
    return DiTTransformer2DModel(
        num_attention_heads=network.heads,
        attention_head_dim=network.width // network.heads,
        in_channels=spec.vae.latent_channels,
        out_channels=2 * spec.vae.latent_channels,
        num_layers=network.depth,
        sample_size=side // spec.vae.downsample,
        patch_size=network.patch,
        num_embeds_ada_norm=CLASSES,
    )


def plain_vae(weights: dict, spec: DiTConfig, side: int, device: torch.device) -> AutoencoderKL:
    made = autoencoder(spec.vae, side=side, channels=3, seed=0)
    made.load_state_dict(weights)
    return made.to(device).eval()


def plain_step(
    images, labels, vae_weights, spec: DiTConfig, device: torch.device, *, latents: Latents | None
) -> Callable[[], None]:
    """A training step as one would first write it; with `latents` on what was encoded once."""
    network = plain_transformer(spec, images.shape[1]).to(device).train()
    average = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.AdamW(network.parameters(), lr=spec.training.lr, weight_decay=0)
    vae = plain_vae(vae_weights, spec, images.shape[1], device)
    chain, n = diffusion(), spec.training.batch
    labels = torch.from_numpy(labels).to(device)

    def clean() -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randint(0, len(images), (n,))
        if latents is None:
            with torch.no_grad():
                drawn = vae.encode(
                    to_float(torch.tensor(images[chosen.numpy()], device=device))
                ).latent_dist.sample()
            return drawn, chosen
        noise = torch.randn(
            n, latents.moments.shape[2] // 2, *latents.moments.shape[3:], device=device
        )
        return latents.drawn(chosen, torch.zeros(n, dtype=torch.bool), noise), chosen

    def step() -> None:
        x, chosen = clean()
        t = torch.randint(0, TRAIN_STEPS, (n,), device=device)
        noise = torch.randn_like(x)
        noisy = chain.noised(x, noise, t)
        output = network(noisy, timestep=t, class_labels=labels[chosen.to(device)]).sample
        squared, bound = chain.losses(output, x, noise, noisy, t)
        optimizer.zero_grad()
        (squared + bound).mean().backward()
        optimizer.step()
        with torch.no_grad():
            for mean, p in zip(average, network.parameters()):
                mean.copy_(p.lerp(mean, spec.training.ema_decay))

    return step


def plain_sampler(
    vae_weights, spec: DiTConfig, side: int, device: torch.device
) -> Callable[[], None]:
    network = plain_transformer(spec, side).to(device).eval()
    scheduler = DDPMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False)
    pipeline = DiTPipeline(network, plain_vae(vae_weights, spec, side, device), scheduler)
    pipeline.set_progress_bar_config(disable=True)
    classes = [i % CLASSES for i in range(spec.sampler.batch)]
    return lambda: pipeline(
        classes,
        guidance_scale=spec.sampler.guidance,
        num_inference_steps=spec.sampler.steps,
        output_type="np",
    )


def table(report: dict) -> str:
    """The figures as Markdown tables; x: times the first row's rate."""
    checkpointing = "on" if report["checkpointing"] else "off"
    how = f"{report['microbatch']} at once, checkpointing {checkpointing}"
    lines = [
        f"{comparing.headline(report)}, training batch {report['batch']} (equigrid: {how}), "
        f"sampling batch {report['sampling_batch']}, {report['sampling_steps']} steps"
    ]
    headers = {
        "training": "| training | images/s | steps/s | x |",
        "sampling": "| sampling | images/s | x |",
    }
    for what, header in headers.items():
        lines += ["", header, "|---" * (header.count("|") - 1) + "|"]
        base = next(iter(report[what].values()))
        for name, rate in report[what].items():
            steps = f" {rate / report['batch']:.3g} |" if what == "training" else ""
            lines.append(f"| {name} | {rate:.4g} |{steps} {rate / base:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    comparing.main(__doc__, SIZES, measure, table)
