"""Generators of the user's own: a Python module outside this repository."""
