"""What a set looks like to us, image by image, before anything is planned: there is no store, and
nothing is written.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from equigrid.generators.common.decoding import BrokenImage, decode_and_see
from equigrid.grid.datasets import ingest
from equigrid.grid.datasets import near_duplicates as near
from equigrid.grid.datasets.sources.base import SPLITS, Contents, Source, Told

UNIT = 512  # images read at once
LISTED = 20  # sizes, broken images, files passed over


class _Image(NamedTuple):
    split: str
    where: str
    label: int
    pixels: np.ndarray | None
    told: Told
    broken: str = ""


class _Seen(NamedTuple):
    """What near-duplicates are told by: of each image its split, where it lies, its label, a hash
    of its pixels and its thumbnail.
    """

    splits: list[str]
    places: list[str]
    labels: list[int]
    hashes: list[bytes]
    thumbnails: list[np.ndarray]

    def add(self, split: str, place: str, label: int, digest: bytes, small: np.ndarray) -> None:
        self.splits.append(split)
        self.places.append(place)
        self.labels.append(label)
        self.hashes.append(digest)
        self.thumbnails.append(small)


def inspect(
    src: Source, report: Callable[[int, int], None] | None = None, *, near_duplicates: bool = False
) -> dict:
    """Classes, counts, sizes, copies, broken and passed-over files of a set, as JSON.

    report: told (images done, images in all). near_duplicates: whether to look for those too, which
    takes memory for a thumbnail of each image, and time that grows with the square of their number.
    Raises UserError.
    """
    contents = src.contents()
    sizes: Counter[str] = Counter()
    broken, told, grey = [], Told(), 0
    hashes: dict[str, list[bytes]] = {split: [] for split in contents.counts}
    labels: dict[str, list[int]] = {split: [] for split in contents.counts}
    seen, side = _Seen([], [], [], [], []), near.side_of(*contents.image[:2])
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
        if near_duplicates:
            place = image.where or f"{image.split} {len(labels[image.split]) - 1}"
            own = (image.split, place, image.label, hashes[image.split][-1])
            seen.add(*own, near.thumbnail(image.pixels, side))
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
        "groups_apart": src.grouped, "split_here": src.split_here,
        **({"near_duplicates": _near_duplicates(seen)} if near_duplicates else {}),
    }  # fmt: skip


def _near_duplicates(seen: _Seen) -> dict:
    """How many images nearly repeat another: of train by themselves, of test that are in train, and
    so on; with those of them under another class, and `first`, the nearest: [the one, the other,
    part of the variance left unexplained]. Copies, equal in every pixel, are counted elsewhere.
    """
    found = near.find(np.stack(seen.thumbnails)) if seen.thumbnails else None
    images: dict[str, set[int]] = {}
    first: list[list] = []
    other_class: set[int] = set()
    for (one, other), distance in zip(*(found or ([], []))):
        if seen.hashes[one] == seen.hashes[other]:
            continue
        one, other = sorted((one, other), key=lambda i: (SPLITS.index(seen.splits[i]), i))
        splits = dict.fromkeys((seen.splits[one], seen.splits[other]))
        images.setdefault("_".join(splits), set()).add(int(other))
        if seen.labels[one] != seen.labels[other]:
            other_class.add(int(other))
        if len(first) < LISTED:
            first.append([seen.places[one], seen.places[other], round(float(distance), 5)])
    counts = {pair: len(numbers) for pair, numbers in images.items()}
    return {**counts, "other_class": len(other_class), "first": first}


def _images(src: Source, contents: Contents) -> Iterator[_Image]:
    levels, page = src.state.get("range"), src.state.get("page")
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
                    pixels, seen = decode_and_see(data, levels=levels and tuple(levels), page=page)
                except BrokenImage as error:
                    yield _Image(split, where, label, None, Told(), str(error)[:120])
                    continue
                yield _Image(split, where, label, pixels, Told.of(seen, where))


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
    lines += [f"  {line}" for line in _copies(found["duplicates"], found["split_here"])]
    if (alike := found.get("near_duplicates")) is not None:
        lines += [f"  {line}" for line in _alike(alike)]
    for name, n, some in (
        ("broken", found["n_broken"], found["broken"]),
        ("passed over as no images", found["n_passed_over"], found["passed_over"]),
    ):
        if n:
            lines.append(f"  {name}: {n:,}, such as {some[0]}")
    return "\n".join(lines)


def _copies(copies: dict, split_here: bool) -> Iterator[str]:
    left_out = " (the split is made here: ingest leaves them out of train)" if split_here else ""
    if "train" in copies:
        other = f", {copies['labels']:,} under another class" if "labels" in copies else ""
        yield f"copies: {copies['train']:,} train images repeat an earlier one{other}"
    for pair, n in copies.items():
        if "_" in pair and n:
            one, two = pair.split("_")
            yield f"copies: {n:,} {two} images are in {one} too{left_out if one == 'train' else ''}"
    if "first" not in copies:
        yield "copies: none, pixel by pixel"


def _alike(found: dict) -> Iterator[str]:
    for pair, n in found.items():
        if pair in SPLITS:
            yield f"near-duplicates: {n:,} {pair} images nearly repeat an earlier one"
        elif pair not in ("other_class", "first"):
            one, two = pair.split("_")
            yield f"near-duplicates: {n:,} {two} images nearly repeat one of {one}"
    if not found["first"]:
        yield "near-duplicates: none (crops, turned and mirrored images are not looked for)"
        return
    if found["other_class"]:
        yield f"near-duplicates: {found['other_class']:,} of them are under another class"
    for one, other, distance in found["first"][:3]:
        yield f"  {other} is nearly {one} ({distance:.2%} of its variance differs)"
