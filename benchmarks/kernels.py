"""What a training step consists of, without a GPU: operations when run eagerly, and the kernels
that Inductor makes of a network.

    python benchmarks/kernels.py              # counts of eager steps, in seconds
    python benchmarks/kernels.py --inductor   # and of compiled networks: a minute

Networks have their full size and batches are small, on which no count depends. An operation is one
kernel or more on a device, so the counts say where a step that is bound by launches spends itself;
they say nothing of time. Inductor's counts are of its backend for CPUs, which fuses by the same
rules as that for GPUs but has its own ways with reductions and layouts: they tell one version of a
network from another, and are not a GPU's. Its code is neither compiled nor run.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from equigrid.classifiers import models
from equigrid.classifiers.data.batches import Batch
from equigrid.classifiers.models.network import Classifier
from equigrid.classifiers.recipes import recipe, resolve
from equigrid.classifiers.training.shadow_weights import ShadowWeights
from equigrid.classifiers.training.step import Step
from equigrid.generators.edm.network import EDMNetwork
from equigrid.generators.edm.weights import network_for
from equigrid.generators.registry import config

GROUPS = {
    "casts": ("_to_copy",),
    "convolutions": ("convolution", "convolution_backward"),
    "norms": ("batch_norm", "group_norm"),
    "additions in place": ("add_.Tensor",),
    "integers of dropout's masks": ("bitwise", "rshift"),
    "optimizer": ("_fused", "_foreach"),
}
"""Parts of the names of operations; what is in none of them is `other`."""
FREE = ("view", "expand", "permute", "transpose", "slice", "select", "detach", "alias", "t.default",
        "empty")  # fmt: skip
"""Operations that only look at memory in another way, or ask for some, and launch nothing."""


class Operations(TorchDispatchMode):
    """Counts what would launch something."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.")
        if not any(free in name for free in FREE):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))

    def by_group(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for name, n in self.counts.items():
            groups = (g for g, parts in GROUPS.items() if any(part in name for part in parts))
            group = next(groups, "other")
            found[group] += n
        return found


def classifier_step(
    name: str, batch: int, *, bf16: bool, at_once: bool = False
) -> Callable[[], object]:
    """at_once: weights and gradients are cast by one operation each, as on a GPU."""
    own = recipe("paper/cifar10")
    own = resolve(own, n_base=5_000, n_total=5_000, n_dataset=50_000, classifier=name)
    network = models.build(name, classes=10, height=32, width=32, channels=3)
    module = Classifier(network, [0.5] * 3, [0.3] * 3, (32, 32))
    module = module.to(memory_format=torch.channels_last).train()
    module.bf16 = bf16
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, fused=True)
    step = Step(module, optimizer, own, shadows=ShadowWeights(module) if at_once else None)
    side = 32 + 2 * own.augmentation.crop_padding_px
    images = Batch(
        torch.zeros(500, side, side, 3, dtype=torch.uint8),
        torch.zeros(500, dtype=torch.int64),
        torch.zeros(batch, 6, dtype=torch.int32),
        batch,
    )
    return lambda: step(images, 0)


def edm_network(**changes: object) -> EDMNetwork:
    chosen = config({"kind": "edm", **changes})
    return network_for(chosen, shape=(32, 32, 3), classes=10).to_empty(device="cpu").train()


def edm_call(network: EDMNetwork, batch: int, *, bf16: bool) -> Callable[[], torch.Tensor]:
    network = network.to(memory_format=torch.channels_last)
    x = torch.zeros(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    given = torch.ones(batch), torch.zeros(batch, dtype=torch.int64)
    labels = network.model.map_augment
    augment = None if labels is None else torch.zeros(batch, labels.in_features)
    keys = torch.zeros(batch, dtype=torch.int32)

    def call() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return network(x, *given, augment, keys).float().square().mean()

    return call


def eager() -> None:
    makes = {
        "ResNet-110, a step with autocast's casts": lambda: classifier_step(
            "resnet110", 2, bf16=True
        ),
        "ResNet-110, a step as on a GPU": lambda: classifier_step(
            "resnet110", 2, bf16=True, at_once=True
        ),
        "EDM's published network, forward and backward": lambda: _with_backward(
            edm_call(edm_network(), 1, bf16=True)
        ),
    }
    print(f"torch {torch.__version__}; operations that launch something, bf16, not compiled\n")
    print("| what | all | " + " | ".join((*GROUPS, "other")) + " |")
    print("|---|---|" + "---|" * (len(GROUPS) + 1))
    for name, make in makes.items():
        work = make()
        work()  # the first makes the optimizer's buffers
        with Operations() as seen:
            work()
        groups = seen.by_group()
        cells = [str(groups[group]) for group in (*GROUPS, "other")]
        print(f"| {name} | {seen.counts.total()} | " + " | ".join(cells) + " |", flush=True)


def _with_backward(call: Callable[[], torch.Tensor]) -> Callable[[], None]:
    return lambda: call().backward()


@dataclass
class Fused:
    """launches: calls of functions that Inductor wrote. nests: the loops over tensors inside them,
    one after another.
    """

    launches: int = 0
    nests: int = 0


def fused(make: Callable[[], Callable[[], object]]) -> Fused:
    """What runs in a call of what `make` returns, which compiles something when it is called.

    Counted where the functions are called. (Inductor's own `generated_kernel_count` counts the
    objects that it makes while it tries what can be fused, several for each that it keeps.)
    """
    from torch._inductor import config as inductor_config
    from torch._inductor.async_compile import AsyncCompile

    found = Fused()

    def count(_: object, types: object, source: str, *more: object, **options: object) -> Callable:
        nests = len(re.findall(r"^    \{$", source, re.MULTILINE))

        def launch(*_: object) -> None:
            found.launches += 1
            found.nests += nests

        return launch

    chosen = {"force_disable_caches": True, "cpp.threads": 1}
    with mock.patch.object(AsyncCompile, "cpp_pybinding", count), inductor_config.patch(chosen):
        make()()
    return found


def inductor() -> None:
    small = {"network": {"model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1}}
    network = edm_network(**small)
    resnet = models.build("resnet20", classes=10, height=32, width=32, channels=3)
    resnet = resnet.to(memory_format=torch.channels_last).train()
    x = torch.zeros(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    calls = {
        "EDM, 32 channels, two resolutions": (network, edm_call(network, 8, bf16=False)),
        "ResNet-20": (resnet, lambda: resnet(x).square().mean()),
    }
    print("\n| compiled for a CPU, forward and backward | operations | of them convolutions "
          "| Inductor's functions | loops in them |")  # fmt: skip
    print("|---|---|---|---|---|")
    for name, (own, call) in calls.items():
        with Operations() as seen:
            call().backward()

        def compiled(own: torch.nn.Module = own, call: Callable = call) -> Callable[[], None]:
            own.compile()
            return _with_backward(call)

        made = fused(compiled)
        counts = [seen.counts.total(), seen.by_group()["convolutions"], made.launches, made.nests]
        print(f"| {name} | " + " | ".join(map(str, counts)) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inductor", action="store_true", help="compile too: a minute")
    given = parser.parse_args()
    eager()
    if given.inductor:
        inductor()


if __name__ == "__main__":
    main()
