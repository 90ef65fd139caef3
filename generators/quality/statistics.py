"""Running statistics of features, in float64, so that a pool never lies in memory at once."""

import io
from dataclasses import dataclass

import numpy as np

from equigrid.generators.quality.names import SPLITS


class Moments:
    """Mean and covariance of features that come in parts."""

    def __init__(self) -> None:
        self.count = 0
        # (d,) and (d, d), once d is known
        self._sum, self._products = np.zeros(0), np.zeros((0, 0))

    def add(self, features: np.ndarray) -> None:
        """features: (n, d), any float."""
        features = np.asarray(features, np.float64)
        if self.count == 0:
            self._sum = np.zeros(features.shape[1])
            self._products = np.zeros((features.shape[1],) * 2)
        self.count += len(features)
        self._sum += features.sum(axis=0)
        self._products += features.T @ features

    def include(self, other: "Moments") -> None:
        """The images of other moments too."""
        if other.count and not self.count:
            self._sum, self._products = other._sum.copy(), other._products.copy()
        elif other.count:
            self._sum += other._sum
            self._products += other._products
        self.count += other.count

    def less(self, part: "Moments") -> "Moments":
        """Those of the images that are not in `part`, all of whose images are here."""
        found = Moments()
        found.count = self.count - part.count
        found._sum, found._products = self._sum - part._sum, self._products - part._products
        return found

    def gaussian(self) -> "Gaussian":
        """What the Frechet distance compares; ValueError for fewer than two images."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 images, got {self.count}")
        mean = self._sum / self.count
        centred = self._products - self.count * np.outer(mean, mean)
        return Gaussian(mean, centred / (self.count - 1))


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution fitted to features: mean (d,) and covariance (d, d), float64."""

    mean: np.ndarray
    covariance: np.ndarray

    def to_npz(self) -> bytes:
        """The statistics file that pytorch-fid reads and writes."""
        file = io.BytesIO()
        np.savez_compressed(file, mu=self.mean, sigma=self.covariance)
        return file.getvalue()

    @staticmethod
    def from_npz(content: bytes) -> "Gaussian":
        with np.load(io.BytesIO(content)) as arrays:
            if not {"mu", "sigma"} <= set(arrays.files):
                raise ValueError(
                    f"a statistics file holds mu and sigma, this one {sorted(arrays.files)}"
                )
            return Gaussian(arrays["mu"].astype(np.float64), arrays["sigma"].astype(np.float64))


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """Squared Frechet distance of two normal distributions (Heusel et al. 2017, Eq. 6).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).  The trace of the root is taken from the
    eigenvalues of the symmetric root(C1) C2 root(C1), which are those of C1 C2: exact also where
    fewer images than features make the covariances singular.
    """
    if one.mean.shape != other.mean.shape:
        raise ValueError(
            f"features of {one.mean.size} and of {other.mean.size} dimensions cannot be compared"
        )
    return frechet_from_root(one.mean, root_of(one.covariance), other)


def root_of(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root (d, d) of a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def frechet_from_root(mean: np.ndarray, root: np.ndarray, other: Gaussian) -> float:
    """`frechet_distance` of the normal distribution of this mean and root of the covariance to
    another: the root serves for many others.
    """
    product = root @ other.covariance @ root
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2).clip(0)
    difference = mean - other.mean
    traces = np.square(root).sum() + np.trace(other.covariance)  # tr(C1): root is symmetric
    return float(difference @ difference + traces - 2 * np.sqrt(eigenvalues).sum())


def psnr_db(squared_error: float) -> float:
    """Peak signal-to-noise ratio of pixel values from 0 to 255 with this mean squared error, in
    decibels; at most 148, as a perfect copy has no finite one.
    """
    return float(10 * np.log10(255**2 / max(squared_error, 1e-10)))


class InceptionScore:
    """exp of the mean divergence of p(class | image) from its mean (Salimans et al. 2016), over ten
    splits.

    Images come in order; split k is the images k * total / splits to (k + 1) * total / splits - 1.
    """

    def __init__(self, total: int, splits: int = SPLITS):
        if total < splits:
            raise ValueError(f"{splits} splits need at least as many images, got {total}")
        self.total, self.splits, self.seen = total, splits, 0
        self._counts = np.zeros(splits)
        self._sums = np.zeros((splits, 0))  # (splits, k) of p, once k is known
        self._entropies = np.zeros(splits)  # of sum p log p

    def add(self, probabilities: np.ndarray) -> None:
        """probabilities: (n, k), each row summing to 1."""
        p = np.asarray(probabilities, np.float64)
        if self.seen + len(p) > self.total:
            raise ValueError(f"more images than the {self.total} announced")
        if self.seen == 0:
            self._sums = np.zeros((self.splits, p.shape[1]))
        split = (np.arange(self.seen, self.seen + len(p)) * self.splits) // self.total
        plogp = (p * np.log(p.clip(1e-300))).sum(axis=1)
        np.add.at(self._counts, split, 1)
        np.add.at(self._sums, split, p)
        np.add.at(self._entropies, split, plogp)
        self.seen += len(p)

    def score(self) -> tuple[float, float]:
        """Mean and (population) deviation over the splits; ValueError before all images came."""
        if self.seen != self.total:
            raise ValueError(f"{self.seen} of the {self.total} announced images came")
        mean = self._sums / self._counts[:, None]
        divergence = self._entropies / self._counts - (mean * np.log(mean.clip(1e-300))).sum(axis=1)
        scores = np.exp(divergence)
        return float(scores.mean()), float(scores.std())


class Diversity:
    """Mean over classes of the deviation of features within the class (Boutin et al. 2022, as the
    paper uses it).

    A class's deviation is the mean over the features' dimensions of the sample deviation (n - 1).
    """

    def __init__(self, classes: int):
        self.classes = classes
        self._counts = np.zeros(classes, np.int64)
        # Welford's running mean and sum of squared differences, (classes, d) once d is known
        self._means, self._squares = np.zeros((classes, 0)), np.zeros((classes, 0))

    def add(self, features: np.ndarray, labels: np.ndarray) -> None:
        """features: (n, d); labels: (n,) integers in [0, classes)."""
        features = np.asarray(features, np.float64)
        if not self._counts.any():
            self._means = np.zeros((self.classes, features.shape[1]))
            self._squares = np.zeros_like(self._means)
        for label in np.unique(labels):
            part = features[labels == label]
            old, new = self._counts[label], len(part)
            shift = part.mean(axis=0) - self._means[label]
            self._squares[label] += ((part - part.mean(axis=0)) ** 2).sum(axis=0)
            self._squares[label] += shift**2 * old * new / (old + new)
            self._means[label] += shift * new / (old + new)
            self._counts[label] += new

    def score(self) -> float:
        """Over the classes with at least two images; ValueError if there is none."""
        enough = self._counts >= 2
        if not enough.any():
            raise ValueError("diversity needs a class with at least 2 images")
        deviation = np.sqrt(self._squares[enough] / (self._counts[enough, None] - 1))
        return float(deviation.mean())
