"""What a set looks like to us, image by image, before anything is planned: there is no store, and
nothing is written.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from equigrid.generators.common import parquet_files
from equigrid.generators.common.decoding import BrokenImage, decode_and_see
from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.datasets.sources.base import SPLITS, Contents, Source, Told
from equigrid.grid.errors import UserError, near

UNIT = 512  # images read at once
LISTED = 20  # sizes, broken images, files passed over


class _Image(NamedTuple):
    split: str
    where: str
    label: int
    pixels: np.ndarray | None
    told: Told
    broken: str = ""


def guess(place: str) -> dict | str:
    """What a spec's `dataset` would say of a place: a set's name, an .npz, Parquet files, a folder
    of class folders, or a table of labels in a folder. Raises UserError.
    """
    if place in catalogue.SOURCES:
        return place
    if "://" in place:
        return {"parquet": place}
    path = Path(place).expanduser()
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError):
        is_file = is_folder = False
    ending = path.suffix.lower()
    if is_file and ending in (".npz", ".parquet"):
        return {ending[1:]: place}
    if is_file and ending in (".csv", ".tsv"):
        return {"imagefolder": str(path.parent), "labels": str(path.absolute())}
    if not is_folder:
        what = "is no folder, no .npz, .parquet or table (.csv)" if is_file else "is not there"
        names = [
            name for name in catalogue.SOURCES if name not in ("imagefolder", "parquet", "npz")
        ]
        raise UserError(f"{place} {what}, and no set's name{near(place, names)}")
    try:
        found, _ = parquet_files.find(str(path.absolute()))
    except parquet_files.BadFiles as error:
        raise UserError(f"dataset: parquet: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{place} cannot be listed: {error}") from error
    return {"parquet" if found else "imagefolder": place}


def inspect(src: Source, report: Callable[[int, int], None] | None = None) -> dict:
    """Classes, counts, sizes, copies, broken and passed-over files of a set, as JSON.

    report: told (images done, images in all). Raises UserError.
    """
    contents = src.contents()
    sizes: Counter[str] = Counter()
    broken, told, grey = [], Told(), 0
    hashes: dict[str, list[bytes]] = {split: [] for split in contents.counts}
    labels: dict[str, list[int]] = {split: [] for split in contents.counts}
    total = sum(contents.counts.values())
    for done, image in enumerate(_images(src, contents), start=1):
        if report:
            report(done, total)
        if image.pixels is None:
            broken.append(f"{image.split}: {image.where} ({image.broken})")
            continue
        height, width, channels = image.pixels.shape
        sizes[f"{height}×{width}"] += 1
        grey += channels == 1 or bool((image.pixels == image.pixels[..., :1]).all())
        told = told.with_(image.told)
        hashes[image.split].append(ingest.hash_of(image.pixels))
        labels[image.split].append(image.label)
    counted = {split: np.array(found, np.int64) for split, found in labels.items()}
    copies = ingest.duplicates(
        {split: np.frombuffer(b"".join(found), "V16") for split, found in hashes.items()}, counted
    )
    counts = {
        split: np.bincount(counted[split], minlength=len(src.classes)).tolist()
        for split in SPLITS
        if split in counted
    }
    return {
        "name": src.name, "classes": list(src.classes), "counts": counts,
        "images": total, "sizes": dict(sizes.most_common(LISTED)), "grey": grey,
        "stored": list(contents.image), "duplicates": copies, "broken": broken[:LISTED],
        "n_broken": len(broken), "passed_over": list(contents.skipped[:LISTED]),
        "n_passed_over": len(contents.skipped), "told": [*src.told, *ingest.told_of(src, told)],
        "groups_apart": src.grouped,
    }  # fmt: skip


def _images(src: Source, contents: Contents) -> Iterator[_Image]:
    levels = src.state.get("range")
    for split, n in contents.counts.items():
        step = n if contents.from_start else UNIT
        for start in range(0, n, step):
            unit = contents.unit(split, start, min(start + step, n))
            if contents.raw is None:
                for batch in contents.read(unit):
                    for pixels, label in zip(batch.images, batch.labels.tolist()):
                        yield _Image(split, "", label, pixels, Told())
                continue
            for _, where, data, label in contents.raw(unit):
                try:
                    pixels, seen = decode_and_see(data, levels=levels and tuple(levels))
                except BrokenImage as error:
                    yield _Image(split, where, label, None, Told(), str(error)[:120])
                    continue
                low, high = seen.levels or (None, None)
                paged = seen.pages > 1
                told = Told(low, high, int(paged), where if paged else "")
                yield _Image(split, where, label, pixels, told)


def text(found: dict) -> str:
    """What `inspect` found, to be read."""
    wide = max(5, *(len(name) for name in found["classes"]))
    lines = [f"{found['name']}: {found['images']:,} images, {len(found['classes'])} classes"]
    lines.append(f"  {'class':{wide}}" + "".join(f"{split:>9}" for split in found["counts"]))
    for i, name in enumerate(found["classes"]):
        row = "".join(f"{counts[i]:>9,}" for counts in found["counts"].values())
        lines.append(f"  {name:{wide}}{row}")
    sizes = [f"{size} ({n:,})" for size, n in found["sizes"].items()]
    lines.append(f"  sizes (height × width): {', '.join(sizes) or 'none could be decoded'}")
    height, width, channels = found["stored"]
    lines.append(f"  stored as {height}×{width}×{channels}; {found['grey']:,} images are grey")
    if len(sizes) > 1 and (height, width) == tuple(map(int, next(iter(found["sizes"])).split("×"))):
        lines.append("  several sizes: set size, e.g. size: 32")
    lines += [f"  {line}" for line in found["told"]]
    lines += [f"  {line}" for line in _copies(found["duplicates"])]
    for name, n, some in (
        ("broken", found["n_broken"], found["broken"]),
        ("passed over as no images", found["n_passed_over"], found["passed_over"]),
    ):
        if n:
            lines.append(f"  {name}: {n:,}, such as {some[0]}")
    return "\n".join(lines)


def _copies(copies: dict) -> Iterator[str]:
    if "train" in copies:
        other = f", {copies['labels']:,} under another class" if "labels" in copies else ""
        yield f"copies: {copies['train']:,} train images repeat an earlier one{other}"
    for pair, n in copies.items():
        if "_" in pair and n:
            one, two = pair.split("_")
            yield f"copies: {n:,} {two} images are in {one} too"
    if "first" not in copies:
        yield "copies: none, pixel by pixel"
