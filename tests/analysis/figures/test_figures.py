"""Figures: what is drawn is what is in the table, in every format, and texts do not overlap."""

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.text import Text

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.ratio import improvement_ratios
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.figures import accuracy, curves, interactive, style
from equigrid.analysis.figures.domain import domain_accuracy_figure, tsne_figure
from equigrid.analysis.paper import published as paper
from equigrid.analysis.report import paper_figures
from equigrid.analysis.report.figures import sheet_figures

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
    """Pairs of visible texts (titles, labels, ticks, legends) whose boxes overlap by more than a
    pixel.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            outside = [
                t for t in axis.get_major_ticks() if not low - 1e-9 <= t.get_loc() <= high + 1e-9
            ]
            hidden |= {label for tick in outside for label in (tick.label1, tick.label2)}
    texts = [
        t
        for t in figure.findobj(Text)
        if t.get_text().strip() and t.get_visible() and t not in hidden
    ]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts]
    found = []
    for i, (a, p) in enumerate(boxes):
        for b, q in boxes[i + 1 :]:
            wide, high = min(p.x1, q.x1) - max(p.x0, q.x0), min(p.y1, q.y1) - max(p.y0, q.y0)
            if wide > 1.5 and high > 1.5:
                found.append((a, b))
    return found


@pytest.mark.long
def test_accuracy_curves_draw_the_papers_figure_6(published):
    figure = accuracy.accuracy_curves(published[0], CIFAR)
    assert panel_titles(figure) == [
        "base 500 images",
        "base 5,000 images",
        "base 25,000 images",
        "base 50,000 images",
    ]
    first = figure.axes[0]
    drawn = {line.get_label(): list(zip(*line.get_data())) for line in first.lines}
    assert drawn["real"] == [(0, 33.17), (1, 40.83), (2, 48.81), (3, 54.30)]
    assert drawn["synthetic: edm"][-1] == (5, 44.58)
    assert drawn["synthetic: cifake"][1] == (1, 40.53)


def test_accuracy_curves_show_intervals_and_the_control(planted):
    figure = accuracy.accuracy_curves(planted[0])
    labels = {container.get_label() for container in figure.axes[0].containers}
    assert labels == {"real", "synthetic: planted", "copies of the base (control)"}
    segments = figure.axes[0].containers[0][2][0].get_segments()
    assert max(np.ptp(segment[:, 1]) for segment in segments) > 0.1


def test_a_legend_of_many_series_stays_within_a_figure_of_one_panel(planted):
    table = planted[0]
    table = table[table["n_base"] == table["n_base"].min()]
    synthetic = table[table["arm"] == "syn"]
    others = [
        synthetic.assign(generator=name)
        for name in ("stable-diffusion-3", "a generator of a rather long name")
    ]
    figure = accuracy.accuracy_curves(pd.concat([table, *others]))
    assert len(panel_titles(figure)) == 1
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 5
    box = legend.get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_contours_have_levels_and_every_measured_cell(published):
    curve = next(
        c for c in published[1].curves if c.key.generator == "edm" and c.key.dataset == "cifar10"
    )
    figure = accuracy.equivalence_contours(curve)
    titles = panel_titles(figure)
    assert titles == ["base 500 images", "base 5,000 images", "base 25,000 images"]
    panel = next(axes for axes in figure.axes if axes.get_title() == "base 5,000 images")
    dots = next(c for c in panel.collections if len(c.get_offsets()) == 9 and c.get_zorder() == 5)
    assert [3.0, 0.0] in dots.get_offsets().tolist()
    assert [0.0, 5.0] in dots.get_offsets().tolist()


def test_improvement_ratio_draws_figure_7(published):
    ratios = [r for r in improvement_ratios(published[1]) if r.dataset == "cifar10"]
    figure = accuracy.improvement_ratio_figure(ratios)
    texts = {t.get_text() for t in figure.axes[0].texts}
    assert {"0.55", "1.52", "2.26", "2.80"} <= texts


def drawn_figures(table, analysis):
    curve = analysis.curves[0]
    yield "accuracy", accuracy.accuracy_curves(table)
    yield "contours", accuracy.equivalence_contours(curve)
    yield "equivalence", accuracy.equivalence_curves(curve)
    yield "residuals", accuracy.fit_residuals(curve)


@pytest.mark.long
def test_texts_do_not_overlap(planted, published):
    for name, figure in [
        *drawn_figures(*planted),
        ("paper", accuracy.accuracy_curves(published[0], CIFAR)),
        ("ratio", accuracy.improvement_ratio_figure(improvement_ratios(published[1]))),
        ("quality", accuracy.quality_against_gain(published[1], paper.read_table("quality"))),
    ]:
        assert overlapping_texts(figure) == [], name


def test_every_format_is_written_and_svg_is_reproducible(planted, tmp_path):
    first = accuracy.save(accuracy.accuracy_curves(planted[0]), tmp_path / "a", "accuracy")
    assert [p.suffix for p in first] == [".png", ".svg", ".pdf"]
    assert [p.read_bytes()[:5] for p in first] == [b"\x89PNG\r", b"<?xml", b"%PDF-"]
    (again,) = accuracy.save(
        accuracy.accuracy_curves(planted[0]), tmp_path / "b", "accuracy", ("svg",)
    )
    assert again.read_bytes() == first[1].read_bytes()


def test_a_matplotlibrc_of_the_users_changes_no_figure(planted, tmp_path):
    """text.usetex without a LaTeX ended reports."""
    (plain,) = accuracy.save(
        accuracy.accuracy_curves(planted[0]), tmp_path / "a", "accuracy", ("png",)
    )
    theirs: dict = {
        "text.usetex": True, "font.family": "none", "lines.linewidth": 9, "savefig.bbox": "tight",
        "axes.facecolor": "red", "savefig.format": "svg",
    }  # fmt: skip
    with mpl.rc_context(theirs):
        (drawn,) = accuracy.save(
            accuracy.accuracy_curves(planted[0]), tmp_path / "b", "accuracy", ("png",)
        )
        assert mpl.rcParams["text.usetex"] is True, "theirs again"
    assert drawn.read_bytes() == plain.read_bytes()


def test_nothing_to_draw_is_a_figure_that_says_so(planted):
    table, analysis = planted
    empty = analyse(table[table["arm"] != "syn"], settings=analysis.settings).curves[0]
    for figure in (
        accuracy.accuracy_curves(table.iloc[:0]),
        accuracy.equivalence_contours(empty),
        accuracy.equivalence_curves(empty),
        accuracy.fit_residuals(empty),
        accuracy.improvement_ratio_figure([]),
        accuracy.quality_against_gain(analysis, paper.read_table("quality")),
        accuracy.class_gain_figure(pd.DataFrame()),
    ):
        texts = [t.get_text() for axes in figure.axes for t in axes.texts]
        assert any("No " in t for t in texts)


def points_of(axes) -> list[tuple[float, float]]:
    """The single points of a panel, with and without error bars (whose caps are no such points)."""
    lines = [line for line in axes.lines if str(line.get_marker()) in "osD^vPX"]
    return [(float(x[0]), round(float(y[0]), 2)) for x, y in (one.get_data() for one in lines)]


def test_quality_points_are_the_tables(published):
    figure = accuracy.quality_against_gain(published[1], paper.read_table("quality"))
    panel = next(a for a in figure.axes if a.get_title().startswith("cifar10"))
    gains = sorted(gain for _, gain in points_of(panel))
    assert gains == sorted([4.06, 7.31, 2.46, 1.93, 7.36, 4.81, 1.09, 0.69])


def test_quality_of_several_pools_is_averaged_and_holds_at_its_base(published):
    rows = [
        ("cifar10", "edm", 500, 30.0),
        ("cifar10", "edm", 500, 40.0),
        ("cifar10", "edm", 5_000, 10.0),
    ]
    quality = pd.DataFrame(rows, columns=["dataset", "generator", "n_base", "fid"])
    panel = accuracy.quality_against_gain(published[1], quality).axes[0]
    drawn = sorted(points_of(panel))
    assert drawn == [(pytest.approx(10.0, rel=0.02), 7.31), (pytest.approx(35.0, rel=0.02), 4.06)]


def test_sample_sheet_places_sets_beside_each_other_and_each_class_in_its_row():
    images = np.zeros((6, 4, 4, 3), dtype=np.uint8)
    images[:, :, :, 0] = np.arange(6)[:, None, None] * 40
    labels = np.array([0, 1, 0, 1, 1, 0])
    grey = images[:3, :, :, :1]
    panels = [("real", images, labels), ("edm, base 500", grey, np.array([1, 1, 1]))]
    figure = accuracy.sample_sheet(panels, ["cat", "dog"], per_class=2)
    assert panel_titles(figure) == ["real", "edm, base 500"]
    shown, beside = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    assert shown.shape == (10, 10, 3)
    assert (shown[::5, ::5, 0] // 40).tolist() == [[0, 2], [1, 3]]
    assert (shown[4] == 255).all() and (shown[:, 9] == 255).all()  # images do not touch
    assert (beside[::5, ::5] // 40).tolist() == [[6, 6], [0, 1]]  # no cat: white
    names = {t.get_text(): t.get_position()[1] for t in figure.axes[0].texts}
    assert names == {"cat": 0.5, "dog": 1.5}
    assert figure.axes[0].images[0].get_extent() == [0, 2, 2, 0]  # the first row is at the top
    assert overlapping_texts(figure) == []
    with pytest.raises(ValueError, match="uint8"):
        accuracy.sample_sheet([("real", images / 255, labels)], ["cat", "dog"])
    with pytest.raises(ValueError, match="labels are"):
        accuracy.sample_sheet([("real", images, labels[:3])], ["cat", "dog"])


def image_set(generator=None, base=None, side=8, setting=None):
    return {
        "generator": generator, "setting": setting, "base": base, "labels": np.repeat(np.arange(2), 3),
        "images": np.full((6, side, side, 3), base or 0, np.uint32).astype(np.uint8),
    }  # fmt: skip


def test_sheets_show_real_images_beside_each_generator_by_rising_base():
    sets = [image_set(), image_set("edm", 5_000, setting="closed"), image_set("edm", 500, setting="closed"),
            image_set("cifake", setting="open")]  # fmt: skip
    found = list(sheet_figures({"classes": ["cat", "dog"], "sets": sets}))
    assert [(name, generator) for name, _, _, generator in found] == [
        ("images-0", "edm"),
        ("images-1", "cifake"),
    ]
    assert panel_titles(found[0][2]) == ["real", "edm, base 500", "edm, base 5,000"]
    assert panel_titles(found[1][2]) == ["real", "cifake"]
    assert "edm (closed set, trained on 500 and on 5,000 of them)" in found[0][1]
    assert "cifake (open set)" in found[1][1]
    ((_, caption, figure, none),) = sheet_figures({"classes": ["cat", "dog"], "sets": sets[:1]})
    assert (
        panel_titles(figure) == ["real"]
        and none is None
        and caption.startswith("Real training images.")
    )
    ((_, _, figure, _),) = sheet_figures({"classes": ["cat", "dog"], "sets": sets[1:2]})
    assert panel_titles(figure) == ["edm, base 5,000"]
    assert list(sheet_figures({})) == []


def domain_row(pool, patch_px, accuracy, low, high):
    return {"pool": pool, "patch_px": patch_px, "accuracy": accuracy, "low": low, "high": high}


def test_domain_figure_draws_every_accuracy_with_its_interval():
    rows = [
        domain_row("edm, base 500", None, 99.2, 98.5, 99.6),
        domain_row("edm, base 500", 8, 91.0, 88.0, 93.5),
    ]
    figure = domain_accuracy_figure(rows)
    (axes,) = figure.axes
    points, _, (bars,) = axes.containers[0]
    names = [t.get_text() for t in axes.get_yticklabels()]
    drawn = dict(
        zip(
            names,
            zip(points.get_xdata(), (segment[:, 0].tolist() for segment in bars.get_segments())),
        )
    )
    assert drawn["edm, base 500, whole images"] == (99.2, pytest.approx([98.5, 99.6]))
    assert drawn["edm, base 500, 8×8 patches"] == (91.0, pytest.approx([88.0, 93.5]))
    assert {t.get_text() for t in axes.texts} == {"99.2", "91.0"}
    assert overlapping_texts(figure) == []
    box = axes.xaxis.label.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width, "the label is cut off"


def test_tsne_shows_both_sides_in_both_networks():
    places = {"domain": [[i, 0] for i in range(6)], "ordinary": [[0, i] for i in range(6)]}
    figure = tsne_figure({"n": 3, "labels": [0, 1, 2, 0, 1, 2], **places})
    for axes, name in zip(figure.axes, places):
        real, synthetic = axes.collections
        assert real.get_offsets().tolist() == places[name][:3]
        assert synthetic.get_offsets().tolist() == places[name][3:]
        assert [t.get_text() for t in axes.get_legend().get_texts()] == ["real", "synthetic"]
    by_side, by_class = figure.axes
    assert len({tuple(c) for c in by_side.collections[0].get_facecolors()}) == 1
    first, second = (part.get_facecolors() for part in by_class.collections)
    assert len({tuple(c) for c in first}) == 3 and (first[:, :3] == second[:, :3]).all()


# Roles --------------------------------------------------------------------------------------------


def test_a_role_has_one_colour_in_every_figure(published):
    """Closed vermilion, open blue, real green, whatever the names' order is; copies grey."""
    table, analysis = published
    for family, closed, open_set in (
        (CIFAR, "edm", "cifake"), (("imagenet100", "resnet50", "paper/imagenet"), "dit", "sd3"),
    ):  # fmt: skip
        figure = accuracy.accuracy_curves(table, family)
        colours = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
        assert colours[f"synthetic: {closed}"] == style.VERMILION
        assert colours[f"synthetic: {open_set}"] == style.BLUE
        assert colours["real"] == style.GREEN
    for curve in analysis.curves:
        if curve.key.generator == "cifake":
            figure = accuracy.equivalence_curves(curve)
            colours = {line.get_color() for axes in figure.axes for line in axes.lines}
            assert style.BLUE in colours
            assert style.VERMILION not in colours


def test_looks_go_by_role_and_name():
    looks = style.generator_looks({"z": "closed", "a": "open", "b": None, "c": "open"})
    assert list(looks) == ["a", "b", "c", "z"]
    assert looks["a"] == style.OPEN_LOOKS[0] == style.generator_look("open")
    assert looks["c"] == style.OPEN_LOOKS[1]
    assert (looks["b"], looks["z"]) == style.CLOSED_LOOKS[:2]
    warm, cool = ({look[0] for look in looks} for looks in (style.CLOSED_LOOKS, style.OPEN_LOOKS))
    others = {style.REAL_LOOK[0], style.COPIES_LOOK[0], style.MIX_LOOK[0]}
    assert not warm & cool
    assert not (warm | cool) & others


def test_a_series_without_spread_has_no_bars_in_the_legend(published, planted):
    """The paper publishes none; the planted grid has trials."""
    for (table, _), family, bars in (
        (published, CIFAR, 0), (planted, tuple(planted[0].iloc[0][["dataset", "classifier", "recipe"]]), 1),
    ):  # fmt: skip
        figure = accuracy.accuracy_curves(table, family)
        (legend,) = figure.legends
        drawn = legend.findobj(LineCollection)  # the bars of an entry
        assert len(drawn) >= bars
        assert bars or not drawn
        assert len(legend.get_texts()) >= 2


def test_contours_say_where_they_are_model_alone(published):
    """The paper measured no mix: the middle of the panel is marked, the axes are not."""
    _, analysis = published
    base = next(
        base for curve in analysis.curves if curve.key.generator == "edm"
        for base in curve.bases if base.data.n_nominal == 5_000
    )  # fmt: skip
    data = base.data
    real = (data.n_real[data.in_surface] - data.n_base) / data.n_nominal
    syn = data.n_syn[data.in_surface] / data.n_nominal
    x, y = np.meshgrid(np.linspace(0, 3, 31), np.linspace(0, 5, 51))
    near = curves._near_measured(x, y, real, syn)
    assert near[0].all()
    assert near[:, 0].all()
    assert not near[25:, 15:].any()
    with_mix = curves._near_measured(x, y, np.append(real, 1.5), np.append(syn, 2.5))
    assert with_mix[25, 15]
    assert not with_mix[50, 30]


@pytest.mark.long
def test_the_papers_figures_are_drawn_from_its_tables(tmp_path):
    paths = paper_figures.write(tmp_path, formats=("png",))
    assert [path.name for path in paths] == [
        f"paper-fig{n:02d}.png" for n in (2, 5, 6, 7, 8, 10, 13, 14)
    ]
    assert all(path.stat().st_size > 20_000 for path in paths)


@pytest.mark.long
def test_the_papers_figures_show_its_numbers():
    found = dict(paper_figures.figures())
    assert not [name for name, figure in found.items() if overlapping_texts(figure)]
    large = found[6].axes[3]
    (edm,) = [line for line in large.lines if line.get_label() == "synthetic: edm"]
    assert list(edm.get_ydata()) == [93.42, 95.35, 95.72, 96.06, 96.32, 96.42]  # Table 10
    sd3 = next(line for line in found[13].axes[0].lines if "sd3" in line.get_label())
    assert list(sd3.get_ydata()) == [71.87, 77.20, 82.80, 90.80, 94.13]  # Table 20
    zero_shot = next(line for line in found[14].axes[0].lines if line.get_label() == "sd3")
    assert list(zero_shot.get_ydata()) == [45.73, 62.27, 67.47, 68.13, 76.80]  # Table 21
    ratios = [text.get_text() for text in found[7].axes[0].texts]
    assert ratios == ["0.55", "1.52", "2.26", "2.80"]  # Section 4.3.3
    assert panel_titles(found[2]) == [
        "bloodmnist, base 6,000", "cifar10, base 5,000", "imagenet100, base 26,000"
    ]  # fmt: skip


def test_every_look_has_one_on_the_page_too():
    """Markers and lines of the report's own plots; a look that plotly had no symbol for ended a
    report of two adapted generators, or of three closed ones.
    """
    looks = [*style.CLOSED_LOOKS, *style.OPEN_LOOKS, *style.ADAPTED_LOOKS]
    looks += [style.REAL_LOOK, style.COPIES_LOOK, style.MIX_LOOK]
    assert {marker for _, marker, _ in looks} <= set(interactive._SYMBOLS)
    assert {line for _, _, line in looks} - {""} <= set(interactive._DASHES)
    for row in (style.CLOSED_LOOKS, style.OPEN_LOOKS, style.ADAPTED_LOOKS):
        assert len({interactive._SYMBOLS[marker] for _, marker, _ in row}) == len(row)
