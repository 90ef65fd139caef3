"""One training among those of a loop: its network, optimizer and images."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from equigrid.classifiers import distributed, models
from equigrid.classifiers.compute import Speed
from equigrid.classifiers.data import rng
from equigrid.classifiers.data.batches import Resident
from equigrid.classifiers.data.mix import Mix
from equigrid.classifiers.data.stream import Streamed
from equigrid.classifiers.evaluation import evaluate
from equigrid.classifiers.models.network import Classifier
from equigrid.classifiers.models.pretraining import Start
from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.classifiers.training.shadow_weights import ShadowWeights
from equigrid.classifiers.training.step import Step

Feed = Resident | Streamed


class Replica:
    """What one seed has of its own."""

    def __init__(
        self,
        model: str,
        feed: Feed,
        recipe: ResolvedRecipe,
        classes: int,
        seed: int,
        speed: Speed,
        head: models.Head | None = None,
        start: Start | None = None,
    ):
        self.feed, self.seed, self.classes = feed, seed, classes
        self.module = _initial(model, recipe, classes, seed, feed, speed, head, start)
        self.optimizer = _optimizer(self.module, recipe)
        self.has_dropout = _has_dropout(self.module)
        # On a CPU there is nothing to launch, and a compiled network has its casts in its kernels.
        on_gpu = feed.device.type == "cuda"
        self.casts_at_once = self.module.bf16 and on_gpu and not speed.compile
        self.validated: list[tuple[int, dict]] = []

    def step(self, recipe: ResolvedRecipe, rank: int, size: int) -> Step:
        """The member's step as worker `rank` of `size`."""
        dropout_seed = rng.torch_seed(self.seed, "dropout", rank) if self.has_dropout else None
        parallel = (
            distributed.distribute(self.module, self.feed.device) if size > 1 else self.module
        )
        return Step(
            parallel, self.optimizer, recipe, workers=size, dropout_seed=dropout_seed,
            class_weights=_class_weights(self.feed, recipe, self.classes),
            shadows=ShadowWeights(self.module) if self.casts_at_once and size == 1 else None,
        )  # fmt: skip

    def validate(self, steps: int, mix: Mix) -> None:
        """Look at the validation split after so many steps."""
        result = evaluate(self.module, mix, classes=self.classes, device=self.feed.device)
        self.validated.append((steps, asdict(result)))

    def state(self) -> dict[str, Any]:
        # The optimizer's settings are the recipe's and this device's; only what it has learned is
        # state.
        return {
            "module": _on_host(self.module.state_dict()),
            "optimizer": _on_host(self.optimizer.state_dict()["state"]),
            "validated": _on_host(self.validated),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        # Copies: the optimizer goes on with the very tensors that it is given, and changes them.
        moments = _on_host(state["optimizer"])
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.validated = [tuple(item) for item in state["validated"]]


def _class_weights(feed: Feed, recipe: ResolvedRecipe, classes: int) -> torch.Tensor | None:
    """(classes,) float32: n / (k · n_c) for the k classes that the mix has, so that their mean over
    its images is 1; None where images count alike. Raises ValueError for streamed images.
    """
    if recipe.class_weights == "none":
        return None
    if not isinstance(feed, Resident):
        raise ValueError(
            "class_weights balanced: streamed images are not counted by class; use a smaller mix, "
            "or leave class_weights out"
        )
    counts = torch.bincount(feed.targets.cpu(), minlength=classes).float()
    weights = feed.n_total / ((counts > 0).sum() * counts.clamp(min=1))
    return (weights * (counts > 0)).to(feed.device)


def _initial(
    model: str,
    recipe: ResolvedRecipe,
    classes: int,
    seed: int,
    feed: Feed,
    speed: Speed,
    head: models.Head | None,
    start: Start | None,
) -> Classifier:
    """The untrained classifier for a feed's images, on its device.

    What of its weights is not pre-trained is drawn on the host, so they are the same on every
    device.
    """
    height, width, channels = feed.image_shape
    size = recipe.input_size(height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.torch_seed(seed, "initialisation"))
        network = models.build(
            model, classes=classes, height=size[0], width=size[1], channels=channels, head=head,
            start=start,
        )  # fmt: skip
    seen = start.how.channels if start else channels
    module = Classifier(network, *_normalisation(recipe, feed, seen), size)
    module.bf16 = speed.use_bf16(feed.device, min(recipe.batch, feed.n_total) * size[0] * size[1])
    if speed.compile:
        module.network.compile()
    return module.to(feed.device).to(memory_format=torch.channels_last)


def _normalisation(
    recipe: ResolvedRecipe, feed: Feed, seen: int
) -> tuple[list[float], list[float]]:
    """seen: the network's channels, of which a grey image fills all."""
    given, channels = recipe.normalisation, feed.image_shape[2]
    if channels not in (1, seen):
        raise ValueError(f"the weights take {seen} channels, the images have {channels}")
    if given is None:
        return feed.statistics()
    if len(given.mean) != seen:
        raise ValueError(
            f"the recipe normalises {len(given.mean)} channels, the images have {channels}"
        )
    return list(given.mean), list(given.std)


def _optimizer(module: Classifier, recipe: ResolvedRecipe) -> torch.optim.Optimizer:
    groups = _groups(module, recipe)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            groups,
            lr=recipe.lr,
            betas=(recipe.momentum, 0.999),
            weight_decay=recipe.weight_decay,
            # Keeps the step count on a GPU, as a CUDA graph needs.
            capturable=next(module.parameters()).device.type == "cuda",
            fused=True,
        )
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _groups(module: Classifier, recipe: ResolvedRecipe) -> list[dict[str, Any]]:
    """What learns, by rate; `factor` is what the schedule's rate is multiplied by."""
    learning = [p for p in module.parameters() if p.requires_grad]
    if recipe.head_lr is None:
        return [{"params": learning, "factor": 1.0}]
    head = {id(p) for p in models.last_layer(module.network).parameters()}
    groups = [
        {"params": [p for p in learning if id(p) not in head], "factor": 1.0},
        {"params": [p for p in learning if id(p) in head], "factor": recipe.head_lr / recipe.lr},
    ]
    return [group for group in groups if group["params"]]


def _has_dropout(module: nn.Module) -> bool:
    """Whether a layer draws random numbers in training, by torch's and timm's names for its
    probability.
    """
    if any(
        isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0
        for layer in module.modules()
    ):
        return True
    return any(getattr(layer, "drop_prob", None) for layer in module.modules())


def _on_host(value: Any) -> Any:
    """A copy whose tensors lie on the host and share memory with nothing."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_host(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_on_host(item) for item in value]
    return value
