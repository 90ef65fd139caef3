"""Weights in bf16 beside the weights, cast by one operation a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

LAYERS = (nn.Conv2d, nn.Linear)  # themselves: one derived from them may do more with its weights


class ShadowWeights:
    """bf16 copies of the weights of convolutions and linear layers, which take their place for a
    step's forward and backward pass.

    Autocast casts each weight by an operation of its own, and each of its gradients back: 220 of
    the 1,141 operations of ResNet-110's step. Here one operation casts them all, and one their
    gradients, to bitwise the same numbers.
    """

    def __init__(self, module: nn.Module):
        """module: on its device; what its layers are named, and hold between steps, stays."""
        found: dict[int, tuple[nn.Parameter, nn.Parameter]] = {}
        self.places: list[tuple[dict, str, nn.Parameter, nn.Parameter]] = []
        for layer in module.modules():
            if type(layer) not in LAYERS:
                continue
            for name, weight in layer._parameters.items():
                if weight is not None and weight.dtype == torch.float32:
                    own = nn.Parameter(weight.detach().to(torch.bfloat16), weight.requires_grad)
                    pair = found.setdefault(id(weight), (weight, own))
                    self.places.append((layer._parameters, name, *pair))
        self.weights: list[torch.Tensor] = [weight for weight, _ in found.values()]
        self.shadows: list[torch.Tensor] = [shadow for _, shadow in found.values()]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The layers have the copies, of the weights as they are now."""
        with torch.no_grad():
            torch._foreach_copy_(self.shadows, self.weights)
        for held, name, _, shadow in self.places:
            held[name] = shadow
        try:
            yield
        finally:
            for held, name, weight, _ in self.places:
                held[name] = weight

    def hand_back_gradients(self) -> None:
        """Gives the weights the gradients that their copies have; the copies have none then."""
        trained = [
            (weight, shadow, shadow.grad)
            for weight, shadow in zip(self.weights, self.shadows)
            if shadow.grad is not None
        ]
        gradients = [torch.empty_like(weight) for weight, _, _ in trained]
        if trained:
            torch._foreach_copy_(gradients, [narrow for _, _, narrow in trained])
        for (weight, shadow, _), gradient in zip(trained, gradients):
            weight.grad, shadow.grad = gradient, None
