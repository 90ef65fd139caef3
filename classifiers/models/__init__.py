"""Classifiers by name. Importing this package imports no torch; building one does."""

from equigrid.classifiers.models.building import (
    ALIASES,
    MODELS,
    Head,
    build,
    canonical,
    check,
    last_layer,
)

__all__ = ["ALIASES", "MODELS", "Head", "build", "canonical", "check", "last_layer"]
