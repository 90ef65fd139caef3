"""One row of quality for a pool, from its shards and the real images', part by part."""

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from equigrid.generators.quality.banks import Seen, extracted, unseen
from equigrid.generators.quality.comparison import COMPARED, Extract, Real, compared
from equigrid.generators.quality.neighbours import nearest
from equigrid.generators.quality.statistics import (
    Diversity,
    Gaussian,
    InceptionScore,
    Moments,
    frechet_distance,
    psnr_db,
)

if TYPE_CHECKING:
    import torch

N = TypeVar("N")
Part = tuple[np.ndarray, np.ndarray]
"""Images (n, H, W, C) uint8 and labels (n,) int64: a shard."""
Parts = Callable[[], Iterable[Part]]
"""Gives the shards of a set anew at each call, in the order of the image numbers."""
Features = Callable[[np.ndarray], np.ndarray]
"""Images (n, H, W, C) uint8 -> features (n, d)."""

COLUMNS = (
    "n_images", "n_real", "fid", "inception_score", "inception_score_std", "diversity",
    "diversity_real", "feature_distance", "feature_diversity", "feature_diversity_real",
    "neighbour_distance", "neighbour_distance_real", "memorised", "reconstruction_psnr_db",
    "reconstruction_fid", "reconstruction_feature_distance", *COMPARED, "note",
)  # fmt: skip

_DISTANCES = {"fid": "inception", "feature_distance": "features"}
"""From a column to the network in whose features the distance is measured."""


@dataclass(frozen=True)
class Networks:
    """What to measure with; None leaves its columns empty, `missing` says why."""

    inception: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None
    """Images -> (features, class probabilities):
    `equigrid.generators.quality.networks.Inception`.
    """
    vit: Features | None = None
    """Images -> features: `equigrid.generators.quality.networks.ViT`."""
    features: Features | None = None
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
    score: InceptionScore | None = None

    def __post_init__(self) -> None:
        self.diversity, self.feature_diversity = Diversity(self.classes), Diversity(self.classes)


def load_networks(
    *,
    inception: str | bool = False,
    vit: str | bool = False,
    features: Features | None = None,
    device: "str | torch.device" = "cpu",
) -> Networks:
    """The networks asked for: True for a download, a path for a file; those not to be had become
    messages.
    """
    from equigrid.generators.quality.networks import Inception, NetworkMissing, ViT

    missing: list[str] = []

    def had(make: Callable[..., N], wanted: str | bool) -> N | None:
        if not wanted:
            return None
        try:
            return make(weights=None if wanted is True else wanted, device=device)
        except NetworkMissing as error:
            missing.append(str(error))
            return None

    return Networks(
        inception=had(Inception, inception),
        vit=had(ViT, vit),
        features=features,
        missing=tuple(missing),
    )


def summarise(
    parts: Iterable[Part],
    networks: Networks,
    *,
    classes: int,
    total: int | None = None,
    batch: int = 64,
    seen: Seen = unseen,
) -> Summary:
    """Running statistics over all parts; with `total`, the number of images, also the Inception
    Score. seen: told of each batch.
    """
    summary = Summary(classes)
    if networks.inception and total is not None:
        summary.score = InceptionScore(total)
    for images, labels in parts:
        for first in range(0, len(images), batch):
            chosen = slice(first, first + batch)
            _add(summary, networks, images[chosen], labels[chosen])
            seen(len(images[chosen]))
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


@dataclass(frozen=True)
class Reference:
    """What the real images leave behind: measured once per dataset, compared with every pool."""

    n: int
    inception: Gaussian | None = None
    features: Gaussian | None = None
    diversity: float | None = None
    feature_diversity: float | None = None

    def to_npz(self) -> bytes:
        numbers = {
            "n": self.n,
            "diversity": self.diversity,
            "feature_diversity": self.feature_diversity,
        }
        arrays = {"numbers": np.frombuffer(json.dumps(numbers).encode(), np.uint8)}
        for name in ("inception", "features"):
            if gaussian := getattr(self, name):
                arrays |= {f"{name}_mean": gaussian.mean, f"{name}_covariance": gaussian.covariance}
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]  # not `allow_pickle`, as mypy fears
        return file.getvalue()

    @staticmethod
    def from_npz(content: bytes) -> "Reference":
        """Raises ValueError if these are not the bytes that `to_npz` made."""
        try:
            with np.load(io.BytesIO(content)) as arrays:
                numbers = json.loads(arrays["numbers"].tobytes())
                inception, features = (
                    Gaussian(arrays[f"{name}_mean"], arrays[f"{name}_covariance"])
                    if f"{name}_mean" in arrays.files
                    else None
                    for name in ("inception", "features")
                )
            return Reference(**numbers, inception=inception, features=features)
        except Exception as error:  # numpy and zipfile raise nearly all on damaged bytes
            raise ValueError(f"{type(error).__name__}: {error}") from error


def measured(
    real: Iterable[Part], networks: Networks, *, classes: int, seen: Seen = unseen
) -> Reference:
    """The statistics of the real images: the whole training set, as the paper's FID takes it.
    seen: told of each batch.
    """
    found = summarise(real, networks, classes=classes, seen=seen)
    return Reference(
        n=found.n,
        inception=found.inception.gaussian() if networks.inception else None,
        features=found.features.gaussian() if networks.features else None,
        diversity=found.diversity.score() if networks.vit else None,
        feature_diversity=found.feature_diversity.score() if networks.features else None,
    )


def quality(
    pool: Parts,
    base: Parts,
    networks: Networks,
    *,
    classes: int,
    n_pool: int,
    n_neighbours: int = 500,
    reference: Parts | Reference | None = None,
    seen: Seen = unseen,
) -> dict:
    """A row with the COLUMNS of a pool of n_pool images; those of `reconstruction` and of
    `comparison` are left empty.

    base: the generator's own training images, of which nearest neighbours are looked for (an
    open-set generator's are not at hand: those it should look like).  reference: the real images
    that distances are to, as parts or as `measured` once for many pools; None for base.  seen: told
    of each batch of the pool, and of a reference that is measured here.

    fid, inception_score(_std), diversity(_real): in Inception and ViT features.  feature_*: the
    same distance and diversity in `networks.features`.  neighbour_distance: median distance of the
    first n_neighbours samples to their nearest base image, root mean square per pixel value in [0,
    255]; neighbour_distance_real: the same of base images among each other.  memorised: part of
    those samples that are three times nearer to one base image than to any other.  Empty columns
    are None, and note says why where it was not the configuration.
    """
    fake = summarise(pool(), networks, classes=classes, total=n_pool, seen=seen)
    if fake.n != n_pool:
        raise ValueError(f"the pool has {fake.n} images, not the {n_pool} announced")
    real = (
        reference
        if isinstance(reference, Reference)
        else measured((reference or base)(), networks, classes=classes, seen=seen)
    )
    row: dict = dict.fromkeys(COLUMNS)
    row |= {"n_images": fake.n, "n_real": real.n, "diversity_real": real.diversity}
    row["feature_diversity_real"] = real.feature_diversity
    row |= _distances(fake, real, networks)
    notes = list(networks.missing)
    for column, name in _DISTANCES.items():
        if getattr(networks, name) and row[column] is None:
            notes.append(
                f"the real images were measured without {name}: measure them again for {column}"
            )
    if fake.score is not None:
        row["inception_score"], row["inception_score_std"] = fake.score.score()
    if networks.vit:
        row["diversity"] = fake.diversity.score()
    if networks.features:
        row["feature_diversity"] = fake.feature_diversity.score()
    if n_neighbours:
        row |= _neighbours(pool, base, n_neighbours)
    return row | {"note": "; ".join(notes)}


def reconstruction(
    base: Parts,
    reconstruct: Callable[[np.ndarray], np.ndarray],
    networks: Networks,
    *,
    classes: int,
    seen: Seen = unseen,
) -> dict:
    """What an autoencoder makes of the generator's own training images: the columns
    reconstruction_*.

    reconstruct: images (n, H, W, C) uint8 as they come back, in the same form.
    reconstruction_psnr_db: of the mean squared error over all images.  reconstruction_fid and
    reconstruction_feature_distance: between the images and what came back, so that the number of
    images is no part of them. seen: told of each batch, of what came back and of the images.
    """
    errors: list[np.ndarray] = []

    def returned() -> Iterable[Part]:
        for images, labels in base():
            back = reconstruct(images)
            errors.append(np.square(back.astype(np.int32) - images).mean(axis=(1, 2, 3)))
            yield back, labels

    used = replace(networks, vit=None)
    made = summarise(returned(), used, classes=classes, seen=seen)
    real = measured(base(), used, classes=classes, seen=seen)
    found = _distances(made, real, used)
    found["psnr_db"] = psnr_db(float(np.concatenate(errors).mean()))
    return {f"reconstruction_{name}": value for name, value in found.items()}


def comparison(
    pool: Parts,
    extract: Extract,
    real: Real,
    *,
    n_pool: int,
    metrics: Iterable[str],
    extractor: str,
    device: str = "cpu",
    seen: Seen = unseen,
) -> tuple[dict, list[str]]:
    """The columns COMPARED of a pool of n_pool images against `real`, whose features are of the
    same network; and notes on what could not be told. extract: images to features. metrics: of
    `equigrid.generators.quality.config.METRICS`. extractor: what the network is called. seen: told
    of each batch of the pool, then of distances, see `compared`.
    """  # fmt: skip
    bank = extracted(pool(), extract, n_pool, seen=seen)
    return compared(bank, real, tuple(metrics), extractor=extractor, device=device, seen=seen)


def _distances(seen: Summary, real: Reference, networks: Networks) -> dict[str, float]:
    """Of a set to the real images, in the features of each network that both were measured with."""
    return {
        column: frechet_distance(getattr(seen, name).gaussian(), getattr(real, name))
        for column, name in _DISTANCES.items()
        if getattr(networks, name) and getattr(real, name)
    }


def _neighbours(pool: Parts, base: Parts, n: int) -> dict:
    samples, originals = first_images(pool(), n), first_images(base(), n)
    found = nearest(samples, (images for images, _ in base()))
    among = nearest(originals, (images for images, _ in base()))  # the nearest of each is itself
    return {
        "neighbour_distance": float(np.median(found.distances[:, 0])),
        "neighbour_distance_real": float(np.median(among.distances[:, 1])),
        "memorised": found.memorised,
    }


def neighbour_picture(pool: Parts, base: Parts, *, n: int = 40, columns: int = 20) -> bytes:
    """The pool's first n samples, each above its nearest training image, as a PNG."""
    from equigrid.generators.sheets import neighbour_sheet

    samples = first_images(pool(), n)
    places = nearest(samples, (images for images, _ in base())).indices[:, 0]
    originals = np.empty_like(samples)
    seen = 0
    for images, _ in base():
        here = np.flatnonzero((places >= seen) & (places < seen + len(images)))
        originals[here] = images[places[here] - seen]
        seen += len(images)
    return neighbour_sheet(samples, originals, columns=columns)


def first_images(parts: Iterable[Part], n: int) -> np.ndarray:
    """The first n images, or all if there are fewer: (n, H, W, C) uint8."""
    taken: list[np.ndarray] = []
    for images, _ in parts:
        taken.append(images[: n - sum(map(len, taken))])
        if sum(map(len, taken)) >= n:
            break
    return np.concatenate(taken)
