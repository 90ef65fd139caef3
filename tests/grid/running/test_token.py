"""Ray's token can be read by its user alone."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from equigrid.grid.running import token


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    for name in (token.MODE, token.TOKEN, token.PLACE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_for_its_user_alone(home, caplog):
    before = os.umask(0)
    try:
        token.prepare()
    finally:
        os.umask(before)
    path = home / ".ray" / "auth_token"
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert len(path.read_text()) == 64
    assert os.listdir(path.parent) == ["auth_token"]
    assert not caplog.records


def test_it_never_has_other_rights_and_is_never_empty(home):
    """Watched while it is made, again and again."""
    path, seen, over = home / ".ray" / "auth_token", set(), threading.Event()

    def look():
        while not over.is_set():
            try:
                for each in path.parent.iterdir():
                    found = each.stat()
                    seen.add((stat.S_IMODE(found.st_mode), found.st_size if each == path else 64))
            except OSError:
                continue

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(300):
        token.prepare()
        path.unlink()
    over.set()
    thread.join()
    assert seen <= {(0o600, 64)}


def test_one_that_is_there_stays_and_is_warned_about(home, caplog):
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("mine")
    path.chmod(0o644)
    token.prepare()
    assert path.read_text() == "mine"
    assert "has mode 0644: whoever reads it can run anything as you" in caplog.text
    assert "mine" not in caplog.text
    caplog.clear()
    path.chmod(0o600)
    token.prepare()
    assert not caplog.records


def test_two_at_once_agree(home):
    code = "from equigrid.grid.running import token; token.prepare()"
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    assert len((home / ".ray" / "auth_token").read_text()) == 64
    assert os.listdir(home / ".ray") == ["auth_token"]


def test_without_a_home_there_is_one_for_this_process(home, monkeypatch):
    (home / "file").write_text("")
    monkeypatch.setenv("HOME", str(home / "file"))
    monkeypatch.setenv(token.TOKEN, "")
    token.prepare()
    assert len(os.environ[token.TOKEN]) == 64


@pytest.mark.parametrize(("name", "value"), [(token.MODE, "disabled"), (token.TOKEN, "mine")])
def test_what_the_user_chose_stays(home, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    token.prepare()
    assert not (home / ".ray").exists()
    assert os.environ[name] == value
