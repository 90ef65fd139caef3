"""Can a classifier tell a pool's images from real ones? (the paper's Section 3, Figs. 1 and 12)"""

import time
from dataclasses import fields

import numpy as np

from grid.ids import seed_of
from grid.store import Store
from grid.tasks import mixes, reference
from grid.tasks.request import Request
from grid.tasks.surroundings import device_name, device_of, surroundings
from grid.training import fit

PERPLEXITY = 30.0


def manifest_name(job_id: str) -> str:
    return f"domain/{job_id}.json"


def measure(store: Store, request: Request) -> dict:
    """Trains and tests the domain classifier, draws the t-SNE if asked to, and writes both."""
    found = fit(_loop, {"store": store, "request": request}, name=request.id, gpus=request.gpus, cpus=request.cpus)
    store.put_json(manifest_name(request.id), {**found, **surroundings(request)})
    return {}


def _loop(config: dict) -> dict:
    """The TorchTrainer loop, in one process."""
    from classifiers.data import Mix
    from classifiers.domain import domain_gap
    from classifiers.recipes import ResolvedRecipe

    store, request = config["store"], config["request"]
    payload, device = request.payload, device_of(request)
    clock = time.perf_counter()
    real = Mix(mixes.arrays(mixes.parts(request.train, mixes.real_indices(request)), training=True))
    made = Mix(mixes.arrays(mixes.whole(request.syn, payload["syn"]["n"]), training=True))
    gap = domain_gap(
        real, made, classes=request.classes, model=payload["classifier"],
        recipe=ResolvedRecipe.model_validate(payload["recipe"]), seed=seed_of(request.id, "domain"), device=device,
        held_out=payload["held_out"], patch_px=payload["patch_px"],
    )  # fmt: skip
    facts = {field.name: getattr(gap, field.name) for field in fields(gap) if field.name != "module"}
    facts["per_class"] = [None if np.isnan(value) else value for value in facts["per_class"]]
    if payload["tsne"]:
        facts["tsne"] = _panels(store, request, gap.module, real, made, device)
    seconds = time.perf_counter() - clock
    return {**facts, "pool": payload["syn"]["pool"], "seconds": seconds, "device": device_name(device)}


def _panels(store: Store, request: Request, module, real, made, device: str) -> dict:
    """t-SNE of some images of both sides, in the features of the domain classifier and of the ordinary one."""
    from classifiers.features import Features

    n = min(request.payload["tsne"], real.n_total)
    images, labels = (np.concatenate(side) for side in zip(_spread(real, n), _spread(made, n)))
    ordinary = reference.load(store, request.payload["reference"], request, device)
    seed = seed_of(request.id, "t-SNE") % 2**32
    return {
        "n": n, "perplexity": min(PERPLEXITY, (2 * n - 1) / 3), "labels": labels.tolist(),
        "domain": _embedded(Features(module, device)(images), seed),
        "ordinary": _embedded(Features(ordinary, device)(images), seed),
    }  # fmt: skip


def _spread(mix, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n images of a mix, evenly over its length."""
    images, labels = (tensor.numpy() for tensor in mix.gather("cpu"))
    chosen = np.linspace(0, len(labels) - 1, n).round().astype(int)
    return images[chosen], labels[chosen]


def _embedded(features: np.ndarray, seed: int) -> list[list[float]]:
    """(2n, 2) coordinates; the first half are the real images'."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    found = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(features.astype(np.float64))
    return np.round(found.astype(float), 3).tolist()
