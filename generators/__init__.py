"""Generators of synthetic images: configurations here, free of torch; the networks in their folders.

No kind's folder imports another's: what several kinds use lies beside them, in this folder.
"""

import difflib

from generators.building import build
from generators.configuration import GeneratorConfig
from generators.dit.config import DiTConfig
from generators.dit.presets import PRESETS as DIT_PRESETS
from generators.edm.config import EDMConfig
from generators.edm.presets import PRESETS as EDM_PRESETS
from generators.imported.config import ImportedConfig
from generators.stable_diffusion.config import StableDiffusionConfig
from generators.stable_diffusion.presets import PRESETS as STABLE_DIFFUSION_PRESETS

KINDS: dict[str, tuple[type[GeneratorConfig], dict[str, dict]]] = {
    "edm": (EDMConfig, EDM_PRESETS),
    "dit": (DiTConfig, DIT_PRESETS),
    "imported": (ImportedConfig, {}),
    "cifake": (ImportedConfig, {}),
    "stable-diffusion": (StableDiffusionConfig, STABLE_DIFFUSION_PRESETS),
}
"""From a spec's `kind` to its configuration, and mappings from which one may start by name."""


def config(mapping: dict) -> GeneratorConfig:
    """The configuration that a spec's mapping describes, e.g. {"kind": "edm", "preset": "digits"}.

    `preset` names a starting point; every other key overrides it, part by part.  Raises ValueError, one
    line, for an unknown kind, preset or key, with the nearest right name, and for values out of range.
    """
    kind = mapping.get("kind")
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KINDS)}"
        raise ValueError(f"generator kind {kind!r} is unknown: {hint}")
    return build(*KINDS[kind], mapping)
