"""A store's trouble in one line, without what must not be seen."""

import re

from equigrid.grid.text import in_a_line


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
    return in_a_line(text, 300)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
