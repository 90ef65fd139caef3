"""The networks: diffusers' transformer and autoencoder as the publications have them, and a patch
discriminator.
"""

import math
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.embeddings import PatchEmbed
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import nn

from equigrid.generators.dit.parts import VAE, Discriminator, Network

_QKV = ("to_q", "to_k", "to_v")


def transformer(
    network: Network, *, side: int, channels: int, classes: int
) -> DiTTransformer2DModel:
    """A DiT for latents (N, channels, side, side), its parameters without values, on the CPU.

    Class number `classes` stands for no label.

    In four respects diffusers' class differs from the publication's code, whose way is taken: one
    embedding of step and label serves all blocks (there each has its own), frequencies fall to
    1/10,000 in 128 parts (not 127), every layer norm has eps 1e-6, and labels are dropped by the
    training, not inside.  Between blocks the state stays float32 under autocast.
    """
    with torch.device("meta"):
        made = DiTTransformer2DModel(
            num_attention_heads=network.heads,
            attention_head_dim=network.width // network.heads,
            in_channels=channels,
            out_channels=2 * channels,
            num_layers=network.depth,
            sample_size=side,
            patch_size=network.patch,
            num_embeds_ada_norm=classes,
            norm_eps=1e-6,
        )
    embedding = made.transformer_blocks[0].norm1.emb
    embedding.time_proj.downscale_freq_shift = 0
    embedding.class_embedder.dropout_prob = 0.0
    for block in made.transformer_blocks:
        block.norm1.emb = embedding
    made.to_empty(device="cpu")
    with torch.random.fork_rng(devices=[]):  # the one part with a table of its own, of positions
        made.pos_embed = PatchEmbed(
            height=side,
            width=side,
            patch_size=network.patch,
            in_channels=channels,
            embed_dim=network.width,
        )
    made.pos_embed.register_forward_hook(_to_float32)
    return made


def initialise(network: DiTTransformer2DModel, generator: torch.Generator) -> None:
    """Draw the initial weights as the DiT's authors do; `generator` is a CPU generator.

    Linear layers are Xavier-uniform (query, key and value as one matrix of three times the height),
    biases zero. What gates and shifts the blocks, and the last layer, are zero: each block is the
    identity, the output zero (Peebles and Xie 2023, Section 3.2, adaLN-Zero).
    """
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            gain = math.sqrt(0.5) if name.split(".")[-1] in _QKV else 1.0
            nn.init.xavier_uniform_(layer.weight, gain, generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    patches: Any = network.pos_embed.proj
    nn.init.xavier_uniform_(patches.weight.view(len(patches.weight), -1), generator=generator)
    nn.init.zeros_(patches.bias)
    blocks: Any = network.transformer_blocks
    embedding, steps = blocks[0].norm1.emb, blocks[0].norm1.emb.timestep_embedder
    for table in (embedding.class_embedder.embedding_table, steps.linear_1, steps.linear_2):
        nn.init.normal_(table.weight, std=0.02, generator=generator)
    zeros = [block.norm1.linear for block in blocks]
    for gate in (*zeros, network.proj_out_1, network.proj_out_2):
        nn.init.zeros_(gate.weight)
        nn.init.zeros_(gate.bias)


def autoencoder(vae: VAE, *, side: int, channels: int, seed: int) -> AutoencoderKL:
    """The autoencoder for images (N, channels, side, side) in [-1, 1], torch's initial weights
    drawn from `seed`.
    """
    levels = len(vae.widths)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=vae.widths,
            layers_per_block=vae.layers_per_block,
            latent_channels=vae.latent_channels,
            norm_num_groups=vae.norm_groups,
            sample_size=side,
            scaling_factor=1.0,  # ours is measured and kept beside the weights
            mid_block_add_attention=vae.attention,
        )


def discriminator(config: Discriminator, *, channels: int, seed: int) -> nn.Sequential:
    """Images (N, channels, H, W) to a score for each patch, (N, 1, h, w); initial weights drawn
    from `seed`.

    Isola et al. 2017, Appendix 6.1.2, with group norm in place of batch norm: an image's score must
    not depend on what else is in the batch.
    """
    widths = [config.base_channels * min(2**i, 8) for i in range(config.layers + 1)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [
            nn.Conv2d(channels, widths[0], 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for i, (before, after) in enumerate(zip(widths[:-1], widths[1:])):
            stride = 2 if i + 2 <= config.layers else 1
            conv = nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False)
            layers += [conv, nn.GroupNorm(8, after), nn.LeakyReLU(0.2)]
        made = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        for layer in made:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
    return made


def _to_float32(module: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return output.float()
