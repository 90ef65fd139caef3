"""How good a pool is: one row of `generators.quality`, in the networks that the spec chose."""

import time

from grid.ids import content_id
from grid.shards import ShardCorrupt
from grid.store import Store
from grid.tasks import generators, mixes, pools, reference, weights
from grid.tasks.request import Request
from grid.tasks.surroundings import device_name, device_of, surroundings


def manifest_name(job_id: str) -> str:
    return f"quality/{job_id}.json"


def picture_name(job_id: str) -> str:
    """A pool's first images, each above the training image that it is nearest to."""
    return f"quality/{job_id}.png"


def measure(store: Store, request: Request) -> dict:
    """Measures a pool, and its generator's autoencoder if it has one; writes the picture, then the row."""
    from generators.quality import measure as measuring

    payload, device = request.payload, device_of(request)
    clock = time.perf_counter()
    pool, every = mixes.whole(request.syn, payload["syn"]["n"]), mixes.whole(request.train)
    closed = payload["subset"] is not None  # an open-set generator's own training images are not at hand
    base = mixes.parts(request.train, mixes.real_indices(request)) if closed else every
    features = _features(store, request, device)
    networks = measuring.load_networks(**payload["networks"], features=features, device=device)
    neighbours = payload["config"]["neighbours"]
    row = measuring.quality(
        lambda: mixes.blocks(pool), lambda: mixes.blocks(base), networks,
        classes=request.classes, n_pool=payload["syn"]["n"], n_neighbours=neighbours,
        reference=_statistics(store, request, networks, every),
    )  # fmt: skip
    if reconstruct := _reconstructor(store, request, device):
        row |= measuring.reconstruction(lambda: mixes.blocks(base), reconstruct, networks, classes=request.classes)
    if neighbours:
        picture = measuring.neighbour_picture(lambda: mixes.blocks(pool), lambda: mixes.blocks(base))
        store.put(picture_name(request.id), picture)
    seconds = time.perf_counter() - clock
    facts = {"pool": payload["syn"]["pool"], "seconds": seconds, "device": device_name(device), **surroundings(request)}
    store.put_json(manifest_name(request.id), {**row, **facts})
    return {}


def _statistics(store: Store, request: Request, networks, every: list[mixes.Part]):
    """What the real images leave behind in the networks: measured for the first pool, kept for all others."""
    from generators.quality import measure as measuring

    payload = request.payload
    what = {name: payload["config"][name] for name in ("inception", "vit")}
    what |= {"missing": list(networks.missing), "dataset": payload["dataset"], "reference": payload["reference"]}
    name = f"statistics/{content_id('statistics', what)}.npz"
    try:
        return measuring.Reference.from_npz(store.get(name))
    except FileNotFoundError:
        found = measuring.measured(mixes.blocks(every), networks, classes=request.classes)
    store.put(name, found.to_npz())
    return found


def _reconstructor(store: Store, request: Request, device: str):
    """Passes images through the autoencoder of the pool's generator; None if that has none."""
    from generators import backends, config

    shard = _manifest(store, pools.shard_name(request.payload["syn"]["pool"], 0))
    if not backends.reconstructs(shard.get("kind")):
        return None
    name = generators.manifest_name(shard["generator"])
    chosen = config(_manifest(store, name)["config"])
    return backends.reconstructor(weights.read(store, name), chosen, shape=request.image_shape, device=device)


def _manifest(store: Store, name: str) -> dict:
    content = store.get_json(name)
    if content is None:
        raise ShardCorrupt(name, "is gone")  # so it is made again
    return content


def _features(store: Store, request: Request, device: str):
    if request.payload["reference"] is None:
        return None
    from classifiers.features import Features

    return Features(reference.load(store, request.payload["reference"], request, device), device)
