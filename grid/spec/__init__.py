"""What a user asks for: the spec's model, and the reading of it."""

from equigrid.grid.spec.model import (
    PRESETS,
    Amount,
    Block,
    DomainGap,
    Execution,
    GridSpec,
    Validation,
    Workers,
    load,
    near,
    presets,
)

__all__ = [
    "PRESETS",
    "Amount",
    "Block",
    "DomainGap",
    "Execution",
    "GridSpec",
    "Validation",
    "Workers",
    "load",
    "near",
    "presets",
]
