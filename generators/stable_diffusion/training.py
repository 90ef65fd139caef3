"""What an open-set pool needs before it is sampled: its parts loaded once, and the CLIP filter's
calibration.

Nothing here is trained.  The filter drops what lies below a quantile of confidence; that quantile
is a property of pipeline, prompts and classes, measured once, so that shards can then be made apart
from each other.
"""

import time
from functools import partial

import numpy as np
import torch
import torch.distributed as dist

from equigrid.generators.calls import State, TrainCall
from equigrid.generators.common import pools
from equigrid.generators.stable_diffusion.candidates import Candidates, Wanted
from equigrid.generators.stable_diffusion.clip_filter import least
from equigrid.generators.stable_diffusion.config import StableDiffusionConfig
from equigrid.generators.trainer.devices import group, on_rank_0


def train(
    images: np.ndarray, labels: np.ndarray, config: StableDiffusionConfig, call: TrainCall
) -> dict[str, torch.Tensor]:
    """Load every pre-trained part, so that what is missing shows before any shard, and calibrate
    the filter.

    images, labels: not looked at; an open-set generator takes nothing from the base subset.
    Returns {} without a filter, else {"confidence": (classes, calibration_per_class) float32}, of
    images made for this alone.

    In a worker group the images of a step are divided among the ranks; steps count the images done.

    Raises ValueError as `sample` does, and where the filter would keep nothing of a class.
    """
    classes, device = call.classes, torch.device(call.device)
    names = config.names(call.class_names, classes)
    candidates = Candidates(config, names, seed=call.seed, device=device)
    if candidates.captioner:
        candidates.captioner.caption(0, 0)
    if config.clip_filter is None:
        return {}
    total = classes * config.clip_filter.calibration_per_class
    of = pools.labels(call.seed, 0, total, classes)
    done = list(call.resume["confidence"].tolist()) if call.resume else []
    if len(done) > total:
        raise ValueError(
            f"the saved state is that of {len(done)} calibration images, this one takes {total}"
        )
    log, checkpoint = on_rank_0(call.log), on_rank_0(call.checkpoint)
    while len(done) < total:
        clock = time.perf_counter()
        made = _step(candidates, of, len(done), device)
        done += made
        seconds = time.perf_counter() - clock
        log(
            {
                "step": len(done),
                "confidence": float(np.mean(made)),
                "images_per_s": len(made) / seconds,
            }
        )
        checkpoint(len(done), partial(_state, done))
    confidence = np.array(done, np.float32)[np.argsort(of, kind="stable")].reshape(classes, -1)
    least(confidence, config.clip_filter, names)
    return {"confidence": torch.from_numpy(confidence)}


def _state(done: list[float]) -> State:
    return {"confidence": torch.tensor(done)}


def _step(
    candidates: Candidates, labels: np.ndarray, first: int, device: torch.device
) -> list[float]:
    """Confidences of the next batch of each rank, in the order of images."""
    rank, world = group()
    batch = candidates.config.sampler.batch
    stop = min(first + world * batch, len(labels))
    own = range(min(first + rank * batch, stop), min(first + (rank + 1) * batch, stop))
    made = torch.zeros(stop - first, device=device)
    for number, one in zip(own, candidates.make([Wanted(i, int(labels[i]), 0) for i in own])):
        assert one.confidence is not None, "only a filter is calibrated"
        made[number - first] = one.confidence
    if world > 1:
        dist.all_reduce(made)  # each place is one rank's, and zero elsewhere
    return made.tolist()
