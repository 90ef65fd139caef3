"""The seam to Ray Train: every training is one `TorchTrainer` loop, on one device or several.

With one device the loop runs in Ray Train's local mode, inside the calling process (a slot, which
holds the device); it costs no start-up, and keeps no checkpoints. With several it runs in a worker
group. So checkpoints are our own, in the store, and the same code serves both.
"""

import os
import tempfile
from collections.abc import Callable
from typing import Any

# Ray Train looks for finished workers every 2 s unless told otherwise before ray is imported.
TRAIN_ENVIRONMENT = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1"}


def fit(
    loop: Callable[[dict], Any],
    config: dict,
    *,
    name: str,
    workers: int = 1,
    gpus: float = 0,
    cpus: float = 1,
) -> Any:
    """Runs `loop(config)` as a TorchTrainer and returns what it returns (rank 0's value).

    workers: 1 runs in this process; more start a worker group with `gpus` and `cpus` for each
    worker, and torch.distributed initialised. Raises what the loop raised (in a worker group, the
    first worker's error).
    """
    os.environ.update({k: v for k, v in TRAIN_ENVIRONMENT.items() if k not in os.environ})
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    if workers == 1:
        scaling = ScalingConfig(num_workers=0, use_gpu=gpus > 0)
        alone = TorchTrainer(loop, train_loop_config=config, scaling_config=scaling)
        return _returned(alone.fit())
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    scaling = ScalingConfig(num_workers=workers, use_gpu=gpus > 0, resources_per_worker=resources)
    # Nothing of ours is kept where Ray Train writes: outputs and checkpoints are in the store.
    with tempfile.TemporaryDirectory(prefix="equigrid-train-") as scratch:
        run = RunConfig(name=name, storage_path=scratch)
        trainer = TorchTrainer(
            loop, train_loop_config=config, scaling_config=scaling, run_config=run
        )
        return _returned(trainer.fit())


def _returned(result: Any) -> Any:
    """What the loop returned; the type that Ray declares for a result does not have it yet."""
    return result.return_value


def rank() -> int:
    """This process's rank in the worker group; 0 outside one."""
    import torch.distributed as dist

    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def group_device() -> str:
    """The device that Ray Train gave this process of a worker group."""
    from ray.train.torch import get_device

    return str(get_device())
