"""`equigrid watch` in a real browser, while a real grid runs, is killed and resumed."""

import json
import time

import pytest

from equigrid.grid.planning.recorded import planned
from equigrid.grid.store import Store, results

pytestmark = pytest.mark.slow
WAIT_S = 240.0


def squares(browser, state: str) -> int:
    return browser.run(f"return document.querySelectorAll('.squares i.{state}').length")


def test_a_grid_fills_up_is_killed_goes_on_and_is_answered(
    browser, start, mini, write_spec, tmp_path
):
    mini["subset_seeds"] = [0, 1]
    mini["generators"]["edm"]["training"] = {"total_nimg": 3_000}
    spec, store = write_spec(mini), tmp_path / "store"
    options = ["--store", store, "--out", tmp_path / "out", "--no-dashboard"]
    first = start("run", spec, *options)
    first.wait_until(lambda: (store / "grids" / "mini" / "spec.json").exists())
    watch = start("watch", "mini", "--store", store, "--json")
    watch.wait_until(lambda: watch.out_path.read_text().rstrip().endswith("}"))
    url = json.loads(watch.out_path.read_text())["url"]
    assert url.startswith("http://127.0.0.1:")

    browser.open_only(url, 1000)
    browser.wait("document.documentElement.dataset.turned === 'yes'", WAIT_S)
    assert "token" not in browser.run("return location.href")
    browser.wait("document.querySelectorAll('.squares i').length === 40", WAIT_S)
    browser.wait("document.getElementById('driver').textContent.startsWith('Running')", WAIT_S)
    browser.wait("document.querySelectorAll('.squares i.done').length >= 4", WAIT_S)
    assert squares(browser, "done") < 40, "the grid is larger than what was to be seen of it"
    first.kill()
    began = time.monotonic()
    seen = squares(browser, "done")
    second = start("run", spec, *options)
    browser.wait(f"document.querySelectorAll('.squares i.done').length > {seen}", WAIT_S)
    assert second.finish(WAIT_S) == 0
    browser.wait("document.querySelectorAll('.squares i.done').length === 40", WAIT_S)
    browser.wait("document.getElementById('driver').textContent.startsWith('All cells')", WAIT_S)
    assert time.monotonic() - began < 2 * WAIT_S
    rows = results.read(Store(store), ["status"])
    browser.wait("document.getElementById('fitted').textContent.includes('to 40 results')", WAIT_S)
    assert rows.num_rows == len(planned("mini", Store(store)).cells_by_trial())
    browser.wait("document.querySelectorAll('#answer .panel svg').length >= 4", WAIT_S)
    verdicts = browser.run(
        "return [...document.querySelectorAll('#answer .verdict')].map(v => v.textContent)"
    )
    assert len(verdicts) == 2 and all("base of" in text for text in verdicts)
    browser.run(
        "const f = document.getElementById('question').elements.n_real; f.value = 90;"
        "f.dispatchEvent(new Event('input', {bubbles: true}));"
    )
    assert "90 more real images" in browser.run(
        "return document.getElementById('answers').textContent"
    ) or ("base of" in browser.run("return document.getElementById('answers').textContent"))
    assert browser.violations() == []
    inside, outside = browser.run(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert inside <= outside
    assert browser.errors() == []
    assert url.split("token=")[1] not in watch.err_path.read_text()
