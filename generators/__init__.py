"""Generators of synthetic images: configurations here, free of torch; the networks in their folders."""

import difflib
from collections.abc import Callable
from typing import Any

from generators.building import build
from generators.dit.config import DiTConfig
from generators.dit.presets import PRESETS as DIT_PRESETS
from generators.edm.config import EDMConfig
from generators.edm.presets import PRESETS as EDM_PRESETS
from generators.imported.config import ImportedConfig
from generators.stable_diffusion.config import StableDiffusionConfig
from generators.stable_diffusion.presets import PRESETS as STABLE_DIFFUSION_PRESETS

KINDS: dict[str, Callable[[dict], Any]] = {
    "edm": lambda mapping: build(EDMConfig, EDM_PRESETS, mapping),
    "dit": lambda mapping: build(DiTConfig, DIT_PRESETS, mapping),
    "imported": lambda mapping: build(ImportedConfig, {}, mapping),
    "cifake": lambda mapping: build(ImportedConfig, {}, mapping),
    "stable-diffusion": lambda mapping: build(StableDiffusionConfig, STABLE_DIFFUSION_PRESETS, mapping),
}
"""From a spec's `kind` to the function that makes a configuration of a mapping."""


def config(mapping: dict) -> EDMConfig:
    """The configuration that a spec's mapping describes, e.g. {"kind": "edm", "preset": "digits"}.

    `preset` names a starting point; every other key overrides it, part by part.  Raises ValueError, one
    line, for an unknown kind, preset or key, with the nearest right name, and for values out of range.
    """
    kind = mapping.get("kind")
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KINDS)}"
        raise ValueError(f"generator kind {kind!r} is unknown: {hint}")
    return KINDS[kind](mapping)
