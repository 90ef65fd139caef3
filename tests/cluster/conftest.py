"""Hosts and a cluster on them, made once for a test file, and gone with it."""

import sys
from pathlib import Path

import pytest

# pytest's importlib mode leaves a test's own folder out.
sys.path.insert(0, str(Path(__file__).parent))

import hosts as test_hosts  # noqa: E402
from launched import Cluster  # noqa: E402


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A folder that every host sees at the same path, as a network share: for the store."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory, shared):
    """Three test hosts and the laptop; skipped with the reason where they cannot be made."""
    if why := test_hosts.missing():
        pytest.skip(why)
    folders = (*test_hosts.environment_folders(), shared)
    with test_hosts.Hosts(3, tmp_path_factory.mktemp("hosts"), shared=folders) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(hosts):
    """A cluster of all hosts, up. Its processes end with the hosts."""
    launched = Cluster(hosts)
    launched.prepare()
    launched.up()
    return launched
