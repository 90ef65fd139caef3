"""Text on its way to people and into records: without secrets, and without what steers a terminal.

What comes from files, servers and other people's errors passes here before it is printed or
stored: `equigrid.grid.reporting.console` and `equigrid.grid.cli.streams` print nothing else.
"""

import json
import os
import re
from functools import lru_cache
from urllib.parse import quote, unquote

HIDDEN = "***"
# Of names of options (`?account_key=…`): what is in those of secrets, and what such names are.
_WORDS = re.compile(
    "key|secret|token|passw|passphrase|credential|signature|authorization|bearer|jwt|assertion",
    re.I,
)
_NAMES = {"sas", "sig", "hmac", "auth", "pwd", "pass", "session", "sessionid", "sid", "otp", "cred",
          "creds", "ticket"}  # fmt: skip
_CODE = 12  # characters of a `?code=` that lets somebody in; shorter ones are numbers and words
# No pattern here may look at a character more than a bounded number of times: whole files of
# strangers pass through.
_OPTION = re.compile(r"([?&;#])([\w.%\[\]-]{1,100})=(['\"]?[^\s?&;#'\"<>\\]+)")
_URI = re.compile(r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,40}:/{1,2})([^\s'\"<>]+)", re.I)
# A password with a blank or a quote in it, of which an address cannot consist.
_PARTED = re.compile(
    r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,40}:/{1,2})[^\s/@:'\"<>]{1,200}:[^\s/@'\"<>]{0,200}"
    r"[\s'\"<>]{1,2}[^\s/@'\"<>]{0,200}@(?=[\w\[])", re.I,
)  # fmt: skip
_ENCODED = re.compile(
    r"(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,40}%(?:25){0,3}3A)([^\s&;#'\"<>]+)", re.I
)
# `user:` before a host, but no host before a port; a user alone, of schemes where it is not what
# one must know to find the files (Azure's container), and not a name that everybody has.
_USER = re.compile(r"[^/?#@:]*:(?!\d+(?:[/?#]|$))")
_LONE = re.compile(
    r"(?:s3|gs|gcs|https?|s?ftp|ssh|hdfs):/|(?!(?:abfss?|wasbs?|adl|az|azure|file|hf):)[\w+.-]{2,}://",
    re.I,
)
_ANYBODY = re.compile("(?:anonymous|git)@", re.I)
# Without a scheme: `user:password@host/path`, `user:password@host:port`.
_BARE = re.compile(
    r"(?<![\w.%+~:@-])[\w.%+~-]{1,64}:(?!/)[^\s:/@'\"<>]{1,200}@(?=[a-z0-9][\w.-]{0,200}(?:/|:\d))"
    r"(?!sha256:)", re.I,
)  # fmt: skip
# Outside a URI, in what libraries say of their settings and of requests.
_SETTING = re.compile(
    r"(?<![\w./%-])((?:[\w-]{0,40}[_-])?"
    r"(?:(?:account|access|secret|api|private|security|session|auth)[_-]?(?:key|token)"
    r"|password|passwd|client_?secret|signature)=['\"]?)([^\s;,&'\"<>]+)", re.I,
)  # fmt: skip
_HEADER = re.compile(
    r"\b((?:bearer|authorization: basic) |x-api-key: ?|x-amz-security-token: ?"
    r"|cookie: ?(?=[\w-]{1,100}=))[^\s'\"]{4,}", re.I,
)  # fmt: skip
# In a mapping as JSON or Python writes it.
_ENTRY = re.compile(
    r"(['\"](?:[\w-]{0,40}[_-])?(?:key|token|secret|passw(?:or)?d|passphrase|credentials?)['\"]: ?)"
    r"(\"[^\"\n]{8,2000}\"|'[^'\n]{8,2000}')", re.I,
)  # fmt: skip
# Keys that are known by their looks: Amazon's and what follows, Hugging Face's, GitHub's, Google's,
# OpenAI's, GitLab's, Slack's, and signed tokens (JWT).
_LOOKS = re.compile(
    r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}(?::[\w/+=]{16,200})?|hf_[A-Za-z0-9]{30,200}"
    r"|gh[pousr]_[A-Za-z0-9]{30,200}|github_pat_\w{30,200}|AIza[\w-]{35}"
    r"|sk-[\w-]{32,200}|glpat-[\w-]{20,200}|xox[abprs]-[\w-]{10,200}"
    r"|eyJ[\w-]{10,2000}\.[\w-]{10,4000}\.[\w-]{10,2000})(?!\w)"
)
_LAYERS = 3  # of percent-encoding that are looked through
# In the environment: names whose values are secrets, however they look.
_NAMED = re.compile(
    "SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|(API|ACCESS|ACCOUNT|PRIVATE|STORAGE)_?KEY|_KEY$"
    "|CONNECTION_?STRING|(^|_)PAT$", re.I,
)  # fmt: skip
_PLACES = re.compile(
    r"(PATH|FILE|URI|URL|DIR|MODE|APPLICATION_CREDENTIALS)$", re.I
)  # of a secret, not itself one
_ALWAYS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
# Shorter values would hide letters and words of everything that is said.
_SHORTEST = 8
_SHORTEST_OF_ALWAYS = 4

# Controls but for tab and line feed, and marks that turn the direction of writing.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


# No path, no environment and no file in UTF-8 can hold these: NUL, and surrogates but those that
# stand for a byte of a file's name.
_UNWRITABLE = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")


def unwritable(text: str) -> str | None:
    """The first character of `text` that no path and no file can hold, written out; None if there
    is none.
    """
    found = _UNWRITABLE.search(text)
    return None if found is None else found[0].encode("unicode_escape").decode()


def safe(text: str) -> str:
    """`text` as it may be printed: `redacted` and `printable`."""
    return printable(redacted(text))


def in_a_line(text: str, most: int) -> str:
    """`safe` text on one line, of at most `most` characters and a mark that there were more."""
    # Cut twice: a secret that the first cut parts shows no longer.
    text = safe(" ".join(text[: 10 * most].split()))
    return text if len(text) <= most else f"{text[:most]}…"


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
    return (":/" in uri or "%3A" in uri.upper()) and _without_credentials(uri) != uri


def as_one_word(uri: str) -> str:
    """A URI with `_` for blanks, quotes and brackets in it, which would end it in a longer text."""
    return re.sub(r"[\s'\"<>]", "_", uri)


def _without_credentials(text: str, depth: int = 0) -> str:
    if ":/" in text:  # of one slash: what a path makes of an address
        text = _PARTED.sub(rf"\1{HIDDEN}@", text) if "@" in text else text
        text = _URI.sub(lambda found: f"{found[1]}{_of_uri(found[1], found[2])}", text)
    if "=" in text:
        text = _SETTING.sub(rf"\1{HIDDEN}", text)
        text = _OPTION.sub(
            lambda found: f"{found[1]}{found[2]}={_of_option(found[2], found[3], depth)}", text
        )
    if "%" in text:
        text = _ENCODED.sub(
            lambda found: f"{found[1]}{_of_encoded(found[2], found[0], depth)}", text
        )
    if "@" in text:
        text = _BARE.sub(HIDDEN + "@", text)
    if "':" in text or '":' in text:
        text = _ENTRY.sub(lambda found: f"{found[1]}{found[2][0]}{HIDDEN}{found[2][0]}", text)
    text = _LOOKS.sub(HIDDEN, text)
    return _HEADER.sub(rf"\1{HIDDEN}", text)


def _of_uri(scheme: str, rest: str) -> str:
    """What stands behind a scheme, without who it is for: a password may have slashes in it."""
    options = re.search("[?#]", rest)
    end = options.start() if options else len(rest)
    if _USER.match(rest):
        at = rest.rfind("@", 0, end)
        at = rest.rfind("@") if at < 0 else at
    else:
        lone = _LONE.match(scheme) and not _ANYBODY.match(rest)
        at = rest.find("@", 0, end) if lone else -1
        at = -1 if "/" in rest[:at] or not at else at
    return rest if at < 0 else f"{HIDDEN}{rest[at:]}"


def _of_option(name: str, value: str, depth: int) -> str:
    """The value of an option, which may be an address with credentials in it, encoded or not."""
    plain = _decoded(name)
    if _WORDS.search(plain) or plain.lower() in _NAMES:
        return HIDDEN
    if plain.lower() == "code" and len(value) >= _CODE:
        return HIDDEN
    if "://" in value:  # seen to as a URI of its own, but for its user where it is inside another
        scheme, rest = value.split("://", 1)
        return f"{scheme}://{_of_uri(f'{scheme}://', rest)}"
    if ":" in value.partition("@")[0] and "@" in value:
        return f"{HIDDEN}{value[value.rfind('@') :]}"
    return _of_encoded(value, value, depth)


def _of_encoded(value: str, whole: str, depth: int) -> str:
    """`value`, hidden where the decoded `whole` that it is part of has credentials in it."""
    plain = _decoded(whole) if depth < _LAYERS else whole
    dirty = plain != whole and _without_credentials(plain, depth + 1) != plain
    host = re.search("%(?:25){0,3}40(?!.*%(?:25){0,3}40)", value[-300:]) if dirty else None
    return value if not dirty else f"{HIDDEN}{value[-300:][host.start() :]}" if host else HIDDEN


def _decoded(text: str) -> str:
    """Without percent-encoding, of some layers; more of them are nothing that anybody writes."""
    for _ in range(_LAYERS):
        if "%" not in text:
            break
        text = unquote(text)
    return text


def _secrets() -> list[str]:
    always = (os.environ.get(name, "") for name in _ALWAYS)
    found = [value for value in always if len(value) >= _SHORTEST_OF_ALWAYS]
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMED.search(name) and not _PLACES.search(name):
            found.append(value)
    return sorted({form for value in found for form in _forms(value)}, key=len, reverse=True)


@lru_cache(maxsize=100)
def _forms(value: str) -> tuple[str, ...]:
    """A secret as it stands in addresses, in JSON, in what Python says of it, and, of one that has
    several lines or blanks, in a line and line by line.
    """
    written = (json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value))
    lines = [line for line in value.splitlines() if len(line.strip()) >= _SHORTEST]
    return (value, quote(value, safe=""), quote(value), *(text[1:-1] for text in written),
            " ".join(value.split()), *lines)  # fmt: skip
