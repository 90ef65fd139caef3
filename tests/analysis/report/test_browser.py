"""The report in a real browser: drawn, no console errors, readable at both widths, reachable by
keyboard.

Speaks WebDriver's protocol to chromedriver directly; skipped where Debian's chromium is not
installed.
"""

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.analysis.conclusions.simulation import LIKE_CIFAR10, Planted
from equigrid.analysis.report.html import write_report

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="chromium is not installed",
    ),
]
TAB = "\ue004"


class Browser:
    """One session of headless chromium."""

    def __init__(self, profile, environment):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = ["chromedriver", f"--port={self.port}"]
        self.driver = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
        )
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     f"--user-data-dir={profile}"]  # fmt: skip
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self.session = ""
        for _ in range(100):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                answer = self.call("POST", "session", {"capabilities": {"alwaysMatch": wanted}})
                self.session = f"session/{answer['sessionId']}/"
                return
            time.sleep(0.1)
        raise RuntimeError("chromedriver did not start")

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}/{path}"
        request = urllib.request.Request(
            url, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return json.load(response)["value"]

    def run(self, script):
        return self.call("POST", self.session + "execute/sync", {"script": script, "args": []})

    def open(self, url, width, height=900):
        # A window is never narrower than 500 pixels; a page's viewport may be.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics}
        self.call("POST", self.session + "goog/cdp/execute", command)
        self.call("POST", self.session + "url", {"url": url})
        for _ in range(300):
            if self.run("return document.documentElement.dataset.drawn") == "yes":
                return
            time.sleep(0.1)
        raise AssertionError(f"the figures were not drawn; console: {self.errors()}")

    def errors(self):
        logs = self.call("POST", self.session + "se/log", {"type": "browser"})
        return [entry["message"] for entry in logs if entry["level"] in ("SEVERE", "WARNING")]

    def press(self, key):
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        body = {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}
        self.call("POST", self.session + "actions", body)

    def screenshot(self):
        return base64.b64decode(self.call("GET", self.session + "screenshot"))

    def close(self):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            self.call("DELETE", self.session.rstrip("/"))
        self.driver.terminate()
        self.driver.wait(timeout=20)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    planted = replace(Planted(LIKE_CIFAR10), copies=(1.0, 3.0))
    table = planted.table(3)
    analysis = analyse(table, settings=planted.settings(replicates=200))
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
    return write_report(table, analysis, tmp_path_factory.mktemp("report"), extras=extras)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    found = Browser(tmp_path_factory.mktemp("profile"), {**os.environ, "HOME": str(home)})
    yield found
    found.close()


@pytest.mark.parametrize("width", [400, 1600])
def test_report_is_drawn_without_errors_and_fits_its_width(browser, report, width):
    browser.open(report.as_uri(), width)
    assert browser.errors() == []
    panels = browser.run("return document.querySelectorAll('.panel svg.main-svg').length")
    # Three base sizes, three interactive figures, plotly draws two svg per panel.
    assert panels >= 2 * 9
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
        "return parseFloat(getComputedStyle(document.querySelector('article p')).fontSize)"
    )
    assert fonts >= 14
    assert browser.screenshot()[:8] == b"\x89PNG\r\n\x1a\n"


def test_text_of_others_is_shown_not_run(browser, report):
    browser.open(report.as_uri(), 1000)
    shown = browser.run("return document.querySelector('#settings').textContent")
    assert "</script><script>" in shown
    assert browser.run("return document.querySelectorAll('#failures b').length") == 0


def test_keyboard_reaches_navigation_figures_tables_and_settings(browser, report):
    browser.open(report.as_uri(), 1000)
    reached = set()
    for _ in range(120):
        browser.press(TAB)
        reached.add(browser.run(
            "const e = document.activeElement; return e.className || e.tagName.toLowerCase() + (e.hash || '')"
        ))  # fmt: skip
        if {"skip", "scroll", "summary"} <= reached and any("panel" in r for r in reached):
            break
    assert {"skip", "scroll", "summary"} <= reached
    assert any("panel" in r for r in reached)
    assert "a#figures" in reached
    assert browser.errors() == []


def test_still_images_stay_without_scripts(report):
    html = report.read_text()
    assert html.count("data:image/png;base64,") >= 4
    assert "http://" not in html.split('<script type="application/json"')[0]
    assert 'src="http' not in html
    assert report.stat().st_size < 6_000_000
