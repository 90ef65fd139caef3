"""The logs of Ray's processes, which people read in terminals and in its dashboard."""

import logging

from equigrid.grid.text import safe


class PlainFormatter(logging.Formatter):
    """What others have put into a message or a traceback steers no terminal and tells no secret."""

    def format(self, record: logging.LogRecord) -> str:
        return safe(super().format(record))


def prepare() -> None:
    """Messages of this process go to its standard error, and so into Ray's file of it. Does nothing
    where something else has been made of them already.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(asctime)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
