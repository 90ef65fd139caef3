"""A store's trouble in one line, without what must not be seen."""

import os
import re


def why(error: BaseException) -> str:
    """The error in one line, without what must not be seen."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
    for code, words in (
        ("NO_SUCH_BUCKET", "there is no such bucket; make it first"),
        (
            "ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH",
            "access denied; look at the credentials",
        ),
        ("SERVICE_UNAVAILABLE|SLOW_DOWN", "the server is overloaded"),
    ):
        if found := re.search(code, text):
            text = f"{words} ({found[0]})"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        if os.environ.get(name):
            text = text.replace(os.environ[name], "***")
    return text if len(text) <= 300 else text[:297] + "…"


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
