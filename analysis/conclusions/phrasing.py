"""Results in plain words, shared by the report and the command line."""

from equigrid.analysis.conclusions.equivalence import CurveResult

_MANY = 1000  # times the base set: beyond, the exact number says nothing


def curve_paragraph(curve: CurveResult) -> list[str]:
    """A few sentences on one curve, the result first."""
    key = curve.key
    made_by = f"generator {key.generator or 'none'} (recipe {key.recipe})"
    head = f"{key.dataset}, {key.classifier}, {made_by}: "
    if curve.determined:
        sentences = [head + "the equivalence is determined."]
        sentences += [
            _worth(curve, base.data.n_nominal) for base in curve.bases if base.surface is not None
        ]
        sentences.append(
            f"Fitted: n_syn / n_base = c1^(n_base / {1 / curve.tau:,.0f}) "
            f"(c2^(n_real / n_base) - 1) with c1 = {curve.c1.text(3)} "
            f"and c2 = {curve.c2.text(3)} ({curve.c1.level:.0%} intervals)."
        )
    else:
        sentences = [
            head + "the equivalence is undetermined, because " + "; ".join(curve.reasons) + "."
        ]
    for name, gain in (("real", curve.real_gain), ("synthetic", curve.gain_over_base)):
        if gain is not None:
            sentences.append(
                f"On average over the measured cells, {name} images change accuracy by "
                f"{gain.text(2)} points over the base."
            )
    if curve.gain_over_copies is not None:
        sentences.append(
            "Against as many copies of the base images (equal number of steps), synthetic images "
            f"change accuracy by {curve.gain_over_copies.text(2)} points."
        )
    return sentences


def _worth(curve: CurveResult, n_base: float) -> str:
    """The tuple nearest to doubling the base set, solved on this base size's own surface."""
    tuples = [t for t in (*curve.tuples, *curve.discarded) if t.n_base == n_base]
    if not tuples:
        return f"From {n_base:,.0f} images no amount of real images was compared."
    nearest = min(tuples, key=lambda t: abs(t.real_ratio - 1.0))
    start = f"From {n_base:,.0f} images, {nearest.real_ratio * n_base:,.0f} more real images "
    if not nearest.used:
        return f"{start}have no synthetic equivalent: {nearest.why_not}."
    value, low, high = (
        _count(v, n_base)
        for v in (nearest.syn_ratio.value, nearest.syn_ratio.low, nearest.syn_ratio.high)
    )
    far = (
        f"; beyond what was measured: {', '.join(nearest.extrapolated)}"
        if nearest.extrapolated
        else ""
    )
    return f"{start}are worth about {value} synthetic ones (interval {low} to {high}{far})."


def _count(ratio: float | None, n_base: float) -> str:
    if ratio is None:
        return "any number"
    return f"{ratio * n_base:,.0f}" if ratio < _MANY else f"more than {_MANY:,} times the base"
