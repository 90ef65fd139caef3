"""Ours, before any other `tests`: a library brings one too, and spawned processes import by name."""
