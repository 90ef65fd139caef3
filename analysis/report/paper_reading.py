"""Appendix A's reading of a curve, complete: c1 and c2, its reasons and notes, and how Eq. 11 does
among the 31 surfaces.
"""

from equigrid.analysis.conclusions.equivalence import BaseFit, CurveResult
from equigrid.analysis.fitting.surface import EQ11, place

CRITERION = "adjusted_r2"
INTRO = (
    "What the paper's Appendix A makes of the same results: a surface per base size (Eq. 11), the "
    "amounts that reach equal accuracy on it (Eq. 12), and c1 and c2 fitted to them (Eq. 13). Its "
    "intervals are too narrow wherever its form does not hold; the answer does not rest on it."
)


def eq11_place(base: BaseFit, epsilon: float) -> int | None:
    """Rank of Eq. 11 among the 31 surfaces by adjusted R², 1 the best."""
    if base.surface is None:
        return None
    return place(base.candidates(epsilon), EQ11, CRITERION)


def paper_paragraph(curve: CurveResult) -> list[str]:
    """A few sentences, the result first."""
    if curve.determined:
        sentences = [
            f"c1 and c2 are determined: n_syn / n_base = c1^(n_base / {1 / curve.tau:,.0f}) "
            f"(c2^(n_real / n_base) - 1) with c1 = {curve.c1.text(3)} and c2 = {curve.c2.text(3)} "
            f"({curve.c1.level:.0%} intervals)."
        ]
    else:
        sentences = [f"c1 and c2 are undetermined: {'; '.join(curve.reasons)}."]
    places = [
        (f"{base.data.n_nominal:,.0f}", eq11_place(base, curve.settings.epsilon))
        for base in curve.bases
    ]
    known = [f"{number} (base {size})" for size, number in places if number is not None]
    if known:
        sentences.append(
            f"Eq. 11's rank among the 31 surfaces, by adjusted R²: {', '.join(known)}; the paper "
            "reports it as the best."
        )
    return sentences
