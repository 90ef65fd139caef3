"""Training adapters, and perhaps tokens, on the base subset: latents and prompts are encoded once,
the pipeline's own weights stay as they are.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from equigrid.generators import base_config
from equigrid.generators.calls import State, TrainCall
from equigrid.generators.common.rng import order, seed_of
from equigrid.generators.stable_diffusion import adapters, models, prompts, tokens
from equigrid.generators.stable_diffusion.config import StableDiffusionConfig
from equigrid.generators.stable_diffusion.latents import Latents
from equigrid.generators.stable_diffusion.objectives import objective
from equigrid.generators.trainer.devices import on_rank_0
from equigrid.generators.trainer.learner import Learner
from equigrid.generators.trainer.loop import check_step, run
from equigrid.generators.trainer.trainer import Trainer
from equigrid.generators.trainer.training_log import TrainingLog

STAGE = "adaptation"


def adapt(
    images: np.ndarray,
    labels: np.ndarray,
    config: StableDiffusionConfig,
    names: tuple[str, ...],
    call: TrainCall,
) -> dict[str, torch.Tensor]:
    """What the adaptation learns, float32 on the CPU, by name: `unet.<layer>.lora_A.weight` (for
    Stable Diffusion 3 `transformer.`) as in diffusers' files, and `tokens.<encoder>` (classes, d).

    names: the classes in words.
    """
    adapters.check_installed()
    models.release()  # what sampling kept: never two in memory
    pipeline = models.pipeline_to_adapt(config, torch.device(call.device))
    trainer = AdapterTrainer(
        pipeline, images, torch.from_numpy(labels), config, names, seed=call.seed,
        device=torch.device(call.device), artefacts=call.artefacts,
    )  # fmt: skip
    own = adapters.part(pipeline)
    del pipeline  # what the trainer does not hold goes: the autoencoder, text encoders
    resume, learner = call.resume, trainer.learners[STAGE]
    if resume is not None:
        check_step(resume["step"], trainer.steps)
        learner.restore(resume["learner"])
        trainer.step = resume["step"]
    trainer.prepare()
    training_log = TrainingLog(on_rank_0(call.log), trainer.COLUMNS, resume=resume)
    training_log.begin(trainer)

    def learned() -> dict[str, torch.Tensor]:
        weights = learner.weights()
        vectors = {
            f"{tokens.PREFIX}{name.split('.')[2]}": value
            for name, value in weights.items()
            if name.startswith("prompts.")
        }
        return {**adapters.trained(weights, own), **vectors}

    def make_state() -> State:
        """`average` is what sampling takes, for a look at the training."""
        return {
            "stage": STAGE, "step": trainer.step, "learner": learner.state(), "average": learned(),
        }  # fmt: skip

    run(trainer, training_log, on_rank_0(call.checkpoint), make_state)
    return learned()


class Noised(NamedTuple):
    clean: torch.Tensor
    """(n, C, h, w) float32 latents."""
    noise: torch.Tensor
    """(n, C, h, w) float32."""
    levels: torch.Tensor
    """(n,) float32, see `objectives`."""
    labels: torch.Tensor
    """(n,) int64; the number of classes where the prompt is dropped."""


class AdapterTrainer(Trainer[Noised]):
    """One training: of adapters (Hu et al. 2022), by the loss that the pipeline was trained by."""

    COLUMNS = ("loss",)

    def __init__(
        self,
        pipeline: Any,
        images: np.ndarray,
        labels: torch.Tensor,
        config: StableDiffusionConfig,
        names: tuple[str, ...],
        *,
        seed: int,
        device: torch.device,
        artefacts: Any,
    ):
        """pipeline: of its own, changed here, on the device."""
        assert config.adaptation is not None, "asked for"
        own = self.adaptation = config.adaptation
        compute = base_config.Compute(
            training_precision=config.compute.training_precision,
            microbatch=config.compute.microbatch,
        )
        super().__init__(
            steps=own.steps,
            batch=own.batch,
            compute=compute,
            seed=seed_of(seed, "adaptation"),
            device=device,
            gradient_checkpointing=config.compute.gradient_checkpointing,
        )
        self.labels, self.classes = labels, len(names)
        self.objective = objective(pipeline)
        size = models.size(pipeline, config)
        vae = pipeline.vae.to(torch.float32)
        self.latents = Latents(images, vae, artefacts, size=size, flips=own.flips)
        denoiser = getattr(pipeline, adapters.part(pipeline))
        adapters.put_in(denoiser, own, self.seed)
        self.checkpointed = denoiser
        assert config.prompt is not None, "an adaptation has one"
        network = Adapted(denoiser, _prompts(pipeline, config.prompt, names, own.tokens))
        groups = [{"params": list(network.adapters()), "weight_decay": own.weight_decay}]
        if own.tokens:
            vectors = [p for p in network.prompts.parameters() if p.requires_grad]
            groups.append({"params": vectors, "rate": own.token_lr / own.lr, "weight_decay": 0.0})
        optimizer = torch.optim.AdamW(groups, lr=own.lr, fused=True)
        network.to(device)
        self.learners = {STAGE: Learner(network, optimizer, precision=self.precision)}

    def batch(self) -> Noised:
        n, part = self.batch_size, self.part
        chosen = torch.from_numpy(order(len(self.labels), self.seed, self.step * n, n))
        few = torch.Generator().manual_seed(seed_of(self.seed, "training", self.step))
        mirrored = torch.rand(n, generator=few) < (0.5 if self.adaptation.flips else 0.0)
        dropped = torch.rand(n, generator=few) < self.adaptation.prompt_dropout
        levels = self.objective.levels(n, few)
        labels = torch.where(dropped, self.classes, self.labels[chosen])
        many = torch.Generator(self.device).manual_seed(
            seed_of(self.seed, "training noise", self.step)
        )
        shape = (n, *self.latents.shape)
        spread, noise = (
            torch.randn(shape, generator=many, device=self.device)[part] for _ in range(2)
        )
        clean = self.latents.drawn(chosen[part], mirrored[part], spread)
        return Noised(clean, noise, levels[part].to(self.device), labels[part].to(self.device))

    def losses_of(self, part: Noised, share: float, *, full: bool = False) -> torch.Tensor:
        learner = self.learners[STAGE]
        noisy, target, t = self.objective.noised(part.clean, part.noise, part.levels)
        with self.autocast():
            output = learner.forward(noisy, t, part.labels)
        loss = F.mse_loss(output.float(), target)
        learner.backward(share * loss)
        return share * loss.detach()[None]

    def rates(self) -> tuple[float, float]:
        return self.adaptation.rate(self.step), 0.0


class Adapted(nn.Module):
    """A denoiser with adapters, and the prompts that it is shown: the classes', and the empty
    one.
    """

    def __init__(self, denoiser: Any, shown: nn.Module):
        super().__init__()
        self.denoiser, self.prompts = denoiser, shown
        self.dtype = denoiser.dtype

    def adapters(self) -> Iterator[nn.Parameter]:
        return (p for p in self.denoiser.parameters() if p.requires_grad)

    def forward(self, noisy: torch.Tensor, t: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """noisy (n, C, h, w) float32, t (n,), labels (n,) int64 -> what the denoiser says, as
        noisy.
        """
        words, pooled = self.prompts(labels)
        more = {} if pooled is None else {"pooled_projections": pooled.to(self.dtype)}
        return self.denoiser(
            noisy.to(self.dtype), timestep=t, encoder_hidden_states=words.to(self.dtype), **more
        ).sample


class Fixed(nn.Module):
    """Prompts' embeddings, computed once: (classes + 1, length, d), and (classes + 1, d) pooled for
    Stable Diffusion 3.
    """

    words: torch.Tensor
    pooled: torch.Tensor | None

    def __init__(self, words: torch.Tensor, pooled: torch.Tensor | None):
        super().__init__()
        self.register_buffer("words", words, persistent=False)
        self.register_buffer("pooled", pooled, persistent=False)

    def forward(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self.words[labels], None if self.pooled is None else self.pooled[labels]


class Learnt(nn.Module):
    """Prompts with learned tokens, encoded anew in each step: those of the classes in a batch, each
    once.
    """

    def __init__(self, pipeline: Any, texts: list[str], tables: dict[str, tokens.Learned]):
        super().__init__()
        self.tables = nn.ModuleDict(tables)
        self.held = (pipeline, texts)  # in a tuple, in which torch looks for no modules

    def forward(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        pipeline, texts = self.held
        seen, places = labels.unique(return_inverse=True)
        words, pooled = _encoded(pipeline, [texts[label] for label in seen.tolist()])
        return words[places], None if pooled is None else pooled[places]


def _prompts(pipeline: Any, template: str, names: tuple[str, ...], learned: bool) -> Fixed | Learnt:
    for encoder in tokens.encoders(pipeline):
        encoder.requires_grad_(False).eval()
    if not learned:
        with torch.no_grad():
            return Fixed(*_encoded(pipeline, [prompts.prompt(template, n) for n in names] + [""]))
    tables = tokens.put_in(pipeline, names)
    shown = tokens.words(len(names))
    return Learnt(pipeline, [prompts.prompt(template, token) for token in shown] + [""], tables)


def _encoded(pipeline: Any, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Embeddings (n, length, d) of texts, and for Stable Diffusion 3 pooled ones (n, d), as the
    pipeline itself makes them.
    """
    options = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    device = pipeline.vae.device
    if not hasattr(pipeline, "transformer"):
        return pipeline.encode_prompt(texts, device, **options)[0], None
    words, _, pooled, _ = pipeline.encode_prompt(
        texts, prompt_2=None, prompt_3=None, device=device, **options
    )
    return words, pooled
