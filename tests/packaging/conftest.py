"""What a user installs, each made once."""

import json
import sys
from pathlib import Path

import pytest

# pytest's importlib mode leaves a test's own folder out.
sys.path.insert(0, str(Path(__file__).parent))

from environments import TINY, Environment, copy_project, make_wheel, plant_users_own  # noqa: E402


@pytest.fixture(scope="session")
def build_environment(tmp_path_factory) -> Environment:
    return Environment(tmp_path_factory.mktemp("build") / "venv")


@pytest.fixture(scope="session")
def wheel(build_environment, tmp_path_factory) -> Path:
    """`pip wheel .` of a copy, as a user would make it."""
    folder = tmp_path_factory.mktemp("wheel")
    return make_wheel(build_environment, copy_project(folder / "clone"), folder / "out")


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Environment:
    """An environment in which the wheel alone is installed."""
    folder = tmp_path_factory.mktemp("installed")
    environment = Environment(folder / "venv")
    environment.pip("install", "--no-deps", "--no-index", wheel, cwd=folder)
    return environment


@pytest.fixture
def users_own(tmp_path) -> Path:
    """A folder with a spec of a tiny grid, and with a user's own modules of our names."""
    folder = plant_users_own(tmp_path / "project")
    (folder / "tiny.yaml").write_text(json.dumps(TINY))  # JSON is YAML
    return folder
