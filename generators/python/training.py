"""Training by the user's module: what it writes into its folder are the weights."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from equigrid.generators.calls import TrainCall
from equigrid.generators.common.rng import seed_of
from equigrid.generators.python.apart import apart
from equigrid.generators.python.calling import accepted, calling, imported
from equigrid.generators.python.config import PythonConfig
from equigrid.generators.trainer.devices import group


def train(
    images: np.ndarray, labels: np.ndarray, config: PythonConfig, call: TrainCall
) -> dict[str, torch.Tensor]:
    """The files that the module's `train` wrote, by relative path: (bytes,) uint8. None where it
    has no `train`: the module is then the generator as it is.

    images: (N, H, W, C) uint8; none for an open-set generator. In a worker group rank 0 trains
    alone. Raises ValueError for whatever the module raises, and if it writes nothing.
    """
    with apart():
        return _trained(images, labels, config, call)


def _trained(
    images: np.ndarray, labels: np.ndarray, config: PythonConfig, call: TrainCall
) -> dict[str, torch.Tensor]:
    module = imported(config)
    if not hasattr(module, "train") or group()[0] != 0:
        return {}
    # Below 2**32, as scikit-learn takes it.
    seed = seed_of(call.seed, "python training") % 2**32
    offered = {"device": str(call.device), "class_names": call.class_names, "log": call.log}
    with TemporaryDirectory(prefix="equigrid-train-") as folder:
        with calling(config, "train"):
            also = accepted(module.train, offered)
            module.train(images, labels, Path(folder), seed, **also, **config.training)
        found = packed(Path(folder))
    if not found:
        raise ValueError(f"module {config.module}: train wrote no file into its folder")
    return found


def packed(folder: Path) -> dict[str, torch.Tensor]:
    """All files below a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): torch.from_numpy(np.fromfile(path, np.uint8))
        for path in files
    }


def unpack(weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Writes them again. Raises ValueError for a name that leads out of the folder."""
    for name, content in weights.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"weights: {name!r} leads out of their folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        content.numpy().tofile(path)
