"""A look at a training in progress: a sample sheet of its weights as they are now."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from equigrid.generators import registry, sheets
from equigrid.generators.base_config import GeneratorConfig
from equigrid.generators.calls import State

if TYPE_CHECKING:
    import torch

_PREVIEW_ROWS, _PREVIEW_STEPS = 100, 12


def preview(
    state: State, config: GeneratorConfig, *, budget_s: float = 20.0, **options: Any
) -> bytes | None:
    """What a training in progress makes as it stands: a PNG, one row per class.

    None where there is nothing to see: a kind without previews, a state without weights to sample
    from, or a device that has no room for pre-trained parts beside the training. options: classes,
    class_names, shape, seed, device, columns.
    """
    if not registry.BACKENDS[config.kind].previews or "average" not in state:
        return None
    from torch import OutOfMemoryError

    try:
        return _sheet_of(state["average"], config.for_a_look(), budget_s=budget_s, **options)
    except OutOfMemoryError:
        return None
    finally:
        registry.release()  # the training goes on, and has the memory


def _sheet_of(
    weights: dict,
    config: Any,  # of a kind with `sampler` and `compute`
    *,
    classes: int,
    shape: tuple[int, int, int],
    seed: int,
    class_names: tuple[str, ...] = (),
    columns: int = 8,
    budget_s: float = 20.0,
    device: "str | torch.device" = "cpu",
) -> bytes:
    """A sheet of the first images of the pool `seed`, up to `columns` per class, of weights as they
    are now.

    For a look at a training in progress: weights are a state's "average", config is of a kind whose
    sampler has steps and batch; shape is (H, W, C).  Cheap: not compiled,
    fewer sampler steps than for a pool, of very many classes those of the pool's first images
    alone, and no further column once it would exceed budget_s seconds.
    """
    column = min(classes, _PREVIEW_ROWS)
    steps = min(config.sampler.steps, _PREVIEW_STEPS)
    sampler = config.sampler.model_copy(update={"steps": steps, "batch": column})
    plain = {"compile": "off"} if "compile" in type(config.compute).model_fields else {}
    compute = config.compute.model_copy(update=plain)
    quick = config.model_copy(update={"sampler": sampler, "compute": compute})
    options = {
        "classes": classes,
        "class_names": class_names,
        "shape": shape,
        "seed": seed,
        "device": device,
    }
    begin, parts = time.perf_counter(), []
    for i in range(columns if column == classes else 1):
        if i and (time.perf_counter() - begin) * (i + 1) / i > budget_s:
            break
        parts.append(
            registry.sample(weights, quick, start=i * column, stop=(i + 1) * column, **options)
        )
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    shown, rows = np.unique(labels, return_inverse=True)
    return sheets.sheet(images, rows, classes=len(shown), columns=len(parts))
