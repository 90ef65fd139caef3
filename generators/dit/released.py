"""Where released weights lie: files in diffusers' format, found and hashed without torch."""

import json
from pathlib import Path

from equigrid.generators.common import hub
from equigrid.generators.common.digests import sha256

WEIGHTS_NAME, CONFIG_NAME = "diffusion_pytorch_model.safetensors", "config.json"


def files(weights: str, vae_weights: str | None) -> dict[str, Path]:
    """The files that `weights` and `vae.weights` stand for: transformer, vae, vae_config.

    Raises ValueError, one line, for the first that is missing.
    """
    given = Path(hub.local(weights))
    if not given.exists():
        raise ValueError(f"weights: there is no folder or file {weights!r}")
    if vae_weights is not None:
        vae = Path(hub.local(vae_weights, "vae.weights"))
    elif (given / "vae").is_dir():
        vae = given / "vae"
    else:
        raise ValueError(
            f"weights: {weights!r} holds no vae/; name the autoencoder's folder as vae.weights"
        )
    folder = given / "transformer" if (given / "transformer").is_dir() else given
    found = {
        "transformer": folder / WEIGHTS_NAME if given.is_dir() else given,
        "vae": vae / WEIGHTS_NAME,
        "vae_config": vae / CONFIG_NAME,
    }
    for path in found.values():
        if not path.is_file():
            raise ValueError(
                f"weights: there is no file {str(path)!r}; "
                "docs/dit.md says how to convert a released one"
            )
    return found


def digests(weights: str, vae_weights: str | None) -> dict[str, str]:
    """SHA-256 of each of the files, hexadecimal."""
    return {
        name: sha256(str(path), "weights") for name, path in files(weights, vae_weights).items()
    }


def latent_scale(weights: str, vae_weights: str | None) -> float:
    """The factor that the released transformer's latents were scaled by, from its autoencoder's own
    config.
    """
    path = files(weights, vae_weights)["vae_config"]
    scale = json.loads(path.read_text(encoding="utf-8")).get("scaling_factor")
    if not isinstance(scale, int | float) or scale <= 0:
        raise ValueError(
            f"{path}: scaling_factor {scale!r}; write the positive factor that the latents were "
            "scaled by (0.18215 in DiT-XL/2 as released)"
        )
    return float(scale)
