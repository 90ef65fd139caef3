"""The folder of a local Ray is its user's alone."""

import os
import stat
from pathlib import Path

import pytest

from equigrid.grid.running import session_folder


@pytest.fixture
def base(tmp_path_factory, monkeypatch):
    """A short one, as /tmp is."""
    path = Path(f"/tmp/eg{os.getpid()}")
    path.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(path))
    yield path
    for found in sorted(path.rglob("*"), reverse=True):
        found.unlink() if found.is_symlink() or found.is_file() else found.rmdir()
    path.rmdir()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_is_made_once_and_kept_closed(base):
    folder = Path(session_folder.prepare())
    assert folder == base / f"equigrid-{os.getuid()}" / "ray"
    assert mode(folder.parent) == 0o700
    folder.parent.chmod(0o777)
    assert session_folder.prepare() == str(folder)
    assert mode(folder.parent) == 0o700


@pytest.mark.parametrize("what", ["file", "link", "another user's"])
def test_a_name_that_somebody_took_is_left_alone(base, what):
    taken = base / f"equigrid-{os.getuid()}"
    if what == "file":
        taken.write_text("")
    elif what == "link":
        (base / "theirs").mkdir(mode=0o777)
        taken.symlink_to(base / "theirs")
    else:
        if os.getuid():
            pytest.skip("only root can give a folder away")
        taken.mkdir(mode=0o777)
        os.chown(taken, 12345, 12345)
    folder = Path(session_folder.prepare())
    assert folder.parent != taken
    assert mode(folder.parent) == 0o700
    assert folder.parent.stat().st_uid == os.getuid()
    assert not (base / "theirs" / "ray").exists()


def test_a_path_too_long_for_sockets_is_rays_own_affair(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    assert session_folder.prepare() is None
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "none"))
    assert session_folder.prepare() is None
