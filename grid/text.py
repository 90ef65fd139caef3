"""Text on its way to people and into records: without secrets, and without what steers a terminal.

What comes from files, servers and other people's errors passes here before it is printed or
stored: `equigrid.grid.reporting.console` and `equigrid.grid.cli.streams` print nothing else.
"""

import os
import re

HIDDEN = "***"
SECRET_WORDS = r"key|secret|token|passw|credential|signature"
# Options of a URI that are secrets, whatever their values: `?account_key=…`, `?sas=…`, `&sig=…`.
_OPTION = re.compile(
    rf"([?&;](?:[\w.%-]*(?:{SECRET_WORDS})[\w.%-]*|sas|sig|auth|pwd)=)[^\s&;#'\"<>\\]*", re.I
)
# What stands before a host: `KEY:SECRET@`, a slash in the secret or not; but no port's colon.
_USER = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/?#'\"@:]*:(?!\d+(?:/|$))[^\s?#'\"]*@", re.I)
_LONE_USER = re.compile(r"\b((?:s3|https?|ftp|hdfs)://)[^\s/?#'\"@]+@", re.I)
# The same inside an option: `?endpoint_override=http%3A%2F%2FKEY%3ASECRET%40host`.
_ENCODED_USER = re.compile(r"(=[a-z]+%3A%2F%2F)[^\s&;#'\"<>]*%40", re.I)
_INNER_USER = re.compile(r"(=(?:[a-z]+://)?)[^\s/&;#'\"=@]*:[^\s&;#'\"=]*@", re.I)
# In the environment: names whose values are secrets, however they look.
_NAMED = re.compile(r"(SECRET|TOKEN|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|ACCOUNT_?KEY)", re.I)
_PLACES = re.compile(r"(PATH|FILE|URI|URL|DIR|MODE)$", re.I)  # of a secret, not itself one
_ALWAYS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
# Shorter values would hide letters and words of everything that is said.
_SHORTEST = 8
_SHORTEST_OF_ALWAYS = 4

# Controls but for tab and line feed, and marks that turn the direction of writing.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """`text` as it may be printed: `redacted` and `printable`."""
    return printable(redacted(text))


def printable(text: str) -> str:
    r"""`text` with every control character but tab and line feed written out, such as `\x1b`.

    What is no Unicode in it (names of files may hold such bytes) is written out too.
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def redacted(text: str) -> str:
    """`text` with `***` for what is secret in the URIs in it, and for secrets of the environment.

    Of a URI that is what stands before its host and the options that name keys, secrets, tokens,
    passwords, signatures.
    """
    for value in _secrets():
        text = text.replace(value, HIDDEN)
    return _without_credentials(text)


def holds_credentials(uri: str) -> bool:
    """Whether a URI has in it what `redacted` would hide."""
    return "://" in uri and _without_credentials(uri) != uri


def _without_credentials(text: str) -> str:
    if "://" not in text and "%3A" not in text.upper():
        return text
    text = _OPTION.sub(rf"\1{HIDDEN}", text)
    text = _ENCODED_USER.sub(rf"\1{HIDDEN}%40", text)
    text = _USER.sub(rf"\1{HIDDEN}@", text)
    text = _LONE_USER.sub(rf"\1{HIDDEN}@", text)
    return _INNER_USER.sub(rf"\1{HIDDEN}@", text)


def _secrets() -> list[str]:
    always = (os.environ.get(name, "") for name in _ALWAYS)
    found = [value for value in always if len(value) >= _SHORTEST_OF_ALWAYS]
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMED.search(name) and not _PLACES.search(name):
            found.append(value)
    return sorted(set(found), key=len, reverse=True)
