"""How a training uses its device. None of it is part of what is trained: results agree within seed
noise.
"""

from __future__ import annotations

import torch
from pydantic import BaseModel, ConfigDict, Field

from equigrid.classifiers.hardware import cpu_has_bf16

# Pixels per batch below which a CPU's casts cost what its faster products save. Measured: 32 digits
# of 8×8 even, 128 of them 1.4 times faster, 128 images of 32×32 1.6 to 1.8 times faster.
CPU_BF16_LEAST_PIXELS = 8192
# A capture costs about as much as some dozens of steps.
GRAPHS_LEAST_STEPS = 500


class Speed(BaseModel):
    """Switches; None decides by the device and the training.

    bf16: autocast the network. graphs: replay whole steps as one CUDA graph; a network that cannot
    be recorded trains without if this is None, and raises if it is True. compile: torch.compile the
    network, which costs minutes in each process.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bf16: bool | None = Field(None, description="None: where the hardware multiplies in it")
    graphs: bool | None = Field(None, description="None: where possible, for 500 steps or more")
    compile: bool = False

    def use_bf16(self, device: torch.device, pixels_per_batch: int) -> bool:
        if self.bf16 is not None:
            return self.bf16
        if device.type == "cpu":
            return cpu_has_bf16() and pixels_per_batch >= CPU_BF16_LEAST_PIXELS
        return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)

    def use_graphs(self, device: torch.device, steps: int, against: str | None) -> bool:
        """against: what in the training rules graphs out, if anything."""
        if device.type != "cuda":
            against = f"device {device}"
        if self.graphs and against:
            raise ValueError(
                "graphs needs one CUDA device, images resident there, no dropout and, before "
                f"PyTorch 2.12, a process in which no recording failed; got {against}"
            )
        if self.graphs is not None:
            return self.graphs
        return against is None and steps >= GRAPHS_LEAST_STEPS
