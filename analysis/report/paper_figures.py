"""The paper's figures of results, drawn from its published tables: Figs. 2, 5 to 8, 10, 13, 14."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from equigrid.analysis.conclusions.equivalence import CurveResult, analyse
from equigrid.analysis.conclusions.ratio import improvement_ratios
from equigrid.analysis.figures.accuracy import FORMATS, accuracy_curves, save
from equigrid.analysis.figures.curves import contour_legend, contour_panel, improvement_ratio_figure
from equigrid.analysis.figures.style import STYLE, empty_figure, legend_below, panels
from equigrid.analysis.figures.zero_shot import published_zero_shot_figure
from equigrid.analysis.paper import published

ZERO_SHOT = "paper/zero-shot"
# Dataset, classifier, generator and base size of the panels of Fig. 2.
CONTOURS = (
    ("bloodmnist", "resnet110", "edm", 6_000),
    ("cifar10", "resnet110", "edm", 5_000),
    ("imagenet100", "resnet50", "dit", 26_000),
)
# Dataset, classifier and recipe of the figures that are curves of accuracy.
CURVES = {
    5: ("bloodmnist", "resnet110", "paper/bloodmnist"),
    6: ("cifar10", "resnet110", "paper/cifar10"),
    8: ("imagenet100", "resnet50", "paper/imagenet"),
    10: ("imagenet100", "vit_b32", "paper/imagenet"),
    13: ("imagenet10", "resnet50", "paper/imagenet"),
}


def write(
    folder: Path, *, as_printed: bool = False, formats: tuple[str, ...] = FORMATS
) -> list[Path]:
    """Draw all into a folder, as `paper-fig05.png` and so on; their paths."""
    return [
        path
        for number, figure in figures(as_printed=as_printed)
        for path in save(figure, folder, f"paper-fig{number:02d}", formats)
    ]


def figures(*, as_printed: bool = False) -> Iterator[tuple[int, Figure]]:
    """Each figure with its number in the paper. No spread is published, so there are no error bars
    but those of Fig. 7, which rest on the scatter about the fitted surfaces.
    """
    table = published.results(as_printed=as_printed)
    supervised = table[table["recipe"] != ZERO_SHOT]
    fits = supervised[supervised["dataset"].isin(published.DATASET_SIZES)]
    analysis = analyse(fits, settings=published.settings(details=False))
    yield 2, _contours(analysis.curves)
    for number in (5, 6):
        yield number, accuracy_curves(supervised, CURVES[number])
    ratios = [one for one in improvement_ratios(analysis) if one.dataset == "cifar10"]
    yield 7, improvement_ratio_figure(ratios)
    for number in (8, 10, 13):
        yield number, accuracy_curves(supervised, CURVES[number])
    yield 14, published_zero_shot_figure(_zero_shot_rows())


def _contours(curves: tuple[CurveResult, ...]) -> Figure:
    """Fig. 2: one base size of each dataset, closed set."""
    found = []
    for dataset, classifier, generator, n_base in CONTOURS:
        for curve in curves:
            key = curve.key
            if (key.dataset, key.classifier, key.generator) == (dataset, classifier, generator):
                found += [
                    (key.dataset, base.data, base.surface)
                    for base in curve.bases
                    if base.data.n_nominal == n_base and base.surface is not None
                ]
    if not found:
        return empty_figure("No accuracy surface could be fitted.")
    with mpl.rc_context(STYLE):
        figure, grid = panels(len(found))
        for axes, (dataset, data, surface) in zip(grid, found):
            contour_panel(axes, data, surface)
            axes.set_title(f"{dataset}, base {data.n_nominal:,.0f}")
            axes.set_xlabel("added real / base images")
        figure.supylabel("added synthetic / base", fontsize=9)
        figure.suptitle("Equal top-1 accuracy (%), closed set, by Eq. 11", fontsize=10.5)
        legend_below(figure, *contour_legend())
    return figure


def _zero_shot_rows() -> list[dict]:
    """Table 21 as rows of `zero_shot_means`; ratios to the printed numbers of real images."""
    printed = published.read_table("accuracy")
    rows = printed[printed["recipe"] == ZERO_SHOT].to_dict("records")
    return [
        {
            "dataset": row["dataset"],
            "classifier": row["classifier"],
            "generator": row["generator"] if row["n_syn"] else None,
            "setting": row["setting"] if row["n_syn"] else None,
            "n_base": row["n_base"],
            "n_nominal": row["n_base"],
            "n_syn": row["n_syn"],
            "trial_id": f"{row['dataset']}-{row['n_syn']}",
            "among_unseen": row["top1"],
        }
        for row in rows
    ]
