"""ImageNet-1k as everybody has it, train/WNID/* and val/WNID/*, whole or some of its classes."""

import re
from functools import partial
from pathlib import Path

from equigrid.grid.datasets.sources import encoded, folder
from equigrid.grid.datasets.sources.base import Source
from equigrid.grid.errors import UserError

SIZE = 256


def imagenet(
    kind: str,
    place: str | None,
    classes: str | None = None,
    size: int = SIZE,
    allow_broken: int = 0,
) -> Source:
    """Classes of an ImageNet-1k folder; its val is what is tested on, as everywhere. `kind` is the
    list's name.

    imagenet: all 1,000 classes; imagenet100: those of the list in CMC (Tian et al., 2020);
    imagenet10: the paper's. classes: a file with a list of one's own, a WordNet id a line, a name
    after it if its usual one will not do. Labels number the ids in ascending order. size: the short
    side is resized to it (bicubic, antialiased), the centre cropped. allow_broken: images that may
    fail to decode; they are left out.
    """
    root = folder.root_folder(place, kind, "train/n01440764/* and val/n01440764/* in it")
    names = read_list(
        Path(classes).expanduser() if classes else Path(__file__).with_name(f"{kind}.txt")
    )
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise UserError(
                f"dataset: {kind}: {root} has no folder {split}; "
                "it must have train/WNID/* and val/WNID/*"
            )
    for split in ("train", "val"):
        absent = sorted(set(names) - set(folder.class_folders(root / split)))
        if absent:
            right = (
                "name an ImageNet-1k folder, or list the classes it has in a file: classes: FILE"
            )
            what = (
                f"{len(absent)} of {len(names)} classes, such as {absent[0]} ({names[absent[0]]})"
            )
            raise UserError(f"dataset: {kind}: {root / split} lacks {what}; {right}")
    splits = {"train": "train", "test": "val"}
    reading = encoded.checked_reading(SIZE if size is None else size, None, 3, allow_broken)
    tree = folder.look_into(root, splits, list(names), reading=reading)
    named = tree._replace(classes=tuple(names.values()))
    return named.source(kind, kind, tuple(names))


KINDS = {kind: partial(imagenet, kind) for kind in ("imagenet", "imagenet100", "imagenet10")}


def read_list(path: Path) -> dict[str, str]:
    """WordNet ids, ascending, and the classes' names. Raises UserError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"dataset.classes: {path} cannot be read: {getattr(error, 'strerror', error)}"
        ) from error
    usual = (
        {}
        if path.parent == Path(__file__).parent
        else read_list(Path(__file__).with_name("imagenet.txt"))
    )
    names: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        wnid, _, name = line.strip().partition(" ")
        if not wnid or wnid.startswith("#"):
            continue
        if not re.fullmatch(r"n\d{8}", wnid):
            raise UserError(
                f"dataset.classes: {path}:{number}: {wnid!r} is no WordNet id such as n01440764"
            )
        if wnid in names:
            raise UserError(
                f"dataset.classes: {path}:{number}: {wnid} is there twice; name each once"
            )
        names[wnid] = name.strip() or usual.get(wnid, wnid)
    if len(names) < 2:
        raise UserError(
            f"dataset.classes: {path} names {len(names)} classes; two are the least to tell apart"
        )
    return dict(sorted(names.items()))
