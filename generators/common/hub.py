"""Files of weights on Hugging Face's hub, by address: `hf://OWNER/NAME[@REVISION]/PATH`."""

import os
import re
from functools import lru_cache
from pathlib import Path

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+?))?/(.+)")
_FILE = (".safetensors", ".json")


def local(place: str, key: str = "weights") -> str:
    """Where a place's files lie on this machine: a path as it is; of an address the hub's cache,
    downloaded if need be.

    An address ends in a file (`.safetensors`, `.json`) or in a folder, whose files of these kinds
    are had. A revision with a slash is written with %2F. The hub is that of HF_ENDPOINT, the token
    huggingface_hub's own. Raises ValueError in one line that begins with `key`.
    """
    return _downloaded(place, key, os.environ.get("HF_ENDPOINT")) if _is_address(place) else place


def is_absent(error: ValueError) -> bool:
    """Whether `local` raised it because the hub has no such file, though it has the repository."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cause = error.__cause__
    offline = isinstance(cause, LocalEntryNotFoundError)  # derived from the other
    return isinstance(cause, EntryNotFoundError) and not offline


def _is_address(place: str) -> bool:
    return place.startswith(SCHEME)


@lru_cache(maxsize=64)  # a plan asks once per cell, and each time the hub would be asked
def _downloaded(place: str, key: str, endpoint: str | None) -> str:
    found = _ADDRESS.fullmatch(place)
    if found is None or found[1].startswith("datasets/"):
        raise ValueError(f"{key}: {place}; write hf://OWNER/NAME[@REVISION]/PATH of a model")
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HTTPError  # its timeouts are no OSErrors

    repository, revision, path = found[1], (found[2] or "main").replace("%2F", "/"), found[3]
    try:
        if path.endswith(_FILE):
            return hf_hub_download(repository, path, revision=revision, endpoint=endpoint)
        kinds = [f"{path.strip('/')}/**{end}" for end in _FILE]
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=kinds, endpoint=endpoint
        )
    except (HTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{key}: {place} cannot be had from the hub: {reason}") from error
    return str(Path(folder) / path.strip("/"))
