"""Where pre-trained parts come from: a folder, or the hub; told apart and identified without
torch.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from equigrid.generators.common.digests import sha256

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_READ = (".json", ".txt", ".model", ".safetensors")
"""Ends of the files that are read: configurations, vocabularies and weights; never pickles."""


def identity(key: str, source: str, revision: str) -> dict:
    """What identifies pre-trained parts: a hub id and its revision, or the SHA-256 of a folder's
    content.

    The folder's own files and those one level below are hashed, as far as loading reads their kind.
    Raises ValueError that names the configuration's `key` for a path that is no folder.
    """
    if not is_folder(key, source):
        return {"hub": source, "revision": revision}
    folder = Path(source)
    files = sorted(
        path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.suffix in _READ
    )
    if not files:
        raise ValueError(f"{key}: the folder {source!r} holds no safetensors or json files")
    with ThreadPoolExecutor() as threads:  # gigabytes, once per process
        digests = list(threads.map(lambda path: sha256(str(path), key), files))
    lines = [
        f"{path.relative_to(folder).as_posix()} {digest}" for path, digest in zip(files, digests)
    ]
    return {"sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


ADAPTABLE = {
    "StableDiffusionPipeline": "StableDiffusionImg2ImgPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3Img2ImgPipeline",
}
"""Pipelines that can be adapted to images, and those that begin with one: Stable Diffusion 1.x and
2, and 3.
"""


def check_adaptable(source: str) -> None:
    """ValueError for a folder whose pipeline is none of ADAPTABLE; of a hub id loading tells."""
    if is_folder("pipeline", source):
        check_class(class_name(source))


def class_name(folder: str) -> str:
    """The class of a folder's pipeline; ValueError if its index does not say."""
    index = Path(folder) / "model_index.json"
    try:
        return str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"pipeline: {str(index)!r} does not name a pipeline ({type(error).__name__}); "
            "name a folder that DiffusionPipeline.save_pretrained wrote"
        ) from error


def check_class(name: str) -> None:
    """ValueError for a pipeline that is none of ADAPTABLE."""
    if name not in ADAPTABLE:
        raise ValueError(
            f"pipeline: adaptation and variation are for {' and '.join(ADAPTABLE)} (Stable "
            f"Diffusion 1.x, 2 and 3), not for {name}"
        )


def is_folder(key: str, source: str) -> bool:
    """Whether `source` is a folder; if not it may be a hub id, or ValueError says that it is
    neither.
    """
    if Path(source).is_dir():
        return True
    if source.startswith((".", "~", os.sep)) or not _HUB_ID.fullmatch(source):
        raise ValueError(f"{key}: there is no folder {source!r}")
    return False


@contextmanager
def loading(key: str, source: str, wanted: str) -> Iterator[None]:
    """Errors of loading `source` as ValueErrors, one line, that say what to place where.

    wanted: what a folder holds, such as "model_index.json and safetensors weights".
    """
    try:
        yield
    # Libraries differ in what they raise for bad files.
    except (OSError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        if Path(source).is_dir():
            raise ValueError(
                f"{key}: {source!r} could not be loaded ({reason}); it must hold {wanted}"
            ) from error
        raise ValueError(
            f"{key}: {source!r} is no folder here, and could not be had from the hub ({reason}); "
            f"name a folder with {wanted}, or download it into the cache that HF_HOME names"
        ) from error


def local(key: str, source: str, revision: str) -> str:
    """The folder with a transformers model: `source` itself, or the hub's in the cache, downloaded
    if need be.
    """
    if is_folder(key, source):
        return source
    from huggingface_hub import snapshot_download

    return fetched(
        snapshot_download, source, revision=revision, allow_patterns=[f"*{end}" for end in _READ]
    )


def fetched(download: Callable[..., str], source: str, *, revision: str, **options: object) -> str:
    """The folder that download(source, revision=..., **options) returns: the cache's own if the hub
    does not answer.

    Raises OSError with what went wrong at the hub if the cache does not have it either.
    """
    from huggingface_hub import constants, model_info
    from huggingface_hub.errors import HTTPError  # its timeouts are no OSErrors

    try:
        # Asked first because it takes a time limit: what downloads would wait for an answer for
        # ever.
        model_info(source, revision=revision, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        return download(source, revision=revision, **options)
    except (HTTPError, OSError) as error:
        try:
            return download(source, revision=revision, local_files_only=True, **options)
        except OSError:
            raise OSError(f"{type(error).__name__}: {error}") from error
