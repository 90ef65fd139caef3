"""What is written for people takes the place of what was there only once it is whole."""

import os
import threading
import time
from pathlib import Path

import pytest

from equigrid.grid.authoring.writing import write
from equigrid.grid.errors import UserError
from equigrid.grid.reporting.out_folder import check_outside, out_folder, replacing


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("good")

    def write() -> None:
        with replacing(path) as aside:
            aside.write_text("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write()
    assert path.read_text() == "good"
    assert os.listdir(tmp_path) == ["table.csv"]
    with replacing(path) as aside:
        aside.write_text("better")
    assert path.read_text() == "better"


def test_links_stay_and_what_is_no_file_is_written_to(tmp_path):
    (tmp_path / "link.csv").symlink_to(tmp_path / "table.csv")
    with replacing(tmp_path / "link.csv") as aside:
        aside.write_text("x")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text() == "x"
    with replacing(type(tmp_path)("/dev/null")) as place:
        place.write_text("x")
    assert not os.path.isfile("/dev/null")


def test_a_file_keeps_its_mode_and_one_that_may_not_be_written_stays(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("good")
    path.chmod(0o600)
    with replacing(path) as aside:
        aside.write_text("better")
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write all
    with pytest.raises(PermissionError, match=r"table\.csv"), replacing(path):
        pass
    assert path.read_text() == "better"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_a_pipe_is_written_to_while_somebody_reads_and_else_refused_at_once(tmp_path):
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    with pytest.raises(OSError, match="nobody reads from this pipe"), replacing(path):
        pass
    found = []
    reader = threading.Thread(target=lambda: found.append(path.read_text()), daemon=True)
    reader.start()
    for _ in range(3000):  # until it has opened it
        try:
            with replacing(path) as place:
                place.write_text("rows")
            break
        except OSError:
            time.sleep(0.01)
    reader.join(10)
    assert found == ["rows"]


def test_links_in_a_circle_are_an_error_of_the_system(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"), replacing(tmp_path / "a"):
        pass


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_report_that_is_no_file_is_told_before_the_work(tmp_path, make):
    make(tmp_path / "report.html")
    with pytest.raises(UserError, match=r"^--out: .* cannot be written: report.html there is no f"):
        out_folder(tmp_path, "grid", option="--out")


def test_nothing_is_written_into_a_store(store, tmp_path):
    """`table --csv STORE/store.json` ended it."""
    root = Path(store.uri)
    (tmp_path / "link").symlink_to(root)
    for place in (
        root,
        root / "results",
        tmp_path / "link" / "x",
        root / "x" / ".." / "store.json",
    ):
        with pytest.raises(UserError, match=r"^--out: .* lies in the store; name a place outside"):
            check_outside(store, place, "--out")
    with pytest.raises(UserError, match="^out: .* lies in the store"):
        out_folder(root / "report", "grid", store=store)
    assert not (root / "report").exists()
    for place in (tmp_path / "store-2", tmp_path, root / ".." / "x", tmp_path / "storeroom"):
        check_outside(store, place, "--out")


@pytest.mark.parametrize("place", ["s3://bucket/x", "hf://a/b", "https://h/x", "file:///tmp/x"])
def test_no_folder_is_made_of_an_address(tmp_path, monkeypatch, place):
    """`report --out s3://bucket/x` said that it had written there, to a folder `s3:` here."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--out: .* is an address; name a place on this machine"):
        out_folder(place, "grid", option="--out")
    with pytest.raises(UserError, match="--csv: .* is an address"):
        check_outside("memory://", Path(place), "--csv")
    with pytest.raises(UserError, match="is an address"):
        write(Path(f"{place}.yaml"), "", force=True, where="--to", right="write --force")
    assert not os.listdir(tmp_path)
    assert out_folder("a:b", "grid") == Path("a:b"), "a name with a colon is none"
