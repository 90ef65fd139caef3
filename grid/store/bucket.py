"""A store's bytes in an object store: see `equigrid.grid.store.store`."""

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pyarrow import fs

from equigrid.grid.errors import StoreError, UserError
from equigrid.grid.store.trouble import why

CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S = 5.0, 20.0  # of an object store's server
# Of an object store's answers, these are final, and any other may pass (curl's 60: a certificate is
# not trusted).
FINAL_ANSWERS = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|SIGNATURE_DOES_NOT_MATCH|MISSING_AUTHENTICATION"
    r"|UNRECOGNIZED_CLIENT|NO_SUCH_BUCKET|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ARGUMENT"
    r"|[Bb]ucket '[^']*' not found|HTTP status 4(?!08|29)\d\d|curlCode: 60\b"
)
S3_OPTIONS = ("region", "scheme", "endpoint_override")


class Bucket:
    """A bucket, or a prefix in one, of any file system that pyarrow knows."""

    def __init__(self, uri: str):
        self._uri = uri
        parts = urlsplit(uri)
        if parts.scheme in ("s3", "gs"):
            self.root = f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        else:
            with _opening(uri):
                self.root = fs.FileSystem.from_uri(uri)[1].rstrip("/")

    @property
    def _fs(self) -> fs.FileSystem:
        """Made at its first use in a process, with the environment's credentials of that moment."""
        kept = ("AWS_", "GOOGLE_")
        environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith(kept)))
        return _client(self._uri, environment)

    def may_pass(self, error: OSError) -> bool:
        return not FINAL_ANSWERS.search(str(error))

    def open(self, create: bool) -> None:
        with _opening(self._uri):
            kind = self._fs.get_file_info(self.root).type
        if kind == fs.FileType.File:
            raise UserError(f"store {self._uri}: is a file; name a folder")
        bucket = self.root.split("/")[0]
        if (
            kind == fs.FileType.NotFound
            and self._fs.get_file_info(bucket).type == fs.FileType.NotFound
        ):
            raise UserError(f"store {self._uri}: there is no bucket {bucket}; make it first")

    def put(self, path: str, data: bytes) -> None:
        # In a thread, which no signal interrupts: a stream that is left early publishes what it
        # has.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._upload, path, data).result()

    def _upload(self, path: str, data: bytes) -> None:
        with self._fs.open_output_stream(path) as stream:
            stream.write(data)

    def get(self, path: str) -> bytes:
        with self._fs.open_input_file(path) as file:
            data = file.read()
            if len(data) != file.size():
                raise OSError(f"{len(data):,} bytes of {file.size():,} came")
        return data

    def stat(self, path: str) -> tuple[int, float] | None:
        info = self._fs.get_file_info(path)
        return (info.size, _time(info)) if info.type == fs.FileType.File else None

    def names(self, folder: str) -> Iterator[str]:
        return (path for path, _, _ in self.entries(folder))

    def entries(self, folder: str) -> Iterator[tuple[str, int, float]]:
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        for info in self._fs.get_file_info(selector):
            if info.type == fs.FileType.File:
                yield info.path, info.size, _time(info)

    def delete(self, path: str) -> None:
        try:
            self._fs.delete_file(path)
        except FileNotFoundError:
            return
        except OSError:
            # pyarrow then writes a marker for the folder; where only that failed, the object is
            # gone all the same.
            if self.stat(path):
                raise


def _time(info: fs.FileInfo) -> float:
    """When an object was written, seconds since 1970."""
    assert info.mtime is not None, "every object has a time"
    return info.mtime.timestamp()


@contextmanager
def _opening(uri: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, NotImplementedError) as error:  # an unknown scheme or option
        raise UserError(f"store {uri}: cannot be opened: {why(error)}") from error
    except OSError:
        raise
    except Exception as error:  # what libraries behind a scheme raise, such as hf:// offline
        raise StoreError(f"store {uri}: cannot be opened: {why(error)}", permanent=False) from error


@lru_cache(maxsize=8)
def _client(uri: str, environment: tuple) -> fs.FileSystem:
    if uri.startswith("s3://"):
        return _s3(uri)
    if uri.startswith("gs://") and "retry_limit_seconds" not in uri:
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={SILENCE_TIMEOUT_S:.0f}"
    return fs.FileSystem.from_uri(uri)[0]


def _s3(uri: str) -> fs.S3FileSystem:
    parts = urlsplit(uri)
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if unknown := options.keys() - set(S3_OPTIONS):
        raise ValueError(
            f"no such option: {', '.join(sorted(unknown))}; known: {', '.join(S3_OPTIONS)}"
        )
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region: str | None
    if options.setdefault("endpoint_override", endpoint):
        # Checksums in trailers, which Amazon's library sends of late, are refused by other servers.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    else:
        region = None if "region" in options else fs.resolve_s3_region(parts.netloc)
    options.setdefault("region", region)
    return fs.S3FileSystem(
        **options,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=SILENCE_TIMEOUT_S,  # on Linux too: no byte for so long
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),  # the store does the retrying
        # A small object is one request, not three. The stubs of pyarrow do not know it.
        allow_delayed_open=True,  # type: ignore[call-arg]
    )
