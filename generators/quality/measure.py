"""One row of quality for a pool, from its shards and the real images', part by part."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from generators.quality.neighbours import nearest
from generators.quality.statistics import Diversity, Gaussian, InceptionScore, Moments, frechet_distance

Part = tuple[np.ndarray, np.ndarray]
"""Images (n, H, W, C) uint8 and labels (n,) int64: a shard."""

COLUMNS = (
    "n_images", "n_real", "fid", "inception_score", "inception_score_std", "diversity", "diversity_real",
    "feature_distance", "feature_diversity", "feature_diversity_real",
    "neighbour_distance", "neighbour_distance_real", "memorised", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Networks:
    """What to measure with; None leaves its columns empty, `missing` says why."""

    inception: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
    """Images -> (features, class probabilities): `generators.quality.networks.Inception`."""
    vit: Callable[[np.ndarray], np.ndarray] | None = None
    """Images -> features: `generators.quality.networks.ViT`."""
    features: Callable[[np.ndarray], np.ndarray] | None = None
    """Images -> features: of the grid's own classifier, where Inception makes no sense."""
    missing: tuple[str, ...] = ()
    """Messages of networks that could not be had."""


@dataclass
class Summary:
    """What a set of images leaves behind, whatever its size."""

    classes: int
    n: int = 0
    inception: Moments = field(default_factory=Moments)
    features: Moments = field(default_factory=Moments)
    diversity: Diversity | None = None
    feature_diversity: Diversity | None = None
    score: InceptionScore | None = None


def load_networks(
    *, inception: str | bool = False, vit: str | bool = False, features=None, device: str = "cpu"
) -> Networks:
    """The networks asked for: True for a download, a path for a file; those not to be had become messages."""
    from generators.quality.networks import Inception, NetworkMissing, ViT

    found, missing = {}, []
    for name, make, wanted in (("inception", Inception, inception), ("vit", ViT, vit)):
        if wanted:
            try:
                found[name] = make(weights=None if wanted is True else wanted, device=device)
            except NetworkMissing as error:
                missing.append(str(error))
    return Networks(**found, features=features, missing=tuple(missing))


def summarise(
    parts: Iterable[Part], networks: Networks, *, classes: int, total: int | None = None, batch: int = 64
) -> Summary:
    """Running statistics over all parts; with `total`, the number of images, also the Inception Score."""
    summary = Summary(classes, diversity=Diversity(classes), feature_diversity=Diversity(classes))
    if networks.inception and total is not None:
        summary.score = InceptionScore(total)
    for images, labels in parts:
        for first in range(0, len(images), batch):
            _add(summary, networks, images[first : first + batch], labels[first : first + batch])
    return summary


def _add(summary: Summary, networks: Networks, images: np.ndarray, labels: np.ndarray) -> None:
    summary.n += len(images)
    if networks.inception:
        features, probabilities = networks.inception(images)
        summary.inception.add(features)
        if summary.score:
            summary.score.add(probabilities)
    if networks.vit:
        summary.diversity.add(networks.vit(images), labels)
    if networks.features:
        features = networks.features(images)
        summary.features.add(features)
        summary.feature_diversity.add(features, labels)


def quality(
    pool: Callable[[], Iterable[Part]],
    real: Callable[[], Iterable[Part]],
    networks: Networks,
    *,
    classes: int,
    n_pool: int,
    real_statistics: Gaussian | None = None,
    n_neighbours: int = 500,
) -> dict:
    """A row with the COLUMNS of a pool of n_pool images, against the real images it should look like.

    pool() and real() give the parts anew at each call, in the order of the image numbers; real() is the
    generator's own training images, of which nearest neighbours are meant.  real_statistics: Inception
    statistics of another reference (such as pytorch-fid's files) for the FID, instead of real()'s.

    fid, inception_score(_std), diversity(_real): in Inception and ViT features.  feature_*: the same distance
    and diversity in `networks.features`.  neighbour_distance: median distance of the first n_neighbours
    samples to their nearest real image, root mean square per pixel value in [0, 255];
    neighbour_distance_real: the same of real images among each other.  memorised: part of those samples
    that are three times nearer to one real image than to any other.  Empty columns are None.
    """
    fake = summarise(pool(), networks, classes=classes, total=n_pool)
    if fake.n != n_pool:
        raise ValueError(f"the pool has {fake.n} images, not the {n_pool} announced")
    truth = summarise(real(), networks, classes=classes)
    row: dict = dict.fromkeys(COLUMNS)
    row |= {"n_images": fake.n, "n_real": truth.n, "note": "; ".join(networks.missing)}
    if networks.inception:
        reference = real_statistics or truth.inception.gaussian()
        row["fid"] = frechet_distance(fake.inception.gaussian(), reference)
        row["inception_score"], row["inception_score_std"] = fake.score.score()
    if networks.vit:
        row["diversity"], row["diversity_real"] = fake.diversity.score(), truth.diversity.score()
    if networks.features:
        row["feature_distance"] = frechet_distance(fake.features.gaussian(), truth.features.gaussian())
        row["feature_diversity"] = fake.feature_diversity.score()
        row["feature_diversity_real"] = truth.feature_diversity.score()
    return row | _neighbours(pool, real, n_neighbours)


def _neighbours(pool: Callable, real: Callable, n: int) -> dict:
    samples, originals = _first(pool(), n), _first(real(), n)
    found = nearest(samples, (images for images, _ in real()))
    among = nearest(originals, (images for images, _ in real()))  # the nearest of each is itself
    scale = np.sqrt(samples[0].size)
    return {
        "neighbour_distance": float(np.median(found.distances[:, 0]) / scale),
        "neighbour_distance_real": float(np.median(among.distances[:, 1]) / scale),
        "memorised": found.memorised,
    }


def _first(parts: Iterable[Part], n: int) -> np.ndarray:
    taken: list[np.ndarray] = []
    for images, _ in parts:
        taken.append(images[: n - sum(map(len, taken))])
        if sum(map(len, taken)) >= n:
            break
    return np.concatenate(taken)
