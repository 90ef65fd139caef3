"""What a GPU would see, without one: fake CUDA tensors have device, dtype and layout, no numbers.

A host tensor in a device's computation, a wrong dtype under autocast, a layout that convolutions
must convert, and a wait for the device (`.item()`, a branch on a tensor's value) raise or show
here. Backward passes need a driver (autograd asks for streams), and so do the layouts that cuDNN chooses:
both are looked at on fake CPU tensors.
"""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from equigrid.classifiers import models
from equigrid.classifiers.data import augment
from equigrid.classifiers.data.batches import Batch
from equigrid.classifiers.evaluation import _Totals
from equigrid.classifiers.models.network import Classifier
from equigrid.classifiers.recipes import recipe, resolve
from equigrid.classifiers.training.step import Step
from equigrid.generators.edm.network import EDMNetwork
from equigrid.generators.edm.sampling import heun
from equigrid.generators.registry import config
from equigrid.generators.trainer.devices import autocast

CUDA = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def autocast_as_on_a_gpu(monkeypatch):
    """torch.autocast("cuda") switches itself off where there is no GPU."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)


class Operations(TorchDispatchMode):
    """Names of the operations that run, and the devices of all they touch."""

    def __init__(self):
        super().__init__()
        self.names, self.devices = [], set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        self.devices |= {
            (str(func), t.device.type)
            for t in tree_leaves((args, kwargs, out))
            if isinstance(t, torch.Tensor)
        }
        return out

    def on_the_host(self):
        return {name for name, device in self.devices if device == "cpu"}


def placed(module, device, memory_format=torch.channels_last):
    """As module.to(device, memory_format) leaves it; `to` cannot swap fake tensors."""
    for part in module.modules():
        for name, p in list(part._parameters.items()):
            if p is not None:
                layout = memory_format if p.dim() == 4 else torch.contiguous_format
                part._parameters[name] = nn.Parameter(
                    torch.empty(p.shape, device=device, memory_format=layout)
                )
        for name, b in list(part._buffers.items()):
            if b is not None:
                part._buffers[name] = torch.empty(b.shape, dtype=b.dtype, device=device)
    return module


def classifier(name, size, device):
    network = models.build(name, classes=10, height=size[0], width=size[1], channels=3)
    module = Classifier(network, [0.5] * 3, [0.3] * 3, size)
    module.bf16 = True
    return placed(module, device)


def settings(name, model):
    return resolve(recipe(name), n_base=26_000, n_total=26_000, n_dataset=50_000, classifier=model)


@pytest.mark.parametrize(
    ("name", "given", "side"),
    [
        ("resnet20", "paper/cifar10", 32),
        ("resnet20", "paper/cifar10-plain", 32),
        ("resnet50", "paper/imagenet", 256),
    ],
)
def test_a_classifiers_step_stays_on_the_device(name, given, side):
    own = settings(given, name)
    with FakeTensorMode():
        module, dtypes = classifier(name, own.input_size(side, side), CUDA), set()
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(lambda _, ins, out: dtypes.add(out.dtype))
        padded = augment.pad(
            torch.empty(500, side, side, 3, dtype=torch.uint8, device=CUDA), own.augmentation
        )
        draws = torch.empty(own.batch, 6, dtype=torch.int32, device=CUDA)
        with Operations() as seen:
            logits = module(augment.batch(padded, draws, own.augmentation))
            totals = _Totals(10, CUDA)
            totals.add(logits.detach(), torch.empty(own.batch, dtype=torch.int64, device=CUDA))
    assert logits.dtype == torch.float32 and logits.device == CUDA
    assert seen.on_the_host() == set()
    assert dtypes == {torch.bfloat16}


def test_a_steps_operations_are_few_and_keep_their_layout():
    """Gradients lie as their weights do, since fused kernels walk through both; the update is one
    operation, and nothing waits.
    """
    own = settings("paper/cifar10", "resnet20")
    with FakeTensorMode():
        module = classifier("resnet20", (32, 32), "cpu").train()
        step = Step(
            module, torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, fused=True), own
        )
        step.set_lr(torch.empty(()))
        layouts = set()
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(
                    lambda _, ins, out: layouts.update(
                        t.is_contiguous(memory_format=torch.channels_last) for t in (*ins, out)
                    )
                )
        batch = Batch(
            torch.empty(500, 40, 40, 3, dtype=torch.uint8),
            torch.empty(500, dtype=torch.int64),
            torch.empty(128, 6, dtype=torch.int32),
            128,
        )
        step(batch, 0)
        with Operations() as seen:
            step(batch, 1)
    assert layouts == {True}
    assert all(p.grad.stride() == p.stride() for p in module.parameters())
    assert (
        seen.names.count("aten._fused_sgd_.tensor_lr") == 1
    )  # or a CUDA graph would keep the rate of its recording
    assert "aten._local_scalar_dense.default" not in seen.names


def test_the_sampler_waits_for_nothing():
    small = config(
        {"kind": "edm", "network": {"model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1}}
    )
    with FakeTensorMode():
        with torch.device("meta"):
            plan = small.layout(32, 32)
        network = (
            placed(EDMNetwork(plan, image_channels=3, classes=10, augment_labels=9), CUDA)
            .eval()
            .requires_grad_(False)
        )
        labels = torch.empty(8, dtype=torch.int64, device=CUDA)

        def denoise(x, sigma):
            with autocast("fp16", CUDA):
                return network(x.contiguous(memory_format=torch.channels_last), sigma, labels)

        with Operations() as seen, torch.no_grad():
            made = heun(denoise, lambda: torch.empty(8, 3, 32, 32, device=CUDA), small.sampler)
    assert made.dtype == torch.float64 and made.device == CUDA
    assert seen.on_the_host() == set()


def test_an_uncompiled_edm_keeps_its_layout(monkeypatch):
    """With the norm that it has on a GPU, all that 3×3 convolutions are given lies in channels-last
    memory.
    """
    small = config(
        {"kind": "edm", "network": {"model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1}}
    )
    monkeypatch.setattr("equigrid.generators.edm.network._loses_layout", lambda x: True)
    layouts = []
    with FakeTensorMode():
        with torch.device("meta"):
            plan = small.layout(32, 32)
        network = placed(EDMNetwork(plan, image_channels=3, classes=10), "cpu").eval()
        for part in network.modules():
            if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3):
                part.register_forward_pre_hook(
                    lambda _, ins: layouts.append(
                        ins[0].is_contiguous(memory_format=torch.channels_last)
                    )
                )
        x = torch.empty(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        labels = torch.empty(8, dtype=torch.int64)
        with autocast("bf16", torch.device("cpu")), torch.no_grad():
            network(x, torch.empty(8), labels)
    assert len(layouts) > 10
    assert all(layouts)


def test_these_tests_catch_what_they_are_for():
    with FakeTensorMode():
        x = torch.empty(4, device=CUDA)
        with pytest.raises(RuntimeError, match="[Dd]evice"):
            x + torch.empty(4)
        with pytest.raises(DataDependentOutputException):
            x.sum().item()
