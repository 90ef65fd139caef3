"""What is written for people takes the place of what was there only once it is whole."""

import os

import pytest

from equigrid.grid.reporting.out_folder import replacing


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
