"""A token for each class (textual inversion, Gal et al. 2023): what the text encoders take it for
is learned, each encoder's apart; all else of them stays as it is.
"""

from typing import Any

import torch
from torch import nn

from equigrid.generators.common.weights import check_names

PREFIX = "tokens."


def words(classes: int) -> tuple[str, ...]:
    """The tokens, in the order of labels."""
    return tuple(f"<class-{label}>" for label in range(classes))


class Learned(nn.Module):
    """An encoder's table of embeddings, and behind it the learned ones: `vectors`, (classes, d)
    float32.
    """

    def __init__(self, table: nn.Module, first: int, vectors: torch.Tensor):
        """first: the id of the first token."""
        super().__init__()
        self.table, self.first = table, first
        self.vectors = nn.Parameter(vectors)

    @property
    def weight(self) -> torch.Tensor:
        """The table's own: text encoders ask for its dtype."""
        return self.table.weight  # type: ignore[return-value]  # of an embedding

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        own = (ids >= self.first) & (ids < self.first + len(self.vectors))
        known = self.table(torch.where(own, 0, ids))
        learned = self.vectors[torch.where(own, ids - self.first, 0)].to(known.dtype)
        return torch.where(own[..., None], learned, known)


def put_in(
    pipeline: Any, names: tuple[str, ...], weights: dict[str, torch.Tensor] | None = None
) -> dict[str, Learned]:
    """Give a pipeline's tokenizers and text encoders a token for each class; the tables by the
    encoder's name.

    names: the classes in words. weights: learned vectors by `tokens.<encoder>`; None: those that
    each begins with, the mean of its name's. Raises ValueError with the first difference if they
    are those of another pipeline.
    """
    made = {}
    for key, tokenizer, encoder in _encoders(pipeline):
        table = encoder.get_input_embeddings()
        vectors = torch.stack([_mean(tokenizer, table, name) for name in names])
        first = len(tokenizer)
        tokenizer.add_tokens(list(words(len(names))))
        # Some look for the end of a text by the largest id, which a new token would be.
        for layer in encoder.modules():
            if getattr(layer, "eos_token_id", None) is not None:
                layer.eos_token_id = tokenizer.eos_token_id
        made[key] = Learned(table, first, vectors)
        encoder.set_input_embeddings(made[key])
    if weights is not None:
        wanted = {f"{PREFIX}{key}": table.vectors for key, table in made.items()}
        check_names("learned tokens", wanted, weights)
        with torch.no_grad():
            for name, vectors in wanted.items():
                vectors.copy_(weights[name])
    return made


def of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The learned vectors among the tensors that a training returned."""
    return {name: value for name, value in weights.items() if name.startswith(PREFIX)}


def encoders(pipeline: Any) -> list[Any]:
    """A pipeline's text encoders, two of which may be missing from a Stable Diffusion 3."""
    return [encoder for _, _, encoder in _encoders(pipeline)]


def _encoders(pipeline: Any) -> list[tuple[str, Any, Any]]:
    found = []
    for end in ("", "_2", "_3"):
        encoder = getattr(pipeline, f"text_encoder{end}", None)
        if encoder is not None:
            found.append((f"text_encoder{end}", getattr(pipeline, f"tokenizer{end}"), encoder))
    return found


def _mean(tokenizer: Any, table: Any, name: str) -> torch.Tensor:
    ids = tokenizer(name, add_special_tokens=False)["input_ids"]
    device = table.weight.device
    with torch.no_grad():
        return table(torch.tensor(ids, dtype=torch.int64, device=device)).float().mean(0)
