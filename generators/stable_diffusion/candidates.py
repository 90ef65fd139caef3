"""Images as the pipeline makes them, before any is refused.

Candidate (i, attempt) of a pool has the label of image i; its noise, and its caption if it has one,
depend on the seed, i and attempt alone.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from equigrid.generators.calls import Base
from equigrid.generators.common import pools
from equigrid.generators.common.pixels import to_uint8
from equigrid.generators.common.rng import seed_of
from equigrid.generators.stable_diffusion import models, prompts, tokens
from equigrid.generators.stable_diffusion.captions import Captioner
from equigrid.generators.stable_diffusion.clip_filter import Scorer
from equigrid.generators.stable_diffusion.config import StableDiffusionConfig
from equigrid.generators.stable_diffusion.variation import SourceImages


class Wanted(NamedTuple):
    """A candidate to be made: for image `number` of the pool, of class `label`, after `attempt`
    refused ones.
    """

    number: int
    label: int
    attempt: int


class Candidate(NamedTuple):
    """A candidate made.

    image: (3, h, w) float32 in [0, 1], on the CPU.  confidence: CLIP's, None without a filter.
    facts: prompt, at_once (images of its batch), with captions template and caption (its number
    within the class), and with a variation source (its place in the base).
    """

    image: torch.Tensor
    confidence: float | None
    facts: dict


class Candidates:
    """Makes candidates of one pool."""

    def __init__(
        self,
        config: StableDiffusionConfig,
        names: tuple[str, ...],
        *,
        seed: int,
        device: torch.device,
        shares: tuple[int, ...] | None = None,
        weights: dict[str, torch.Tensor] | None = None,
        base: Base | None = None,
    ):
        """names: the classes in words, in the order of labels; shares: theirs of the labels,
        as in `pools.labels`; weights: what an adaptation learned; base: for a variation.  Loads all
        pre-trained parts.
        """
        self.shares = shares
        self.config, self.names, self.seed = config, names, seed
        self.batch = config.sampler.batch
        self.pipeline = models.pipeline(config, device, names, weights)
        self.size = models.asked_size(self.pipeline, config)
        own = config.adaptation
        self.words = tokens.words(len(names)) if own and own.tokens else names
        self.sources: SourceImages | None = None
        if config.variation is not None:
            size = models.size(self.pipeline, config)
            self.sources = SourceImages(base, names, seed=seed, shares=shares, size=size)
            self.varying = models.beginning_with_images(self.pipeline)
        self.captioner: Captioner | None = None
        if config.captions is not None:
            self.captioner = Captioner(config.captions, names, seed=seed, device=device)
        self.scorer: Scorer | None = None
        if config.clip_filter is not None:
            self.scorer = Scorer(config.clip_filter, names, device)

    def make(self, wanted: Sequence[Wanted]) -> Iterator[Candidate]:
        """The candidates, in order, `batch` at once; half as many from where the memory does not
        suffice.
        """
        done = 0
        while done < len(wanted):
            part = wanted[done : done + self.batch]
            try:
                made = self._batch(part)
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                made = None
            # Outside the handler, whose exception holds the failed batch's tensors.
            if made is None:
                self.batch = -(-len(part) // 2)
                torch.cuda.empty_cache()
                continue
            yield from made
            done += len(part)

    def _batch(self, wanted: Sequence[Wanted]) -> list[Candidate]:
        facts = [{**self._prompt(one), "at_once": len(wanted)} for one in wanted]
        images = self._images([fact["prompt"] for fact in facts], wanted)
        confidence: Sequence[float | None] = [None] * len(wanted)
        if self.scorer:
            labels = np.array([one.label for one in wanted])
            confidence = self.scorer(to_uint8(images * 2 - 1).numpy(), labels).tolist()
        return [Candidate(*row) for row in zip(images, confidence, facts)]

    def _images(self, texts: list[str], wanted: Sequence[Wanted]) -> torch.Tensor:
        """(n, 3, h, w) float32 in [0, 1] on the CPU."""
        seeds = [seed_of(self.seed, "pool noise", one.number, one.attempt) for one in wanted]
        asked = {
            "prompt": texts,
            "num_inference_steps": self.config.sampler.steps,
            "guidance_scale": self.config.sampler.guidance,
            # the CPU's, on every device
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "output_type": "pt",
        }
        own = self.config.variation
        if self.sources is None or own is None or own.strength == 1:  # of a source nothing is left
            made = self.pipeline(height=self.size[0], width=self.size[1], **asked)
        else:
            begun = self.sources.images([self.sources.place(*one[:2]) for one in wanted])
            made = self.varying(image=begun, strength=own.strength, **asked)
        return made.images.float().cpu()

    def _prompt(self, wanted: Wanted) -> dict:
        source = {}
        if self.sources is not None:
            source = {"source": self.sources.place(wanted.number, wanted.label)}
        return {**self._text(wanted), **source}

    def _text(self, wanted: Wanted) -> dict:
        if self.captioner is None:
            assert self.config.prompt is not None, "there is a prompt where there are no captions"
            return {"prompt": prompts.prompt(self.config.prompt, self.words[wanted.label])}
        at = np.array([wanted.number])
        before = int(pools.earlier(at, wanted.label, len(self.names), self.shares)[0])
        number = before // self.captioner.config.images_per_caption
        text = self.captioner.caption(wanted.label, number, wanted.attempt)
        return {
            "prompt": text,
            "template": self.captioner.template(number, wanted.attempt),
            "caption": number,
        }
