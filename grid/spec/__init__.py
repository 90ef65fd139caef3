"""What a user asks for: the spec's model, its amounts, and the reading of it."""

from equigrid.grid.spec.amounts import Amount, ByClass
from equigrid.grid.spec.loading import PRESETS, load, presets
from equigrid.grid.spec.model import Block, DomainGap, Execution, GridSpec, Validation

__all__ = [
    "PRESETS",
    "Amount",
    "Block",
    "ByClass",
    "DomainGap",
    "Execution",
    "GridSpec",
    "Validation",
    "load",
    "presets",
]
