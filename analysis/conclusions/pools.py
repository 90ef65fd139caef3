"""What the quality of the synthetic images says against any answer from them."""

import math

FAR = 1.5  # times the distance of real images to each other


def pool_warnings(quality: list[dict]) -> list[str]:
    """A sentence for each generator that makes what looks like noise: its images lie far further
    from the nearest real one than real ones from each other.

    quality: mappings with `pool` (its name), `neighbour_distance` and `neighbour_distance_real`
    (median distance to the nearest image of the base, grey levels; None where none was looked for),
    and perhaps `generator`: of its pools the first is named, and the others counted.
    """
    found: dict[str, list[str]] = {}
    for row in quality:
        own, real = (_number(row.get(name)) for name in ("neighbour_distance",
                                                          "neighbour_distance_real"))  # fmt: skip
        if own is not None and real is not None and own > FAR * max(real, 1e-9):
            found.setdefault(row.get("generator") or row["pool"], []).append(
                f"the images of {row['pool']} may be noise: they lie {own:.0f} grey levels from "
                f"the nearest real one, real ones {real:.0f} from each other; look at the samples"
            )
    return [
        first + (f". So may those of {len(rest)} more of its pools" if rest else "")
        for first, *rest in found.values()
    ]


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
