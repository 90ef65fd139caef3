"""A generator of one's own in a grid: per class, a normal distribution in the space of the first
principal components, in numpy alone.

    python examples/own_generator.py

runs a small grid on scikit-learn's digits with it, and prints the answer. In a spec it reads

    generators:
      pca: {kind: python, module: own_generator, setting: closed, training: {components: 20}}

docs/own-generator.md says what a module may have, and what it promises.
"""

from pathlib import Path

import numpy as np


def train(
    images: np.ndarray, labels: np.ndarray, folder: Path, seed: int, components: int = 20
) -> None:
    """Fits the distributions to the base subset and writes them into the folder.

    images: (N, H, W, C) uint8; labels: (N,) int64. seed: of all draws; this training has none.
    """
    pixels = images.reshape(len(images), -1).astype(np.float64)  # (N, H*W*C)
    mean = pixels.mean(0)
    axes = np.linalg.svd(pixels - mean, full_matrices=False)[2][:components]  # (K, H*W*C)
    places = (pixels - mean) @ axes.T  # (N, K)
    classes = np.unique(labels)
    centres = np.stack([places[labels == one].mean(0) for one in classes])
    spread = np.stack([places[labels == one].std(0) for one in classes])
    np.savez(
        folder / "distributions.npz",
        classes=classes, shape=images.shape[1:], mean=mean, axes=axes, centres=centres,
        spread=spread,
    )  # fmt: skip


class Generator:
    """What `load` gives back: all that is needed of it is `sample`."""

    def __init__(self, fitted: dict[str, np.ndarray], temperature: float) -> None:
        self.fitted, self.temperature = fitted, temperature

    def sample(self, label: int, seed: int) -> np.ndarray:
        """An image of a class, (H, W, C) uint8. All its randomness comes from the seed."""
        fitted, rng = self.fitted, np.random.default_rng(seed)
        row = int(np.flatnonzero(fitted["classes"] == label)[0])
        drawn = rng.normal(fitted["centres"][row], self.temperature * fitted["spread"][row])
        pixels = fitted["mean"] + drawn @ fitted["axes"]  # (H*W*C,)
        return pixels.round().clip(0, 255).astype(np.uint8).reshape(fitted["shape"])


def load(folder: Path, temperature: float = 1.0) -> Generator:
    """The generator that `train` wrote into the folder."""
    with np.load(folder / "distributions.npz") as file:
        return Generator(dict(file), temperature)


GRID = {
    "name": "own-generator",
    "dataset": "digits",
    "recipe": {"extends": "digits", "steps": 100},
    "classifiers": ["digits-cnn"],
    "generators": {
        "pca": {
            "kind": "python",
            "module": "own_generator",
            "path": str(Path(__file__).parent),
            "setting": "closed",
            "training": {"components": 20},
        }
    },
    "subset_seeds": [0, 1],
    "seeds": [0, 1],
    "blocks": [{"n_base": 100, "real": [1, 2], "syn": {"pca": [1, 4]}, "copies": [4]}],
}


if __name__ == "__main__":
    import equigrid as eg

    run = eg.run(GRID)
    print(run.answer(n_base=100, n_real=100))
    print(run.report())
