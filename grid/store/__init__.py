"""The store: bytes under names, the table of results, and the lock of a grid."""

from equigrid.grid.store.store import CONNECTIONS, Entry, Store

__all__ = ["CONNECTIONS", "Entry", "Store"]
