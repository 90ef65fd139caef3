"""Weights to fine-tune from, and the images to do it on, without a download.

    python examples/pretrained_digits.py FOLDER
    EQUIGRID_FINETUNE=FOLDER equigrid run digits-finetune

Of scikit-learn's digits 800 are other people's data: a small vision transformer of timm's is
trained on them, and saved as timm saves weights (`FOLDER/elsewhere/`). The other 997 are one's own:
500 to train on, 497 to test (`FOLDER/here.npz`). Half a minute on one core.
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
from sklearn.datasets import load_digits
from timm.models import save_for_hf

ELSEWHERE, TRAIN = 800, 500
ARGS = {"img_size": 8, "patch_size": 2, "depth": 2, "embed_dim": 48, "num_heads": 4}
MEAN, STD = 0.5, 0.5  # of pixels in [0, 1]


def split() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (N, 8, 8, 1) uint8 and labels of others, of one's own training and of the test."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    parts = np.split(order, [ELSEWHERE, ELSEWHERE + TRAIN])
    names = ("elsewhere", "train", "test")
    return {name: (images[part], digits.target[part]) for name, part in zip(names, parts)}


def learned(images: np.ndarray, labels: np.ndarray, steps: int = 800) -> torch.nn.Module:
    """A network of timm's, trained on other people's images."""
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=10, in_chans=1, **ARGS)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).sub(MEAN).div(STD)
    targets = torch.from_numpy(labels).long()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(len(pixels), (64,))
        loss = torch.nn.functional.cross_entropy(network(pixels[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def main(folder: Path, steps: int = 800) -> None:
    """Writes both."""
    parts = split()
    network = learned(*parts["elsewhere"], steps)
    about = {"mean": [MEAN], "std": [STD]}
    save_for_hf(
        network, folder / "elsewhere", model_args=ARGS, safe_serialization=True,
        model_config={"pretrained_cfg": about}, data_config=about,
    )  # fmt: skip
    arrays = {
        f"{name}_{what}": array
        for name in ("train", "test")
        for what, array in zip(("images", "labels"), parts[name])
    }
    np.savez(folder / "here.npz", **arrays)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/pretrained_digits.py FOLDER")
    main(Path(sys.argv[1]))
