"""What can go wrong for reasons outside the program, each in one line and with an exit code of its
own.
"""


class UserError(ValueError):
    """Bad input: says what, where, and what would be right."""


class StoreError(OSError):
    """The store could not be opened, read or written. permanent: nothing suggests that it will mend
    by itself.
    """

    def __init__(self, message: str, *, permanent: bool = True):
        super().__init__(message)
        self.permanent = permanent


class ClusterError(RuntimeError):
    """No Ray cluster answers or starts, or none of its machines takes work."""
