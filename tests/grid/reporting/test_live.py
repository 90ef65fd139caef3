"""The page that watches a grid: what it is told of the store, and to whom it is shown."""

import http.client
import json
import re
import signal
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest

from equigrid.grid.cli import entry
from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.recorded import planned
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting.live import Live
from equigrid.grid.reporting.live_server import LiveServer
from equigrid.grid.spec import load
from equigrid.grid.store import lock, results

HOSTILE = (
    "ValueError: </script><script>document.title = 'taken'</script><img src=x onerror=alert(1)>"
)


@pytest.fixture
def half(store, mini):
    """The small grid, of which every second trial has a made-up result, and one failed."""
    spec = load(mini | {"prices": {"default": 2.0}})
    store.put_json("grids/mini/spec.json", spec.model_dump(mode="json"))
    ingest.ingest(store, catalogue.source("digits"))
    the_plan = plan(resolve(spec, store))
    write(store, the_plan, lambda number: number % 2 == 0)
    first = list(the_plan.cells_by_trial())[1]
    results.write_part(store, row(the_plan, first, 1) | {"status": "failed", "error": HOSTILE})
    return store, the_plan


def row(the_plan, trial: str, number: int) -> dict:
    cell = the_plan.cells_by_trial()[trial][0]._asdict()
    known = {key: value for key, value in cell.items() if key in results.SCHEMA.names}
    gain = 5 * np.log(sum(cell[n] for n in ("n_base", "n_real_added", "n_syn", "n_copies")))
    facts = {"attempt": "a", "grid": "mini", "dataset": "digits", "rev": 1, "fingerprint": "f",
             "trial_id": trial, "n_total": 60}  # fmt: skip
    return {**known, **facts, "status": "ok", "top1": 40 + gain + 0.1 * (number % 3)}


def write(store, the_plan, chosen) -> None:
    for number, trial in enumerate(the_plan.cells_by_trial()):
        if chosen(number):
            results.write_part(store, row(the_plan, trial, number))


@contextmanager
def served(store, host="127.0.0.1"):
    live = Live(store, lambda: planned("mini", store))
    server = LiveServer(live, "mini", store.uri, host=host, port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        live.close()
        thread.join()


def get(server, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer, answer.read().decode()


def bearer(server) -> dict:
    return {"Authorization": f"Bearer {server.token}"}


def test_nobody_without_the_token_sees_anything(half, capfd):
    store, _ = half
    with served(store) as server:
        wrong = server.token[:-1] + ("a" if server.token[-1] != "a" else "b")
        for path, headers in (
            ("/", {}), ("/state", {}), ("/answer?have=", {}), (f"/?token={wrong}", {}),
            ("/state", {"Cookie": f"{server.cookie}={wrong}"}), ("/", {"Cookie": "a=b; ;;="}),
            ("/state", {"Authorization": f"Bearer {wrong}"}), ("/", {"Authorization": "Bearer é"}),
            ("/?token=%ff%00", {}),
        ):  # fmt: skip
            answer, text = get(server, path, **headers)
            assert (answer.status, "whole address" in text) == (403, True), path
            assert "mini" not in text
        # Another site's name that leads here is not answered, token or not.
        answer, text = get(server, "/state", Host="evil.example", **bearer(server))
        assert answer.status == 403
        assert "cells" not in text
        token = server.token
    assert token not in "".join(capfd.readouterr())


def test_the_token_becomes_a_cookie_and_leaves_the_address(half):
    store, _ = half
    with served(store) as server:
        where = urlsplit(server.address)
        answer, text = get(server, f"{where.path}?{where.query}")
        assert (answer.status, answer.headers["Location"], text) == (303, "/", "")
        cookie = answer.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        answer, text = get(server, "/", Cookie=cookie.split(";")[0])
        assert answer.status == 200
        assert server.token not in text
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert get(server, "/../etc/passwd", **bearer(server))[0].status == 404


def test_the_state_is_the_stores(half):
    store, the_plan = half
    with served(store) as server:
        state = json.loads(get(server, "/state", **bearer(server))[1])
    cells = {
        title: one for line in state["cells"] for title, one in zip(line["titles"], line["states"])
    }
    assert len(cells) == len(the_plan.cells) == 20
    trials = list(the_plan.cells_by_trial().items())
    for number, (_, own) in enumerate(trials):
        wanted = "done" if number % 2 == 0 else "failed" if number == 1 else "waiting"
        assert {cells[str(cell)] for cell in own} == {wanted}, number
    assert state["share"] == pytest.approx(sum(len(own) for _, own in trials[::2]) / 20)
    assert [failure["traceback"] for failure in state["failures"]] == [HOSTILE]
    assert "No driver runs" in state["driver"]
    assert "USD" in state["cost"]
    names = [line["name"] for line in state["cells"]]
    assert "base 60: alone" in names
    assert "base 120: + edm" in names


def test_what_a_driver_says_is_shown_while_it_lives(half):
    store, the_plan = half
    waiting = [job.id for job in the_plan.of_kind("trial")][3]
    at_work = [
        {"id": waiting, "kind": "trial", "stage": "trial:digits", "seconds": 9.0, "share": 0.4}
    ]
    held = lock.acquire(store, "mini")
    with held:
        held.progress = {"kinds": {}, "device_s": 7200.0, "shard_hits": 0, "shard_loads": 0,
                         "left_s": 600.0, "device_s_left": 3600.0, "at_work": at_work}  # fmt: skip
        held.write()
        with served(store) as server:
            state = json.loads(get(server, "/state", **bearer(server))[1])
    assert "about 10 min left" in state["whole"]
    assert "2.0 h of device time (4.00 USD)" in state["cost"]
    assert "60 min of device time (2.00 USD)" in state["cost"]
    assert [stage["now"] for stage in state["stages"] if stage["name"] == "trials"] == [
        "1 running (40%)"
    ]
    assert sum(line["states"].count("running") for line in state["cells"]) == len(
        the_plan.cells_by_trial()[waiting]
    )


@pytest.mark.long
def test_the_answer_is_fitted_anew_as_rows_land(half):
    store, the_plan = half

    def answer(server, have=""):
        end = time.monotonic() + 120
        while time.monotonic() < end:
            reply, text = get(server, f"/answer?have={have}", **bearer(server))
            if reply.status == 200:
                return json.loads(text)
            assert reply.status == 204
            time.sleep(0.1)
        raise AssertionError("nothing was fitted")

    with served(store) as server:
        first = answer(server)
        assert "<script" not in first["html"]
        assert get(server, f"/answer?have={first['version']}", **bearer(server))[0].status == 204
        write(store, the_plan, lambda number: number % 2 == 1)
        second = answer(server, first["version"])
    assert second["version"] != first["version"]
    assert "to 20 results" in second["when"]
    assert [base["n_base"] for base in second["table"]["curves"][0]["bases"]] == [60.0, 120.0]


@pytest.mark.long
def test_a_store_that_is_gone_is_said_and_a_wrong_name_ends_at_once(half, capsys):
    store, _ = half
    assert entry.outcome(["watch", "minni", "--store", store.uri]) == 2
    with served(store) as server:
        taken = entry.outcome(
            ["watch", "mini", "--store", store.uri, "--port", str(server.server_address[1])]
        )
        assert taken == 4
        assert "in use" in capsys.readouterr().err
        store.delete("grids/mini/spec.json")
        reply, text = get(server, "/state", **bearer(server))
        assert reply.status == 503
        assert "mini" in json.loads(text)["error"]


@pytest.mark.long
@pytest.mark.parametrize(("width", "dark"), [(400, False), (1600, True)])
def test_in_a_browser_failures_are_text_and_the_page_is_accessible(half, browser, width, dark):
    store, _ = half
    with served(store) as server:
        browser.open_only(server.address, width, dark=dark)
        browser.wait("document.querySelectorAll('#failures details').length === 1")
        assert browser.run("return document.querySelector('#failures pre').textContent") == HOSTILE
        browser.wait("document.getElementById('fitted').textContent !== ''", 120)
        browser.wait_drawn()
        assert browser.run("return document.title") == "mini"
        assert browser.run("return document.querySelectorAll('img[src=x]').length") == 0
        assert browser.run("return document.querySelectorAll('.squares i.failed').length") >= 1
        inside, outside = browser.run(
            "return [document.documentElement.scrollWidth, window.innerWidth]"
        )
        assert inside <= outside
        # What a reader has opened and typed stays, though the page is shown anew.
        browser.run("document.querySelector('#failures details').open = true")
        time.sleep(5)
        assert browser.run("return document.querySelector('#failures details').open")
        assert browser.violations() == []
        assert browser.errors() == []
        store.delete("grids/mini/spec.json")
        browser.wait("!document.getElementById('trouble').hidden")
        assert "Trying again" in browser.run(
            "return document.getElementById('trouble').textContent"
        )


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_command_prints_an_address_that_opens(half, start, options):
    store, _ = half
    command = start("watch", "mini", "--store", store.uri, *options)
    ends = '"\n}' if options else "\n"  # written whole
    command.wait_until(
        lambda: "?token=" in (said := command.out_path.read_text()) and ends in said.split("?")[1]
    )
    (address,) = re.findall(r"http://[^\s\"]+", command.out_path.read_text())
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    connection.request("GET", f"/?{where.query}")
    assert connection.getresponse().status == 303
    command.process.send_signal(signal.SIGINT)
    assert command.finish(30) == 0
    assert where.query.split("=")[1] not in command.err_path.read_text()
