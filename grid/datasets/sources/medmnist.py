"""The 2-D sets of MedMNIST with one label an image, downloaded by the addresses and checksums of
medmnist 3.0.2, which are data here: the package would bring scikit-image and others along.
"""

import json
import os
from functools import cache, partial
from pathlib import Path

from equigrid.grid.datasets.sources import npz
from equigrid.grid.datasets.sources.base import (
    Contents,
    Shape,
    Source,
    cache_folder,
    checked_size,
    downloading,
)
from equigrid.grid.errors import UserError

NAMES = (
    "bloodmnist", "breastmnist", "dermamnist", "octmnist", "organamnist", "organcmnist",
    "organsmnist", "pathmnist", "pneumoniamnist", "retinamnist", "tissuemnist",
)  # fmt: skip
VOLUMES = ("organ", "nodule", "adrenal", "fracture", "vessel", "synapse")
REFUSED = {
    "chestmnist": "its images have several labels each, and equigrid's classifiers tell one class "
    "an image",
    **{
        f"{organ}mnist3d": "it holds volumes of 28×28×28, and equigrid works on images"
        for organ in VOLUMES
    },
}
VERSIONS = (28, 64, 128, 224)
PUBLISHED = "3.0.2"  # medmnist's version whose facts medmnist.json holds
ADDRESS = "https://zenodo.org/records/10519652/files/{file}?download=1"


def medmnist(
    name: str, place: str | None = None, size: int = 64, resize: int | None = None
) -> Source:
    """The set `name` with its own train, val and test split (Yang et al., 2023).

    place: the folder that holds its .npz; without it the cache, into which it is downloaded on
    first use. size: which of MedMNIST's versions, 28, 64, 128 or 224. resize: the side at which
    images are stored (bicubic, antialiased); by default 32 for the version of 64, as the paper has
    it, and none for the others.
    """
    if size not in VERSIONS:
        raise UserError(
            f"dataset.size: {size!r}; MedMNIST has versions of "
            f"{', '.join(map(str, VERSIONS))} pixels"
        )
    resize = 32 if resize is None and size == 64 else _checked_resize(resize)
    facts = _facts()[name]
    folder, classes = cache_folder(name, place, "medmnist"), tuple(facts["classes"])
    file = folder / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")
    state = {
        "source": "medmnist",
        "set": name,
        "size": size,
        "resize": resize,
        "medmnist": PUBLISHED,
    }
    shape = None
    if "counts" in facts:
        side = resize or size
        by_split = {split: tuple(counts) for split, counts in facts["counts"].items()}
        shape = Shape.of(classes, (side, side, facts["channels"]), by_split)
    elif file.is_file():
        shape = _look_into(file, len(classes)).shape(classes, resize)
    return Source(name, state, classes, partial(_contents, name, size, resize, file), shape)


def _checked_resize(resize: object) -> int | None:
    try:
        return checked_size(resize)
    except UserError as error:
        raise UserError(str(error).replace("dataset.size", "dataset.resize")) from None


@cache
def _facts() -> dict:
    """Channels, images per split, class names, MD5 of each version's file, and class counts per
    split where they are published, of each set.
    """
    return json.loads(Path(__file__).with_name("medmnist.json").read_text(encoding="utf-8"))


def _contents(name: str, size: int, resize: int | None, file: Path) -> Contents:
    _fetch(name, size, file)
    return _look_into(file, len(_facts()[name]["classes"])).contents(resize)


def _look_into(file: Path, classes: int) -> npz.NpzFile:
    return npz.look_into(file, f"dataset: {file}", classes)


def _fetch(name: str, size: int, file: Path) -> None:
    """Downloads the file, with a progress bar, unless it is there, and checks its checksum. Raises
    UserError, UnavailableError.
    """
    from torchvision.datasets.utils import check_md5, download_url

    md5 = _facts()[name]["md5"][str(size)]
    if not file.exists():
        part = file.with_suffix(".part")
        with downloading(name, file.parent, f"place {file.name} (MD5 {md5}) in {file.parent}"):
            download_url(ADDRESS.format(file=file.name), str(file.parent), part.name, md5)
            os.replace(part, file)
    if not check_md5(str(file), md5):
        right = f"medmnist's has {md5}; remove the file to have it downloaded again"
        raise UserError(f"dataset: {file} has another MD5 than it should; {right}")
