import pytest
import yaml

from equigrid.grid.errors import UserError
from equigrid.grid.spec import load

SPEC = {"name": "mine", "dataset": "digits", "classifiers": ["digits-cnn"], "blocks": [{"n_base": 60}]}  # fmt: skip
FILE = {"name": "found", "recipe": {"extends": "digits", "steps": 30}, "provenance": {"seed": 1}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With a recipe in `sub/found.yaml`, away from the present folder."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/found.yaml").write_text(yaml.safe_dump(FILE))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder, **keys):
    path = folder / "sub/spec.yaml"
    path.write_text(yaml.safe_dump(SPEC | keys))
    return load(path)


def test_a_recipe_in_a_file_beside_the_spec_is_taken_in_with_its_name(folder):
    assert written(folder, recipe="found.yaml").recipe == {"name": "found", **FILE["recipe"]}
    (folder / "sub/found.yaml").write_text("extends: digits\nsteps: 7\n")  # a bare recipe
    assert written(folder, recipe="found.yaml").recipe == {"extends": "digits", "steps": 7}


def test_blocks_and_the_domain_gap_take_files_too(folder):
    spec = written(
        folder, blocks=[{"n_base": 60, "recipe": "found.yaml"}], domain_gap={"recipe": "found.yaml"}
    )
    assert spec.recipe == "default"
    assert spec.blocks[0].recipe["steps"] == spec.domain_gap.recipe["steps"] == 30


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "spec.yaml: .*gone.yaml: cannot be read: No such file"),
        ("[1, 2]", "holds no mapping"),
        ("recipe: [1]", "names no recipe"),
        ("a: [", "not YAML"),
        ("recipe: other.yaml", "names no recipe"),
    ],
)
def test_a_file_that_is_no_recipe_is_told_in_a_line(folder, content, told):
    if content is not None:
        (folder / "sub/gone.yaml").write_text(content)
    with pytest.raises(UserError, match=told) as told_:
        written(folder, recipe="gone.yaml")
    assert "\n" not in str(told_.value)
