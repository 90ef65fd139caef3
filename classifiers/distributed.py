"""Several workers as one: the slice of the global batch, and BatchNorm over all of it."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import FunctionCtx


def world() -> tuple[int, int]:
    """(rank, number of workers); (0, 1) without torch.distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def share(length: int, rank: int, workers: int) -> slice:
    """This worker's contiguous part of a global batch; parts differ by at most one image and may be
    empty.
    """
    return slice(length * rank // workers, length * (rank + 1) // workers)


def distribute(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` wrapped for gradient averaging, its BatchNorms over the global batch."""
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        module = convert_sync_batchnorm(module)
    else:
        _replace_norms(module)
    # Statistics are equal on all workers already; no broadcast needed.
    return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)


def _replace_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, _GlobalBatchNorm.of(child))
        else:
            _replace_norms(child)


class _GlobalBatchNorm(nn.BatchNorm2d):
    """BatchNorm over all workers' images, weighted by their number; torch's SyncBatchNorm has no
    CPU path.
    """

    momentum: float
    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor
    after: nn.Module
    """What timm's BatchNormAct2d carries: a dropout and an activation."""

    @classmethod
    def of(cls, norm: nn.modules.batchnorm._BatchNorm) -> nn.Module:
        mean, variance = norm.running_mean, norm.running_var
        if norm.momentum is None or mean is None or variance is None or not norm.affine:
            raise ValueError(
                f"cannot compute {norm} over several CPU workers: unusual BatchNorm settings"
            )
        own = cls(norm.num_features, norm.eps, norm.momentum)
        own.weight, own.bias = norm.weight, norm.bias
        own.running_mean, own.running_var = mean, variance
        assert norm.num_batches_tracked is not None, "it stands beside running_mean"
        own.num_batches_tracked = norm.num_batches_tracked
        own.after = nn.Sequential(
            *(getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part))
        )
        return own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            norm = F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
            return self.after(norm)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = _sum_over_workers(x.new_tensor([x.numel() / x.shape[1]]))
        mean = _sum_over_workers(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = _sum_over_workers(centred.square().sum(axes)) / count
        self._track(mean.detach(), variance.detach(), count)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return self.after(centred * scale.view(shape) + self.bias.view(shape))

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor, count: torch.Tensor) -> None:
        unbiased = variance * (count / (count - 1))
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)
        self.num_batches_tracked += 1


def _sum_over_workers(values: torch.Tensor) -> torch.Tensor:
    """Sum over workers whose gradient is summed too."""
    return _AllReduce.apply(values)


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
