"""Everything that sampling needs, as one mapping of tensors; and released weights in its form.

Names begin with `dit.` (the averaged transformer), `vae.` (the autoencoder) or `measured.` (what
`Latents` measures; sampling uses `measured.scale` alone).
"""

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

from equigrid.generators.common.weights import check_names, read
from equigrid.generators.dit import released
from equigrid.generators.dit.config import DiTConfig
from equigrid.generators.dit.network import autoencoder, transformer

_TABLE = "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"
_FIRST, _EMBEDDING = "transformer_blocks.0.norm1.emb.", ".norm1.emb."


def joined(**parts: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One mapping of several, each name led by its mapping's."""
    return {
        f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()
    }


def part_of(weights: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """The mapping that `joined` was given as `part`."""
    return {
        name.removeprefix(f"{part}."): value
        for name, value in weights.items()
        if name.startswith(f"{part}.")
    }


def classes_of(weights: dict[str, torch.Tensor]) -> int:
    """Classes of a transformer's weights: its table of labels has one row more, for no label."""
    if _TABLE not in weights:
        raise ValueError(f"weights: {_TABLE} is missing, the table of labels")
    return len(weights[_TABLE]) - 1


def loaded(
    weights: dict[str, torch.Tensor], config: DiTConfig, *, side: int
) -> DiTTransformer2DModel:
    """The configured transformer with weights, on the CPU; ValueError that names the first
    difference.
    """
    channels = config.vae.latent_channels
    network = transformer(config.network, side=side, channels=channels, classes=classes_of(weights))
    parameters = dict(network.named_parameters())
    check_names("weights", parameters, weights)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(weights[name])
    return network


def from_files(
    config: DiTConfig, *, shape: tuple[int, int, int], classes: int
) -> dict[str, torch.Tensor]:
    """The released weights that a configuration names, float32, checked against the configured
    networks.
    """
    assert config.weights is not None
    files = released.files(config.weights, config.vae.weights)
    dit = _one_embedding(read(str(files["transformer"])))
    known = classes_of(dit)
    for index in config.class_indices or (classes - 1,):
        if not 0 <= index < known:
            raise ValueError(
                f"class {index} is not one of the network's {known}; "
                "class_indices says which to take"
            )
    loaded(dit, config, side=config.latent_side(*shape[:2]))
    with torch.device("meta"):
        wanted = autoencoder(config.vae, side=shape[0], channels=shape[2], seed=0).state_dict()
    # Old files name the attention's layers otherwise; diffusers knows how.
    model = AutoencoderKL.from_pretrained(
        files["vae"].parent, local_files_only=True, use_safetensors=True
    )
    vae = {name: value.float().contiguous() for name, value in model.state_dict().items()}
    check_names("autoencoder", wanted, vae)
    scale = torch.tensor(released.latent_scale(config.weights, config.vae.weights))
    return joined(dit=dit, vae=vae, measured={"scale": scale})


def _one_embedding(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the copies of the embedding of step and label that diffusers' files hold for each
    block.
    """
    kept = {}
    for name, value in weights.items():
        if _EMBEDDING in name and not name.startswith(_FIRST):
            first = _FIRST + name.split(_EMBEDDING)[1]
            if first not in weights or not torch.equal(value, weights[first]):
                raise ValueError(
                    f"weights: {name} differs from {first}; in a DiT all blocks share one embedding"
                )
        else:
            kept[name] = value.float().contiguous()
    return kept
