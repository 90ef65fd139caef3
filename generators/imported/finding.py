"""Where an imported set lies: a folder of classes, Parquet files, or Kaggle's tree of CIFAKE."""

import os
import re
from functools import lru_cache

from equigrid.generators.common import trees
from equigrid.generators.common.decoding import is_image_name
from equigrid.generators.imported.listing import Folder, Image, Listing
from equigrid.generators.imported.parquet import parquet
from equigrid.generators.naming import normal

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAKE_NAME = re.compile(r"\d+(?: ?\((\d+)\))?\.(?:jpe?g|png)", re.IGNORECASE)


@lru_cache(
    maxsize=4
)  # asked for capacity, check and payload; a folder that changes in between is not looked for
def listing(
    kind: str, path: str, *, split: str | None, image: str | None, label: str | None, rename: tuple
) -> Listing:
    """The images of the set at `path`; ValueError, one line, if there is none or it has another
    form.
    """
    try:
        return _listing(kind, path, split, image, label, rename)
    except trees.BadTree as error:
        raise ValueError(f"path: {error}") from error


def _listing(
    kind: str, path: str, split: str | None, image: str | None, label: str | None, rename: tuple
) -> Listing:
    if kind == "cifake":
        found = _cifake(path, split or "train")
    elif (folders := _class_folders(path, split)) and not _packed(_root(path, split), folders):
        found = _folders(_root(path, split), folders)
    elif "://" in path or os.path.isdir(os.path.expanduser(path)):
        return parquet(path, split=split, image=image, label=label, rename=dict(rename))
    else:
        raise ValueError(
            f"path: there is no folder {path!r}; name one with CLASS/* in it, or with Parquet files"
        )
    if image or label:
        raise ValueError(
            "image and label name columns of Parquet files, and there are folders of images"
        )
    names = dict(rename)
    root, images = found
    return Folder(root, (Image(one.place, names.get(one.label, one.label)) for one in images))


def _root(path: str, split: str | None) -> str:
    root = os.path.abspath(os.path.expanduser(path))
    return os.path.join(root, split) if split else root


def _class_folders(path: str, split: str | None) -> list[str]:
    """Names of the folders in PATH/SPLIT, sorted; none where there is no such folder, or `path` is
    a URI.
    """
    root = _root(path, split)
    if "://" in path or not os.path.isdir(root):
        return []
    return [
        entry.name
        for entry in trees.entries(root)
        if trees.is_folder(entry) and not trees.is_hidden(entry.name)
    ]


def _packed(root: str, folders: list[str]) -> bool:
    """Whether the folder is a cloned repository of Parquet files: `data/train-….parquet` …"""
    files = (entry for name in folders for entry in trees.walk(os.path.join(root, name)))
    first = next((entry for entry in files if not trees.is_hidden(entry.name)), None)
    return first is not None and first.name.lower().endswith(".parquet")


def _folders(root: str, names: list[str]) -> tuple[str, list[Image]]:
    images = []
    loose = [
        e.name for e in trees.entries(root) if is_image_name(e.name) and not trees.is_folder(e)
    ]
    if loose:
        what = f"has {len(loose)} images in no class folder, such as {loose[0]}"
        raise ValueError(f"path: {root} {what}; put each into that of its class")
    for name in names:
        found, passed = _files(os.path.join(root, name))
        if lost := trees.lost_share(len(found), passed):
            raise ValueError(f"path: {os.path.join(root, name)}: {lost}")
        images += [Image(os.path.relpath(file, root), normal(name)) for file in found]
    return root, images


def _cifake(path: str, split: str) -> tuple[str, list[Image]]:
    """Kaggle's tree: SPLIT/FAKE/N.jpg is class 1 of CIFAR-10's order, "N (2).jpg" class 2, up to "N
    (10).jpg".
    """
    root = os.path.join(_root(path, None), split, "FAKE")
    if not os.path.isdir(root):
        raise ValueError(
            f"path: {path} has no folder {split}/FAKE; "
            "name the folder that Kaggle's CIFAKE unpacks to"
        )
    images = []
    for file in _files(root)[0]:
        matched = _CIFAKE_NAME.fullmatch(os.path.basename(file))
        number = int(matched[1] or 1) if matched else 0
        if not 1 <= number <= len(CIFAR10):
            raise ValueError(
                f"path: {file} has no class of CIFAR-10 in its name, as in '0001 (7).jpg'"
            )
        images.append(Image(os.path.relpath(file, root), CIFAR10[number - 1]))
    return root, images


def _files(folder: str) -> tuple[list[str], list[str]]:
    """Image files below a folder, sorted, and the files that are none."""
    images, passed = [], []
    for entry in trees.walk(folder):
        if is_image_name(entry.name):
            trees.facts_of(entry)  # no pipe, no link to nowhere
            images.append(entry.path)
        else:
            passed.append(entry.path)
    return sorted(images), passed
