"""What a pool needs before it is sampled: its adaptation, where there is one, its parts loaded
once, and the CLIP filter's calibration.

The filter drops what lies below a quantile of confidence; that quantile
is a property of pipeline, prompts and classes, measured once, so that shards can then be made apart
from each other.
"""

import time
from functools import partial

import numpy as np
import torch
import torch.distributed as dist

from equigrid.generators.calls import Base, State, TrainCall
from equigrid.generators.common import pools
from equigrid.generators.stable_diffusion import adapting
from equigrid.generators.stable_diffusion.candidates import Candidates, Wanted
from equigrid.generators.stable_diffusion.clip_filter import least
from equigrid.generators.stable_diffusion.config import StableDiffusionConfig
from equigrid.generators.trainer.devices import group, on_rank_0
from equigrid.generators.trainer.loop import check_data


def train(
    images: np.ndarray, labels: np.ndarray, config: StableDiffusionConfig, call: TrainCall
) -> dict[str, torch.Tensor]:
    """Adapt the pipeline, load every pre-trained part, so that what is missing shows before any
    shard, and calibrate the filter.

    images, labels: the base subset; not looked at without an adaptation or a variation: an open-set
    generator takes nothing from it. Returns what `adapting.adapt` does, {} without an adaptation,
    and with a filter {"confidence": (classes, calibration_per_class) float32}, of images made for
    this alone. Steps of the calibration are counted after those of the adaptation.

    In a worker group the images of a step are divided among the ranks; steps count the images done.

    Raises ValueError as `sample` does, and where the filter would keep nothing of a class.
    """
    classes, device = call.classes, torch.device(call.device)
    names = config.names(call.class_names, classes)
    learned, base = _learned(images, labels, config, names, call), None
    if config.varies_base:
        base = Base(labels, lambda places: images[places])
    candidates = Candidates(
        config, names, seed=call.seed, device=device, weights=learned, base=base
    )
    if candidates.captioner:
        candidates.captioner.caption(0, 0)
    if config.clip_filter is None:
        return learned
    before = config.adaptation.steps if config.adaptation is not None else 0
    total = classes * config.clip_filter.calibration_per_class
    of = pools.labels(call.seed, 0, total, classes)
    saved = call.resume.get("confidence") if call.resume else None
    done = [] if saved is None else list(saved.tolist())
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
                "step": before + len(done),
                "confidence": float(np.mean(made)),
                "images_per_s": len(made) / seconds,
            }
        )
        checkpoint(before + len(done), partial(_state, done, learned))
    confidence = np.array(done, np.float32)[np.argsort(of, kind="stable")].reshape(classes, -1)
    least(confidence, config.clip_filter, names)
    return {**learned, "confidence": torch.from_numpy(confidence)}


def _learned(
    images: np.ndarray,
    labels: np.ndarray,
    config: StableDiffusionConfig,
    names: tuple[str, ...],
    call: TrainCall,
) -> dict[str, torch.Tensor]:
    """What the adaptation learns, or learned before the state that is gone on from."""
    if config.learns_from_base:
        check_data(images, labels, config, call.classes, call.class_names)
    if config.adaptation is None:
        return {}
    if call.resume is not None and "confidence" in call.resume:
        return call.resume["learned"]
    return adapting.adapt(images, labels, config, names, call)


def _state(done: list[float], learned: dict[str, torch.Tensor]) -> State:
    more = {"learned": learned} if learned else {}
    return {"confidence": torch.tensor(done), **more}


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
