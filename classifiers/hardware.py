"""What this machine's processor can do. Needs torch alone."""

from __future__ import annotations

from typing import Any

import torch


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 natively; False where this torch cannot tell."""
    capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))
