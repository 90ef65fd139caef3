"""One optimizer step of one or several trainings: run op by op, or replayed as one CUDA graph."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn

from equigrid.classifiers.data import augment, rng
from equigrid.classifiers.data.batches import Batch
from equigrid.classifiers.recipes import ResolvedRecipe
from equigrid.classifiers.training.shadow_weights import ShadowWeights


class Step:
    """Augment, forward, backward, update: one training's step."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        recipe: ResolvedRecipe,
        *,
        workers: int = 1,
        dropout_seed: int | None = None,
        class_weights: torch.Tensor | None = None,
        shadows: ShadowWeights | None = None,
    ):
        """module: from pixels to float32 logits, wrapped if there are several workers.

        class_weights: (classes,) float32 on the device, factors of the losses of a class's images.
        dropout_seed: given if the module draws random numbers; each step then seeds them anew from
        it and the step's number, so that a resumed training draws the same. shadows: bf16 copies
        of the module's weights, None where autocast casts them.
        """
        self.module, self.optimizer, self.recipe = module, optimizer, recipe
        self.workers, self.dropout_seed = workers, dropout_seed
        self.class_weights, self.shadows = class_weights, shadows
        self.parameters = list(module.parameters())

    def __call__(self, batch: Batch, number: int) -> torch.Tensor:
        """This worker's part of the global batch's mean loss, a scalar tensor; the weights are
        updated.
        """
        if self.dropout_seed is not None:
            torch.manual_seed(rng.mixed(self.dropout_seed, number))
        x = augment.batch(batch.padded, batch.draws, self.recipe.augmentation)
        y = batch.targets[batch.draws[:, rng.INDEX].long()]
        self.drop_gradients()
        with self.shadows.in_place() if self.shadows else nullcontext():
            logits = self.module(x)
            loss = self._loss(logits, y, batch.draws) / batch.n_global
            # The wrapper averages gradients over workers; the loss is a sum over them.
            (loss * self.workers if self.workers > 1 else loss).backward()
        if self.shadows:
            self.shadows.hand_back_gradients()
        self.optimizer.step()
        return loss.detach()

    def _loss(self, logits: torch.Tensor, y: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """The images' losses, summed, a scalar; draws: a row for each label.

        A mixed image counts as both of its own, each by its part. That is cross-entropy with mixed
        labels, which is linear in them, and so are label smoothing and class weights.
        """
        part = rng.Columns.of(self.recipe.augmentation).part
        if part is None:
            return self._summed(logits, y)
        own = augment.as_floats(draws, part)[1:]
        return self._summed(logits, y[1:], own) + self._summed(logits, y[:-1], 1 - own)

    def _summed(
        self, logits: torch.Tensor, y: torch.Tensor, parts: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The images' losses, summed, a scalar. logits: (n, classes); y: (n,) int64; parts: (n,)
        what each counts, None for 1.
        """
        smoothing = self.recipe.label_smoothing
        if self.class_weights is None and parts is None:
            return F.cross_entropy(logits, y, reduction="sum", label_smoothing=smoothing)
        # Not cross_entropy's own `weight`, which smoothing spreads over other classes too.
        losses = F.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)
        for factor in (parts, None if self.class_weights is None else self.class_weights[y]):
            losses = losses if factor is None else losses * factor
        return losses.sum()

    def drop_gradients(self) -> None:
        # What Optimizer.zero_grad does, without its bookkeeping, which shows in steps of two
        # milliseconds.
        for parameter in self.parameters:
            parameter.grad = None

    def set_lr(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("factor", 1.0)


class Steps:
    """The members' steps, one after another."""

    def __init__(self, members: Sequence[Step]):
        self.members = list(members)

    def __call__(self, batches: Sequence[Batch], number: int, lr: float) -> list[torch.Tensor]:
        """Each member's loss in step `number` at rate `lr`."""
        for member in self.members:
            member.set_lr(lr)
        return [member(batch, number) for member, batch in zip(self.members, batches)]
