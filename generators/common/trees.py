"""Folders of files as people keep them: what belongs to a set, and what a desktop or a server left
there.
"""

import os
import stat
from collections.abc import Iterator

from equigrid.generators.common import dicom

_LEFT_BY_OTHERS = frozenset((
    "__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found",
    "__pycache__",
))  # fmt: skip


MOST_FILE_BYTES = 2**30
"""Of an image file, which is held whole."""


class BadTree(ValueError):
    """One line: which file or folder is wrong, and what would be right."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's own: `.name`, Synology's `@eaDir`, macOS's
    `__MACOSX` …
    """
    return name.startswith(".") or name.lower() in _LEFT_BY_OTHERS


def entries(folder: str) -> list[os.DirEntry]:
    """What lies in a folder, by name. Raises BadTree if it cannot be listed; FileNotFoundError."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BadTree(f"{folder} cannot be listed: {error.strerror}") from error


def is_folder(entry: os.DirEntry) -> bool:
    """Whether it is a folder, or a link to one. Raises BadTree for a link that leads to itself or
    nowhere: a class may lie there, on a disk that is not mounted.
    """
    try:
        if entry.is_dir():
            return True
        if entry.is_symlink() and not is_hidden(entry.name):
            entry.stat()
        return False
    except OSError as error:
        right = "mend or remove the link"
        raise BadTree(f"{entry.path} cannot be read: {error.strerror}; {right}") from error


def walk(folder: str, _above: frozenset = frozenset()) -> Iterator[os.DirEntry]:
    """Files below a folder, in the order of their names, without hidden folders; none if it is not
    there.

    Raises BadTree for a folder that cannot be listed, and for a link to a folder above it, which
    would never end.
    """
    try:
        facts = os.stat(folder)
        found = entries(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadTree(f"{folder} cannot be read: {error.strerror}") from error
    here = (facts.st_dev, facts.st_ino)
    _above = _above or _parents(folder)
    if here in _above:
        raise BadTree(f"{folder} is a link to a folder that it lies in; remove the link")
    for entry in found:
        if not is_folder(entry):
            yield entry
        elif not is_hidden(entry.name):
            yield from walk(entry.path, _above | {here})


def _parents(folder: str) -> frozenset:
    """What tells the folders above one from all others."""
    found, path = set(), os.path.abspath(folder)
    while (path := os.path.dirname(path)) not in found:
        found.add(path)
    return frozenset((facts.st_dev, facts.st_ino) for facts in map(os.stat, found))


def facts_of(entry: os.DirEntry) -> os.stat_result:
    """An image file's size and time. Raises BadTree for a link to nowhere, a pipe, a socket or a
    device, and for one that is too large.
    """
    try:
        facts = entry.stat()
    except OSError as error:
        raise BadTree(f"{entry.path} cannot be read: {error.strerror}") from error
    if why := why_no_image_file(facts):
        raise BadTree(f"{entry.path} {why}")
    return facts


def why_no_image_file(facts: os.stat_result) -> str | None:
    """Why what has these facts is no file of an image, whatever it is named; None if it may be."""
    if not stat.S_ISREG(facts.st_mode):
        return "is no file (a pipe, a socket or a device?); remove it"
    if facts.st_size > MOST_FILE_BYTES:
        return f"has {facts.st_size:,} bytes; {MOST_FILE_BYTES:,} are the most of an image"
    return None


_BESIDE_IMAGES = frozenset((
    ".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html",
    ".htm", ".db", ".ini", ".log", ".toml", ".pdf", ".py", ".ipynb", ".url", ".lnk", ".sha256",
    ".md5", ".npy", ".mat",
))  # fmt: skip
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".7z", ".rar")
LOSS = 0.1
"""The part of a class's files that may be passed over as no images."""


def lost_share(images: int, passed: list[str]) -> str | None:
    """Why too many files of a class were passed over, if so: more than `LOSS` of it has an ending
    that is no image's here. Notes and lists beside the images, and hidden files, are no loss.
    """
    lost = [
        path
        for path in passed
        if not is_hidden(os.path.basename(path))
        and os.path.splitext(path)[1].lower() not in _BESIDE_IMAGES
    ]
    if len(lost) <= LOSS * (images + len(lost)):
        return None
    if (kind := _dicom_hint(lost[0])) is not None:
        return f"{len(lost)} of {images + len(lost)} files {kind}, such as {lost[0]}"
    ending = os.path.splitext(lost[0])[1]
    what = f"{len(lost)} of {images + len(lost)} files are no images that can be read here"
    how = f"ending {ending!r}" if ending else "without an ending"
    right = "convert them, or move them elsewhere" if ending else "rename them, e.g. to .png"
    return f"{what}, such as {os.path.basename(lost[0])} ({how}); {right}"


def _dicom_hint(path: str) -> str | None:
    """What to do with a DICOM file that was passed over; None if it is none."""
    try:
        with open(path, "rb") as file:
            if not dicom.is_dicom(file.read(132)):
                return None
    except OSError:
        return None
    if not dicom.SUFFIXES:
        return "are DICOM; install pydicom (equigrid[dicom])"
    return "are DICOM; rename them to end in .dcm"
