"""Captions by a language model that continues in-context examples (the method of Tian et al. 2024).

Caption number k of a class, and which of the templates it follows, depend on (seed, class, k,
attempt) alone.
"""

from functools import lru_cache

import torch

from equigrid.generators.common.rng import permutation, seed_of
from equigrid.generators.stable_diffusion import models
from equigrid.generators.stable_diffusion.config import Captions, Template
from equigrid.generators.stable_diffusion.words import Words

_ASK = "A caption for each of these, in one sentence:\n"
_TRIES = 8
"""Times that a caption is drawn anew where the model wrote nothing."""


class Captioner:
    """Writes the captions of one pool."""

    def __init__(
        self, config: Captions, names: tuple[str, ...], *, seed: int, device: torch.device
    ):
        """names: the classes in words, in the order of labels."""
        self.config, self.names, self.seed, self.device = config, names, seed, device
        self.words = config.words()

    def template(self, number: int, attempt: int) -> Template:
        """The template of caption `number`, `attempt`."""
        return self.config.templates[(number + attempt) % len(self.config.templates)]

    def caption(self, label: int, number: int, attempt: int = 0) -> str:
        """Caption `number` of the class `label`: one line.

        attempt: 0, or how many captions in its place came before, whose images the CLIP filter
        refused. Raises ValueError if the model writes nothing in _TRIES draws.
        """
        prompt = self.prompt(label, number, attempt)
        for again in range(_TRIES):
            draw = seed_of(self.seed, "caption", label, number, attempt, again)
            text = _completed(self.config, str(self.device), prompt, draw).strip(" \t\"'")
            if text:
                return text
        raise ValueError(
            "captions.language_model writes nothing for class "
            f"{self.names[label]!r} in {_TRIES} draws"
        )

    def prompt(self, label: int, number: int, attempt: int) -> str:
        """What the model continues: examples of the caption's template, then the class."""
        template = self.template(number, attempt)
        draw = seed_of(self.seed, "caption words", label, number, attempt)
        examples = _some(
            "examples", self.words.examples[template], self.config.examples_per_caption, draw
        )
        given = ", ".join([self.names[label], *_second(template, self.words, draw)])
        return "".join(
            [_ASK, *(f"{one} => {caption}\n" for one, caption in examples), f"{given} =>"]
        )


def _second(template: Template, words: Words, draw: int) -> list[str]:
    """The background or the relation beside the class, if the template has one."""
    lists = {"c": [], "c,bg": words.backgrounds, "c,rel": words.relations}
    return _some("second", lists[template], 1, draw)


def _some(purpose: str, values: list, count: int, draw: int) -> list:
    return [values[i] for i in permutation(draw, purpose, 0, len(values))[:count]]


@lru_cache(maxsize=100_000)  # a caption serves several images, which lie in several shards
def _completed(config: Captions, device: str, prompt: str, seed: int) -> str:
    """What the model writes after `prompt`, up to the end of the line."""
    from transformers import GenerationConfig

    tokenizer, model = models.language_model(config, torch.device(device))
    inputs = tokenizer(prompt, return_tensors="pt").to(device)
    # One at a time: beside others a prompt is padded, and rounding would turn one caption into
    # another.
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=0,
        max_new_tokens=config.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices), torch.inference_mode():
        torch.manual_seed(seed)
        tokens = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            stop_strings=["\n"],
            tokenizer=tokenizer,
        )
    text = tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return next(iter(text.strip().splitlines()), "")
