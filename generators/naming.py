"""Names of classes as people write them."""

import unicodedata


def normal(name: str) -> str:
    """A class's name in one Unicode form (NFC): macOS writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", name)
