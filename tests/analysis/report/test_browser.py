"""The report in a real browser: drawn, no console errors, readable at every width, light and dark and
in print, reachable by keyboard; and answering questions as `equigrid equiv` does.
"""

import importlib.util
import re
from dataclasses import replace

import pytest

from equigrid.analysis.answer.practical import equiv
from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.report.html import write_report

pytestmark = pytest.mark.long
TAB = "\ue004"
PLANTED = replace(Planted(LIKE_CIFAR10), copies=(1.0, 3.0))


@pytest.fixture(scope="module")
def analysis():
    """Two generators: what is planted, and one that brings nothing at all."""
    import pandas as pd

    table = PLANTED.table(3)
    useless = table[table["arm"] == "syn"].assign(generator="useless")
    useless["trial_id"] = useless["trial_id"] + "-u"
    base = table[table["arm"] == "base"].set_index(["n_nominal", "subset_seed", "seed"])["top1"]
    at = [(r["n_nominal"], r["subset_seed"], r["seed"]) for r in useless.to_dict("records")]
    useless["top1"] = [float(base[key]) + 0.01 * (i % 5) for i, key in enumerate(at)]
    every = pd.concat([table, useless], ignore_index=True)
    return every, analyse(every, settings=PLANTED.settings(replicates=200))


@pytest.fixture(scope="module")
def report(analysis, tmp_path_factory):
    extras = {
        "spec": "name: hostile </script><script>document.body.remove()</script>",
        "failures": [
            {
                "id": "abc",
                "kind": "trial",
                "cell": "base 500",
                "error": "Traceback: <b>boom</b> " + "x" * 300,
            }
        ],
        "versions": {"numpy": "2"},
        "costs": [{"what": "pool", "seconds_per_image": 0.06}],
    }
    return write_report(*analysis, tmp_path_factory.mktemp("report"), extras=extras)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1000, 1600])
def test_report_is_drawn_without_errors_and_fits_its_width(browser, report, width, dark):
    browser.open(report.as_uri(), width, dark=dark)
    seen = browser.run("return document.querySelectorAll('.panel svg.main-svg').length")
    # The answer alone: three base sizes, plotly draws two svg a panel.
    assert 2 * 3 <= seen <= 3 * 3
    browser.unfold()
    assert browser.errors() == []
    panels = browser.run("return document.querySelectorAll('.panel').length")
    assert panels >= 3 * 3
    assert browser.run("return window.innerWidth") == width
    inside, outside = browser.run(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert inside <= outside, "the page scrolls sideways"
    boxes = browser.run(
        "return [...document.querySelectorAll('.panel')].map(p => p.getBoundingClientRect().width)"
    )
    assert min(boxes) > 250
    drawn = browser.run(
        "return [...document.querySelectorAll('.panel .main-svg')].map(p => p.getBoundingClientRect().right)"
    )
    assert max(drawn) <= width, "a figure is cut off"
    assert browser.run("return document.querySelectorAll('img').length") >= 1
    assert browser.run("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    fonts = browser.run(
        "return [...document.querySelectorAll('article p, figcaption, label, td')]"
        ".map(p => parseFloat(getComputedStyle(p).fontSize))"
    )
    assert set(fonts) <= {14, 16}
    plots = browser.run(
        "return [...document.querySelectorAll('.xtick text, .ytick text')]"
        ".map(t => parseFloat(getComputedStyle(t).fontSize))"
    )
    assert set(plots) == {12}
    assert browser.screenshot()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_first_screen_has_verdicts_figure_and_question_and_no_tables(browser, report):
    browser.open(report.as_uri(), 1600)
    top = browser.run("return document.querySelector('.verdict').getBoundingClientRect().bottom")
    assert top < 500
    assert (
        browser.run("return document.querySelector('#answer .panel').getBoundingClientRect().top")
        < 1100
    )
    assert (
        browser.run(
            "return [...document.querySelectorAll('table')].filter(t => t.checkVisibility()).length"
        )
        == 0
    )
    words = browser.run("return document.querySelector('#answer').innerText").lower()
    assert "tuple" not in words
    assert "{" not in words
    for height in browser.run(
        "return [...document.querySelectorAll('.panel')].map(p => p.getBoundingClientRect().height)"
    ):
        assert height > 200


def test_text_of_others_is_shown_not_run(browser, report):
    browser.open(report.as_uri(), 1000)
    shown = browser.run("return document.querySelector('#settings').textContent")
    assert "</script><script>" in shown
    assert browser.run("return document.querySelectorAll('#failures b').length") == 0


def test_keyboard_reaches_navigation_fields_figures_folds_tables(browser, report):
    browser.open(report.as_uri(), 1000)
    browser.run("document.getElementById('amounts').open = true")
    reached = []
    for _ in range(80):
        browser.press(TAB)
        reached.append(browser.run(
            "const e = document.activeElement; return e.className || e.name || e.tagName.toLowerCase() + (e.hash || '')"
        ))  # fmt: skip
    assert {"skip", "scroll", "summary", "n_base", "n_real", "slider", "cost_syn"} <= set(reached)
    assert any("panel" in r for r in reached)
    assert "a#figures" in reached
    assert reached.index("skip") == 0
    browser.run("document.querySelector('#figures summary').focus()")
    browser.press("\ue007")  # enter
    browser.wait("document.getElementById('figures').open")
    browser.wait_drawn()
    assert browser.errors() == []


def test_a_link_opens_the_fold_it_leads_to(browser, report):
    browser.open(report.as_uri() + "#curves", 1000)  # inside the paper's
    assert browser.run("return document.getElementById('paper').open")
    assert browser.run("return document.getElementById('curves').checkVisibility()")


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_fails_the_accessibility_checks(browser, report, dark):
    if importlib.util.find_spec("axe_core_python") is None:
        pytest.skip("axe-core-python, which brings axe-core, is not installed")
    browser.open(report.as_uri(), 1000, dark=dark)
    assert browser.violations() == []
    browser.unfold()
    assert browser.violations() == []


def test_print_shows_everything_folded_and_leaves_out_what_needs_a_screen(browser, report):
    browser.open(report.as_uri(), 1000, media="print", dark=True)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("return [...document.querySelectorAll('details')].every(d => d.open)")
    hidden = "return [...document.querySelectorAll('nav, form')].every(e => getComputedStyle(e).display === 'none')"
    assert browser.run(hidden)
    # On paper, whatever the screen's theme is.
    assert (
        browser.run("return getComputedStyle(document.body).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert (
        browser.run("return getComputedStyle(document.querySelector('.scroll')).overflow")
        == "visible"
    )


# One's own question -------------------------------------------------------------------------------


def asked(browser, **fields) -> dict[str, list[str]]:
    """By curve, the lines of the page's answer to what is typed into its fields."""
    for name in ("n_base", "n_real", "cost_real", "cost_syn", "cost_generator"):
        browser.run(
            f"const f = document.getElementById('question').elements.{name};"
            f"f.value = '{fields.get(name, '')}'; f.dispatchEvent(new Event('input', {{bubbles: true}}));"
        )
    found = browser.run(
        "return [...document.querySelectorAll('#answers article')].map("
        "a => [a.querySelector('h3').textContent, [...a.querySelectorAll('p')].map(p => p.textContent)])"
    )
    return dict(found)


NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[+-]\d+)?")


def numbers(text: str) -> list[float]:
    return [float(one.replace(",", "")) for one in NUMBER.findall(text)]


def assert_same(shown: str, told: str, relative: float) -> None:
    """The same words; numbers that differ by rounding to two digits and interpolation at most."""
    assert NUMBER.sub("#", shown) == NUMBER.sub("#", told)
    for ours, theirs in zip(numbers(shown), numbers(told)):
        assert ours == pytest.approx(theirs, rel=relative, abs=1e-9), (shown, told)


@pytest.mark.parametrize(
    ("n_base", "n_real", "exact"),
    [(500, 500, True), (500, 1000, True), (5000, 5000, True), (5000, 15000, True), (25000, 25000, True),
     (500, 137, False), (5000, 2718, False), (5000, 9001, False), (500, 3, False), (25000, 1234, False),
     (5000, 33333, False)],
)  # fmt: skip
def test_the_page_answers_as_equiv_does(browser, report, analysis, n_base, n_real, exact):
    prices = {"cost_real": 1, "cost_syn": 0.02, "cost_generator": 50}
    if browser.run("return location.href") != report.as_uri():
        browser.open(report.as_uri(), 1000)
    shown = asked(browser, n_base=n_base, n_real=n_real, **prices)
    told = equiv(analysis[1], n_base, n_real, **prices)
    assert len(shown) == len(told.curves) == 2
    for curve in told.curves:
        lines = shown[str(curve.key)]
        verdict = curve.headline[1]
        assert lines[0] == verdict if exact else True
        assert_same(lines[0], verdict, 1e-9 if exact else 0.06)
        assert curve.costs is not None
        costs = [line for line in curve.costs.lines if "taken as 0" not in line]
        for ours, theirs in zip(lines[1:], costs, strict=False):
            assert_same(ours, theirs, 1e-4 if exact else 0.06)
        assert len(lines) - 1 >= len(costs)


def test_the_questions_above_have_answers_of_several_kinds(analysis):
    asked_of = [(500, 500), (5000, 15000), (500, 3), (25000, 25000)]
    found = [curve for n in asked_of for curve in equiv(analysis[1], *n).curves]
    assert len({curve.verdict for curve in found}) >= 2
    assert len({curve.amount.kind for curve in found if curve.amount}) >= 3


def test_a_base_that_was_not_measured_is_not_guessed(browser, report, analysis):
    browser.open(report.as_uri(), 1000)
    shown = asked(browser, n_base=1200, n_real=600)
    for curve in equiv(analysis[1], 1200, 600).curves:
        assert shown[str(curve.key)][0] == curve.headline[0]
        assert len(shown[str(curve.key)]) == 3  # and its nearest neighbours, below and above


def test_fields_say_what_is_wrong_and_the_slider_follows(browser, report):
    browser.open(report.as_uri(), 1000)
    assert asked(browser, n_base="many", n_real=5) == {}
    assert "write a number" in browser.run(
        "return document.querySelector('#answers .warn').textContent"
    )
    asked(browser, n_base=500, n_real=500, cost_real=1)
    assert "both" in browser.run("return document.querySelector('#answers .warn').textContent")
    before = browser.run("return Number(document.getElementById('question').elements.slider.value)")
    browser.run(
        "const s = document.getElementById('question').elements.slider; s.value = 1000;"
        "s.dispatchEvent(new Event('input', {bubbles: true}));"
    )
    field = browser.run("return Number(document.getElementById('question').elements.n_real.value)")
    assert 0 < before < 1000
    assert field == 4 * 3 * 500  # four times the largest measured amount


def test_still_images_stay_without_scripts(report):
    html = report.read_text()
    assert html.count("data:image/png;base64,") >= 4
    assert "http://" not in html.split('<script type="application/json"')[0]
    assert 'src="http' not in html
    assert report.stat().st_size < 6_000_000
