"""A training run's state, and how one step changes it."""

from contextlib import nullcontext

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from generators.edm.config import EDMConfig, Training
from generators.edm.devices import autocast, compiles, group, memory_format, precision_of
from generators.edm.network import EDMNetwork, initialise
from generators.edm.schedules import ema_decay, learning_rate
from generators.edm.steps import Batch, batch_of, losses
from generators.edm.weights import check_names, network_for
from generators.random_draws import seed_of

State = dict
"""Everything that a run needs to go on: tensors, numbers, strings, lists and dicts only."""


class Run:
    """Network, average and optimiser of a training in progress; `step` counts the steps done.

    In a worker group each rank holds one, and takes its part of every global batch.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        config: EDMConfig,
        *,
        classes: int,
        seed: int,
        device: torch.device,
    ):
        self.config, self.seed, self.device, self.step = config, seed, device, 0
        self.images = torch.tensor(images, device=device)
        self.labels = torch.tensor(labels, device=device)
        self.precision = precision_of(config.compute.training_precision, device, auto="bf16")
        self.network = network_for(config, shape=images.shape[1:], classes=classes).to_empty(device="cpu")
        initialise(self.network, torch.Generator().manual_seed(seed_of(seed, "initial weights")))
        self.layout = memory_format(self.precision, device)
        self.network.to(device, memory_format=self.layout).train()
        self.average = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        self.optimizer = _optimizer(self.network, config.training)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.part = _part(config.training.batch)
        local = self.part.stop - self.part.start
        self.microbatch = min(config.compute.microbatch or local, local)
        self.forward = self.network
        if compiles(config.compute, device, config.training.total_nimg):
            self.forward = torch.compile(self.network)
        if group()[1] > 1:
            self.forward = DistributedDataParallel(self.forward, broadcast_buffers=False)

    def advance(self) -> torch.Tensor:
        """One step; the mean loss per pixel value over this rank's images, a scalar on the device."""
        training = self.config.training
        nimg = self.step * training.batch
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate(training, nimg)
        loss = self._gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        parameters = [p.detach() for p in self.network.parameters()]
        torch._foreach_lerp_(list(self.average.values()), parameters, 1 - ema_decay(training, nimg))
        self.step += 1
        return loss

    def _batch(self) -> Batch:
        return batch_of(self.images, self.labels, self.config, seed=self.seed, step=self.step, part=self.part)

    def _gradients(self) -> torch.Tensor:
        batch = self._batch()
        while True:
            try:
                return self._accumulated(batch)
            except torch.OutOfMemoryError:
                # In a worker group the other ranks wait inside an all-reduce: only a new start helps there.
                if group()[1] > 1 or self.microbatch == 1:
                    raise
            self._halve()

    def _accumulated(self, batch: Batch) -> torch.Tensor:
        """Gradients of the mean over the global batch of the images' losses, part by part."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        chunks = batch.chunks(self.microbatch)
        for i, chunk in enumerate(chunks):
            waits = group()[1] > 1 and i + 1 < len(chunks)
            with self.forward.no_sync() if waits else nullcontext():
                # DDP averages over ranks, whose parts are equal: so this is the mean over the global batch.
                loss = self._loss(self.forward, chunk).sum() / len(batch.clean)
                self.scaler.scale(loss).backward()
            total += loss.detach()
        return total / batch.clean[0].numel()

    def _loss(self, forward, batch: Batch) -> torch.Tensor:
        noisy = batch.noisy.contiguous(memory_format=self.layout)
        with autocast(self.precision, self.device):
            denoised = forward(noisy, batch.sigma, batch.labels, batch.augment, batch.dropout_keys)
        return losses(denoised, batch, self.config.network.sigma_data)

    def _halve(self) -> None:
        """Take half as many images at once, in twice as many parts."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.microbatch = -(-self.microbatch // 2)

    def fit_memory(self) -> None:
        """Halve what is taken at once until one pass fits beside the optimiser's moments; ranks agree.

        Before the first step and without communication, so that no rank is left waiting for another.
        """
        if self.device.type == "cuda":
            moments = [torch.empty_like(p) for p in self.network.parameters() for _ in range(2)]
            batch = self._batch()
            while not self._fits(batch.chunks(self.microbatch)[0]):
                self._halve()
            self.optimizer.zero_grad(set_to_none=True)
            del moments
        if group()[1] > 1:
            agreed = torch.tensor(self.microbatch, device=self.device)
            dist.all_reduce(agreed, dist.ReduceOp.MIN)
            self.microbatch = int(agreed)

    def _fits(self, batch: Batch) -> bool:
        try:
            self._loss(self.network, batch).sum().backward()
        except torch.OutOfMemoryError:
            if self.microbatch == 1:
                raise
            return False
        return True

    def state(self) -> State:
        """A copy on the CPU of all that later steps depend on."""
        names = [name for name, _ in self.network.named_parameters()]
        moments = self.optimizer.state_dict()["state"]
        return {
            "step": self.step,
            "weights": {name: _copy(p) for name, p in self.network.named_parameters()},
            "average": self.averaged(),
            "moments": {names[i]: {k: _copy(v) for k, v in of.items()} for i, of in moments.items()},
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, state: State) -> None:
        """Take a state; ValueError, with the first difference, if it is that of another network."""
        steps = self.config.training.steps
        if state["step"] > steps:
            raise ValueError(f"the saved state is that of step {state['step']}, past the last step, {steps}")
        parameters = dict(self.network.named_parameters())
        check_names("saved weights", parameters, state["weights"])
        check_names("saved average", parameters, state["average"])
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(state["weights"][name])
                self.average[name].copy_(state["average"][name])
        moments = {i: state["moments"][name] for i, name in enumerate(parameters) if name in state["moments"]}
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]

    def averaged(self) -> dict[str, torch.Tensor]:
        """The averaged weights, copied to the CPU."""
        return {name: _copy(p) for name, p in self.average.items()}


def _copy(value: torch.Tensor) -> torch.Tensor:
    return value.detach().to("cpu", copy=True).contiguous()


def _optimizer(network: EDMNetwork, training: Training) -> torch.optim.Optimizer:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[training.optimizer](
        network.parameters(),
        lr=training.lr,
        betas=training.betas,
        eps=training.eps,
        weight_decay=training.weight_decay,
        fused=True,
    )


def _part(batch: int) -> slice:
    """This rank's images of a global batch."""
    rank, world = group()
    if batch % world:
        raise ValueError(f"training.batch {batch} must be divisible by the {world} workers")
    return slice(rank * batch // world, (rank + 1) * batch // world)
