"""The order in which a pool takes an imported set's images: free of torch."""

import difflib

import numpy as np

from equigrid.generators import balance
from equigrid.generators.common.parquet_files import split_of
from equigrid.generators.common.rng import permutation
from equigrid.generators.imported.listing import Listing


def by_class(listing: Listing, class_names: tuple[str, ...]) -> list[np.ndarray]:
    """Positions in listing.images of each class of the dataset, in the dataset's order: int64
    arrays.

    The set's classes have the dataset's names, or are all of the numbers from 0.  Raises ValueError
    for a class that one of the two lacks.
    """
    names = class_names
    numbers = tuple(map(str, range(len(class_names))))
    if set(listing.labels) <= set(numbers) and not set(listing.labels) <= set(class_names):
        names = numbers
    place = {name: i for i, name in enumerate(names)}
    for label in listing.labels:
        if label not in place:
            near = difflib.get_close_matches(label, names, n=1)
            right = (
                f"did you mean {near[0]!r}? Set rename"
                if near
                else f"it has {_some(names)}; set rename"
            )
            if {split_of(f"{one}/") for one in listing.labels} & {"train", "test", "val"}:
                splits = " and ".join(one for one in listing.labels if split_of(f"{one}/"))
                right = f"are its folders ({splits}) splits? Set split, e.g. split: train"
            raise ValueError(f"class {label!r} of {listing.root} is not in the dataset: {right}")
    classes = np.array([place[image.label] for image in listing.images])
    found = [np.flatnonzero(classes == k) for k in range(len(names))]
    for name, positions in zip(names, found):
        if not len(positions):
            raise ValueError(
                f"class {name!r} of the dataset has no image in {listing.root}; "
                f"it has classes {_some(listing.labels)}"
            )
    return found


def capacity(
    listing: Listing,
    class_names: tuple[str, ...],
    shares: tuple[int, ...] | None = None,
    *,
    every_image: bool = True,
) -> int:
    """Images of the longest prefix that has the classes' shares, equal ones for None. every_image:
    whether a class has more than the rarest.
    """
    counts = [len(positions) for positions in by_class(listing, class_names)]
    if not every_image:
        counts = [min(counts)] * len(counts)
    if shares is not None:
        return balance.longest(shares, counts)
    return len(class_names) * min(counts)


def in_order(listing: Listing, class_names: tuple[str, ...], seed: int) -> list[np.ndarray]:
    """Positions in listing.images, int64, of each class's images in the order in which a pool takes
    them.

    A permutation per class, drawn from (seed, class).  Groups (of Parquet's rows) are permuted as
    wholes and then within themselves, so that neighbours in the pool are read together.
    """
    groups = np.array([image.group for image in listing.images])
    # The same for all classes.
    rank = permutation(seed, "imported groups", 0, int(groups.max()) + 1)
    columns = []
    for label, positions in enumerate(by_class(listing, class_names)):
        shuffled = positions[permutation(seed, "imported order", label, len(positions))]
        columns.append(shuffled[np.argsort(rank[groups[shuffled]], kind="stable")])
    return columns


def accepted(listing: Listing, class_names: tuple[str, ...], seed: int) -> np.ndarray:
    """Positions in listing.images of as many of each class: (images per class, classes) int64, row
    r the r-th image of each class.
    """
    columns = in_order(listing, class_names, seed)
    shortest = min(map(len, columns))
    return np.stack([column[:shortest] for column in columns], axis=1)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
