"""A text-to-image pipeline in Stable Diffusion's layout, so small that two cores train it in
minutes: `python examples/tiny_pipeline.py FOLDER`. For trying out what docs/open-set.md says of
adaptation where no released weights are at hand; of Stable Diffusion itself it says nothing.

It draws 16×16 pixels. Its autoencoder and its U-Net learn from pictures of a few random strokes,
and never see a digit. Its text encoder has random weights.
"""

import sys

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SIDE, TEXT = 16, 32
AUTOENCODER_STEPS, DENOISER_STEPS, BATCH = 400, 400, 32


def strokes(n: int, generator: torch.Generator) -> torch.Tensor:
    """Pictures of one to four straight, bright strokes on black: (n, 3, 16, 16) in [-1, 1]."""
    at = torch.arange(SIDE) / (SIDE - 1)
    x, y = torch.meshgrid(at, at, indexing="xy")
    place = torch.stack([x, y], dim=-1)[None, None]  # (1, 1, H, W, 2)
    begin, end = (torch.rand(n, 4, 1, 1, 2, generator=generator) * 0.8 + 0.1 for _ in range(2))
    along = end - begin
    share = ((place - begin) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-4)
    distance = (place - begin - share.clamp(0, 1)[..., None] * along).norm(dim=-1)
    there = torch.arange(4) <= torch.randint(0, 4, (n, 1), generator=generator)
    drawn = torch.exp(-((distance / 0.06) ** 2)) * there[..., None, None]
    return (drawn.amax(1, keepdim=True) * 2 - 1).expand(-1, 3, -1, -1)


def tokenizer() -> CLIPTokenizer:
    """One token a letter."""
    letters = [chr(c) for c in range(33, 127)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({word: i for i, word in enumerate(words)}, merges=[], model_max_length=32)


def text_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=TEXT,
            intermediate_size=TEXT,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            projection_dim=TEXT,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
        )  # fmt: skip
    ).eval()


def trained_autoencoder(generator: torch.Generator) -> AutoencoderKL:
    vae = AutoencoderKL(
        block_out_channels=(16, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, latent_channels=4,
        norm_num_groups=4, sample_size=SIDE,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    for _ in range(AUTOENCODER_STEPS):
        images = strokes(BATCH, generator)
        latents = vae.encode(images).latent_dist
        loss = F.l1_loss(vae.decode(latents.sample(generator)).sample, images)
        loss = loss + 1e-4 * latents.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"autoencoder: mean absolute error {loss.item():.3f} of 2", flush=True)
    with torch.no_grad():
        spread = vae.encode(strokes(256, generator)).latent_dist.sample(generator).std()
    vae.register_to_config(scaling_factor=1 / spread.item())
    return vae.eval()


def trained_denoiser(
    vae: AutoencoderKL, words: torch.Tensor, chain: DDIMScheduler, generator: torch.Generator
) -> UNet2DConditionModel:
    """words: (1, length, TEXT), what every picture is called."""
    unet = UNet2DConditionModel(
        sample_size=SIDE // 2, block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=TEXT,
        attention_head_dim=4,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3)
    losses = []
    for _ in range(DENOISER_STEPS):
        with torch.no_grad():
            clean = vae.encode(strokes(BATCH, generator)).latent_dist.sample(generator)
            clean = clean * vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=generator)
        t = torch.randint(0, chain.config.num_train_timesteps, (BATCH,), generator=generator)
        noisy = chain.add_noise(clean, noise, t)
        said = unet(noisy, t, encoder_hidden_states=words.expand(BATCH, -1, -1)).sample
        loss = F.mse_loss(said, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"denoiser: loss {sum(losses[-50:]) / 50:.3f}", flush=True)
    return unet.eval()


def make(folder: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    words, chain = tokenizer(), DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
    encoder, vae = text_encoder(words), trained_autoencoder(generator)
    ids = words("", padding="max_length", max_length=32, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        nothing = encoder(ids)[0]
    StableDiffusionPipeline(
        vae=vae, text_encoder=encoder, tokenizer=words, scheduler=chain, safety_checker=None,
        unet=trained_denoiser(vae, nothing, chain, generator), feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip


if __name__ == "__main__":
    make(sys.argv[1])
