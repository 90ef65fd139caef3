"""Figures: what is drawn is what is in the table, in every format, and texts do not overlap."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from analysis import figures, paper
from analysis.equivalence import analyse
from analysis.planted import LIKE_CIFAR10, Planted
from analysis.ratio import improvement_ratios

CIFAR = ("cifar10", "resnet110", "paper/cifar10")


@pytest.fixture(scope="module")
def published():
    table = paper.results()
    return table, analyse(table, settings=paper.settings(replicates=100, details=False))


@pytest.fixture(scope="module")
def planted():
    table = replace(Planted(LIKE_CIFAR10), copies=(1.0, 3.0)).table(0)
    return table, analyse(table, settings=Planted(LIKE_CIFAR10).settings(replicates=100))


def panel_titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def overlapping_texts(figure):
    """Pairs of visible texts (titles, labels, ticks, legends) whose boxes overlap by more than a pixel."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            outside = [t for t in axis.get_major_ticks() if not low - 1e-9 <= t.get_loc() <= high + 1e-9]
            hidden |= {label for tick in outside for label in (tick.label1, tick.label2)}
    texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible() and t not in hidden]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts]
    found = []
    for i, (a, p) in enumerate(boxes):
        for b, q in boxes[i + 1 :]:
            wide, high = min(p.x1, q.x1) - max(p.x0, q.x0), min(p.y1, q.y1) - max(p.y0, q.y0)
            if wide > 1.5 and high > 1.5:
                found.append((a, b))
    return found


def test_accuracy_curves_draw_the_papers_figure_6(published):
    figure = figures.accuracy_curves(published[0], CIFAR)
    assert panel_titles(figure) == ["base 500 images", "base 5,000 images", "base 25,000 images", "base 50,000 images"]
    first = figure.axes[0]
    drawn = {}
    for container in first.containers:
        line = container[0]
        drawn[container.get_label()] = list(zip(line.get_xdata(), line.get_ydata()))
    assert drawn["real"] == [(0, 33.17), (1, 40.83), (2, 48.81), (3, 54.30)]
    assert drawn["synthetic: edm"][-1] == (5, 44.58)
    assert drawn["synthetic: cifake"][1] == (1, 40.53)


def test_accuracy_curves_show_intervals_and_the_control(planted):
    figure = figures.accuracy_curves(planted[0])
    labels = {container.get_label() for container in figure.axes[0].containers}
    assert labels == {"real", "synthetic: planted", "copies of the base (control)"}
    segments = figure.axes[0].containers[0][2][0].get_segments()
    assert max(np.ptp(segment[:, 1]) for segment in segments) > 0.1


def test_contours_have_levels_and_every_measured_cell(published):
    curve = next(c for c in published[1].curves if c.key.generator == "edm" and c.key.dataset == "cifar10")
    figure = figures.equivalence_contours(curve)
    titles = panel_titles(figure)
    assert titles == ["base 500 images", "base 5,000 images", "base 25,000 images"]
    panel = next(axes for axes in figure.axes if axes.get_title() == "base 5,000 images")
    dots = next(c for c in panel.collections if len(c.get_offsets()) == 9 and c.get_zorder() == 5)
    assert [3.0, 0.0] in dots.get_offsets().tolist()
    assert [0.0, 5.0] in dots.get_offsets().tolist()


def test_improvement_ratio_draws_figure_7(published):
    ratios = [r for r in improvement_ratios(published[1]) if r.dataset == "cifar10"]
    figure = figures.improvement_ratio_figure(ratios)
    texts = {t.get_text() for t in figure.axes[0].texts}
    assert {"0.55", "1.52", "2.26", "2.80"} <= texts


def drawn_figures(table, analysis):
    curve = analysis.curves[0]
    yield "accuracy", figures.accuracy_curves(table)
    yield "contours", figures.equivalence_contours(curve)
    yield "equivalence", figures.equivalence_curves(curve)
    yield "residuals", figures.fit_residuals(curve)


def test_texts_do_not_overlap(planted, published):
    for name, figure in [
        *drawn_figures(*planted),
        ("paper", figures.accuracy_curves(published[0], CIFAR)),
        ("ratio", figures.improvement_ratio_figure(improvement_ratios(published[1]))),
        ("quality", figures.quality_against_gain(published[1], paper.read_table("quality"))),
    ]:
        assert overlapping_texts(figure) == [], name


def test_every_format_is_written_and_svg_is_reproducible(planted, tmp_path):
    first = figures.save(figures.accuracy_curves(planted[0]), tmp_path / "a", "accuracy")
    assert [p.suffix for p in first] == [".png", ".svg", ".pdf"]
    assert [p.read_bytes()[:5] for p in first] == [b"\x89PNG\r", b"<?xml", b"%PDF-"]
    (again,) = figures.save(figures.accuracy_curves(planted[0]), tmp_path / "b", "accuracy", ("svg",))
    assert again.read_bytes() == first[1].read_bytes()


def test_nothing_to_draw_is_a_figure_that_says_so(planted):
    table, analysis = planted
    empty = analyse(table[table["arm"] != "syn"], settings=analysis.settings).curves[0]
    for figure in (
        figures.accuracy_curves(table.iloc[:0]),
        figures.equivalence_contours(empty),
        figures.equivalence_curves(empty),
        figures.fit_residuals(empty),
        figures.improvement_ratio_figure([]),
        figures.quality_against_gain(analysis, paper.read_table("quality")),
        figures.class_gain_figure(pd.DataFrame()),
    ):
        texts = [t.get_text() for axes in figure.axes for t in axes.texts]
        assert any("No " in t for t in texts)


def test_quality_points_are_the_tables(published):
    figure = figures.quality_against_gain(published[1], paper.read_table("quality"))
    panel = next(a for a in figure.axes if a.get_title().startswith("cifar10"))
    gains = sorted(round(float(c[0].get_ydata()[0]), 2) for c in panel.containers)
    assert gains == sorted([4.06, 7.31, 2.46, 1.93, 7.36, 4.81, 1.09, 0.69])


def test_sample_sheet_places_each_class_in_its_row():
    images = np.zeros((6, 4, 4, 3), dtype=np.uint8)
    images[:, :, :, 0] = np.arange(6)[:, None, None] * 40
    labels = np.array([0, 1, 0, 1, 1, 0])
    figure = figures.sample_sheet(images, labels, ["cat", "dog"], title="t", per_class=2)
    shown = [axes.images[0].get_array()[0, 0, 0] // 40 for axes in figure.axes]
    assert shown == [0, 2, 1, 3]
    with pytest.raises(ValueError, match="uint8"):
        figures.sample_sheet(images / 255, labels, ["cat", "dog"], title="t")
    with pytest.raises(ValueError, match="labels are"):
        figures.sample_sheet(images, labels[:3], ["cat", "dog"], title="t")
