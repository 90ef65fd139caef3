"""Can a classifier tell a pool's images from real ones? (the paper's Section 3, Figs. 1 and 12)"""

import time
from dataclasses import fields

import numpy as np

from equigrid.grid.ids import seed_of
from equigrid.grid.jobs import inputs, reference_classifier
from equigrid.grid.jobs.checkpoints import Checkpoints
from equigrid.grid.jobs.provenance import device_name, device_of, provenance
from equigrid.grid.jobs.ray_train import fit
from equigrid.grid.jobs.request import Request
from equigrid.grid.store import Store
from equigrid.grid.store.layout import DOMAIN_GAPS

PERPLEXITY = 30.0


def measure(store: Store, request: Request) -> dict:
    """Trains and tests the domain classifier, draws the t-SNE if asked to, and writes both."""
    found = fit(
        _loop,
        {"store": store, "request": request},
        name=request.id,
        gpus=request.gpus,
        cpus=request.cpus,
    )
    store.put_json(DOMAIN_GAPS.manifest(request.id), {**found, **provenance(request)})
    Checkpoints(store, DOMAIN_GAPS.checkpoints(request.id), every_s=0).clear()
    return {}


def _loop(config: dict) -> dict:
    """The TorchTrainer loop, in one process."""
    from equigrid.classifiers.domain_gap import domain_gap
    from equigrid.classifiers.recipes import ResolvedRecipe

    store, request = config["store"], config["request"]
    payload, device = request.payload, device_of(request)
    clock = time.perf_counter()
    checkpoints = Checkpoints(
        store, DOMAIN_GAPS.checkpoints(request.id), every_s=request.checkpoint_every_s
    )
    real = inputs.parts(request.train, inputs.real_indices(request))
    made = inputs.whole(request.syn, payload["syn"]["n"])
    gap = domain_gap(
        inputs.fetchers(real), inputs.fetchers(made), request.image_shape, classes=request.classes,
        model=payload["classifier"], recipe=ResolvedRecipe.model_validate(payload["recipe"]),
        seed=seed_of(request.id, "domain"), device=device, held_out=payload["held_out"], patch_px=payload["patch_px"],
        window=payload.get("stream", {}).get("window"), resume=checkpoints.load(), checkpoint=checkpoints,
    )  # fmt: skip
    facts = {
        field.name: getattr(gap, field.name)
        for field in fields(gap)
        if field.name not in ("module", "tested")
    }
    facts["per_class"] = [None if np.isnan(value) else value for value in facts["per_class"]]
    if payload["tsne"]:
        facts["tsne"] = _panels(store, request, gap.module, gap.tested, device)
    seconds = time.perf_counter() - clock
    return {
        **facts,
        "pool": payload["syn"]["pool"],
        "seconds": seconds,
        "device": device_name(device),
    }


def _panels(store: Store, request: Request, module, tested: np.ndarray, device: str) -> dict:
    """t-SNE of the same images of both sides in the features of the domain classifier and of the
    ordinary one.

    Of those that the domain classifier was tested on alone: images that it has learnt by heart
    would lie apart whether there is a gap or not.
    """
    from equigrid.classifiers.features import Features

    n = min(request.payload["tsne"], len(tested))
    shown = tested[np.linspace(0, len(tested) - 1, n).round().astype(int)]
    real = inputs.parts(request.train, inputs.real_indices(request)[shown])
    images, labels = inputs.gathered(request, real + inputs.parts(request.syn, shown))
    ordinary = reference_classifier.load(store, request.payload["reference"], request, device)
    seed = seed_of(request.id, "t-SNE") % 2**32
    return {
        "n": n, "perplexity": _perplexity(2 * n), "labels": labels.tolist(),
        "domain": _embedded(Features(module, device)(images), seed),
        "ordinary": _embedded(Features(ordinary, device)(images), seed),
    }  # fmt: skip


def _perplexity(n: int) -> float:
    return min(PERPLEXITY, (n - 1) / 3)


def _embedded(features: np.ndarray, seed: int) -> list[list[float]]:
    """(2n, 2) coordinates; the first half are the real images'."""
    from sklearn.manifold import TSNE

    tsne = TSNE(init="pca", perplexity=_perplexity(len(features)), random_state=seed)
    return np.round(tsne.fit_transform(features.astype(np.float64)).astype(float), 3).tolist()


manifest_name = DOMAIN_GAPS.manifest
