"""The two loops that trainings are compared with: the one most people write, and that one tuned.

They need torch, torchvision and Pillow, and of this project the networks alone: a task's recipe may
be anything with the fields that they read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from equigrid.classifiers import models
from equigrid.classifiers.hardware import cpu_has_bf16
from equigrid.classifiers.models.network import Classifier, statistics


class Task(Protocol):
    """What is trained. images: (N, H, W, C) uint8, labels: (N,) int64. recipe: batch, augmentation
    (crop_padding_px, flip), lr, momentum, weight_decay, lr_at and steps_per_epoch, as
    `equigrid.classifiers.recipes.ResolvedRecipe` has them.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int
    model: str
    recipe: Any
    device: torch.device
    epochs: int


class _PilImages(torch.utils.data.Dataset):
    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable):
        from PIL import Image

        self.images = [Image.fromarray(image.squeeze()) for image in images]
        self.labels, self.transform = labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.transform(self.images[index]), int(self.labels[index])


def usual_loop(task: Task, seed: int) -> Classifier:
    """DataLoader workers, torchvision on PIL images, float32 as PyTorch has it, eager."""
    from torchvision import transforms

    torch.manual_seed(seed)
    augmentation, side = task.recipe.augmentation, task.images.shape[1]
    mean, std = statistics(torch.from_numpy(task.images))
    steps = [transforms.RandomCrop(side, padding=augmentation.crop_padding_px)]
    steps += [transforms.RandomHorizontalFlip()] if augmentation.flip else []
    steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
    gpu = task.device.type == "cuda"
    loader = torch.utils.data.DataLoader(
        _PilImages(task.images, task.labels, transforms.Compose(steps)),
        batch_size=task.recipe.batch, shuffle=True, num_workers=os.cpu_count(), pin_memory=gpu,
        persistent_workers=True,
    )  # fmt: skip
    network, optimizer = _network(task)
    for epoch in range(task.epochs):
        for group in optimizer.param_groups:
            group["lr"] = task.recipe.lr_at(epoch * len(loader), len(task.labels))
        for x, y in loader:
            x, y = x.to(task.device, non_blocking=True), y.to(task.device, non_blocking=True)
            loss = F.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return _wrapped(network, mean, std, task)


def tuned_loop(task: Task, seed: int) -> Classifier:
    """Images on the device, augmented there; bf16 where the hardware has it, channels last;
    eager.
    """
    torch.manual_seed(seed)
    pixels = torch.from_numpy(task.images).to(task.device)
    labels = torch.from_numpy(task.labels).to(task.device)
    mean, std = statistics(pixels)
    data = pixels.permute(0, 3, 1, 2).float().div_(255)
    centre, spread = (
        torch.tensor(value, device=task.device).view(-1, 1, 1) for value in (mean, std)
    )
    data = (data - centre) / spread
    network, optimizer = _network(task)
    network = network.to(memory_format=torch.channels_last)
    batch, n = task.recipe.batch, len(labels)
    for epoch in range(task.epochs):
        for group in optimizer.param_groups:
            group["lr"] = task.recipe.lr_at(epoch * task.recipe.steps_per_epoch(n), n)
        order = torch.randperm(n, device=task.device)
        for start in range(0, n, batch):
            index = order[start : start + batch]
            x = _crop_flip(data[index], task.recipe.augmentation).contiguous(
                memory_format=torch.channels_last
            )
            with _bf16(task.device):
                loss = F.cross_entropy(network(x), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return _wrapped(network, mean, std, task)


def _crop_flip(x: torch.Tensor, augmentation) -> torch.Tensor:
    n, _, height, width = x.shape
    if augmentation.flip:
        x = torch.where(torch.rand(n, 1, 1, 1, device=x.device) < 0.5, x.flip(3), x)
    pad = augmentation.crop_padding_px
    if not pad:
        return x
    rows = torch.randint(0, 2 * pad + 1, (n, 1), device=x.device) + torch.arange(
        height, device=x.device
    )
    columns = torch.randint(0, 2 * pad + 1, (n, 1), device=x.device) + torch.arange(
        width, device=x.device
    )
    padded = F.pad(x, (pad,) * 4).permute(0, 2, 3, 1)
    index = torch.arange(n, device=x.device)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _network(task: Task):
    height, width, channels = task.images.shape[1:]
    network = models.build(
        task.model, classes=task.classes, height=height, width=width, channels=channels
    )
    network = network.to(task.device)
    settings = {"momentum": task.recipe.momentum, "weight_decay": task.recipe.weight_decay}
    return network, torch.optim.SGD(network.parameters(), lr=task.recipe.lr, **settings)


def _bf16(device: torch.device):
    available = device.type == "cuda" or cpu_has_bf16()
    return torch.autocast(device.type, torch.bfloat16) if available else nullcontext()


def _wrapped(network, mean, std, task: Task) -> Classifier:
    return Classifier(network, mean, std, task.images.shape[1:3]).to(task.device)
