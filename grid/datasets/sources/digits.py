"""scikit-learn's handwritten digits, which are installed with it."""

from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from equigrid.grid.datasets import subsets
from equigrid.grid.datasets.sources.base import Batch, Contents, Shape, Source
from equigrid.grid.errors import UserError

TEST = 597  # of 1,797, which leaves 1,200 to train on
LABELS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


def digits(place: str | None = None) -> Source:
    """1,797 real images of 8×8 in 17 grey levels (0 to 16), ten classes.

    The set has no split of its own. Ours is fixed: the last 597 places of the stratified order with
    seed 0 are the test set. Its counts are facts about the file that scikit-learn ships, so
    planning need not read it.
    """
    if place is not None:
        raise UserError(f"dataset: digits takes no place, got {place!r}; write dataset: digits")
    train = subsets.subset_counts(LABELS, sum(LABELS) - TEST)
    counts = {"train_counts": train, "test_counts": np.asarray(LABELS) - train}
    shape = Shape(
        tuple("0123456789"), 8, 8, 1, **{k: tuple(int(n) for n in v) for k, v in counts.items()}
    )
    state = {"source": "digits", "scikit-learn": version("scikit-learn"), "split": 1}
    counts = {"train": shape.n_train, "test": shape.n_test}
    contents = Contents(
        shape.image, counts, lambda split, start, stop: (split, start, stop), _read, from_start=True
    )
    return Source("digits", state, shape.classes, lambda: contents, shape)


def _read(unit: tuple[str, int, int]) -> Iterator[Batch]:
    split, start, stop = unit
    grey, labels = _file()
    places = subsets.order(labels, seed=0)
    chosen = np.sort(places[:-TEST] if split == "train" else places[-TEST:])[start:stop]
    images = np.rint(grey.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    yield Batch(images[chosen], labels[chosen])


def _file() -> tuple[np.ndarray, np.ndarray]:
    """What `sklearn.datasets.load_digits` gives, (1797, 64) float64 from 0 to 16 and (1797,) int64,
    from its file: to import scikit-learn takes longer than all else that ingesting these images
    does, in each process that does it. Where a scikit-learn has no such file, it is asked itself.
    """
    package = getattr(find_spec("sklearn"), "origin", None) or ""
    path = Path(package).parent / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        from sklearn.datasets import load_digits

        grey, labels = load_digits(return_X_y=True)
        return grey, labels.astype(np.int64)
    rows = np.loadtxt(path, delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(np.int64)
