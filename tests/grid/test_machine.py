"""What a new machine may lack: a package, a PyTorch that computes, a Ray that starts. `make test`
runs these before it so much as collects the others, so that it says so within the minute.
"""

import os
import re
import tomllib
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def lacking(requirements: list[str]) -> list[str]:
    """Those of which no module can be found."""
    modules: dict[str, set[str]] = {}
    for module, names in packages_distributions().items():
        for name in names:
            modules.setdefault(canonical(name), set()).add(module)
    wanted = [canonical(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements]
    return [name for name in wanted if not any(map(find_spec, modules.get(name, ())))]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_is_there():
    wanted = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    assert lacking(["no.such_package>=1", *wanted]) == ["no-such-package"]


def test_pytorch_computes():
    import torch
    import torchvision

    kernel = torch.ones(1, 1, 3, 3)
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    sums = torch.nn.functional.conv2d(image, kernel)
    assert sums.flatten().tolist() == [45.0, 54.0, 81.0, 90.0]
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist() == [1]  # compiled


def test_ray_starts(ray_here):
    import ray

    assert ray.get(ray.remote(num_cpus=0)(lambda: os.getpid()).remote()) != os.getpid()


@pytest.mark.parametrize("name", ["scikit_learn", "Scikit.Learn", "scikit-learn>=1.6"])
def test_names_are_compared_as_installers_do(name):
    assert lacking([name]) == []
