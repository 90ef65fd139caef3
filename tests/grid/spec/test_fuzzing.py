"""The boundary of specs: whatever a file holds, loading it gives a spec or a UserError of one line,
at once; and so does planning what is one. Hypothesis makes files; those that went wrong once are in
tests/corpus/specs.
"""

import contextlib
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equigrid.grid.errors import UserError
from equigrid.grid.planning import planner
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import GridSpec, load
from equigrid.grid.store import Store

CORPUS = Path(__file__).parents[2] / "corpus" / "specs"
SPEC = {
    "name": "x", "dataset": "digits", "recipe": "digits", "classifiers": ["digits-cnn"],
    "generators": {"edm": {"kind": "edm", "preset": "digits"}},
    "blocks": [{"n_base": [60], "real": [1], "syn": {"edm": [1, "5 images"]}, "copies": [2]}],
    "execution": {"gpus": 0, "cpus": 1}, "seeds": [0, 1],
}  # fmt: skip
# What stands for itself in YAML, and what people and fuzzers write in its place.
PIECES = st.sampled_from(
    [*"[]{},:?*&!%@`'\"|>#-\n \t~.0", "<<: ", "*a", "&a ", "- ", "? ", "!!int ", "!!float ", "!!map ", "!!set ", "---\n",
     "0x", "0b", "1_0", "1:1", ".inf", ".nan", "yes", "null", "name: ", "blocks: ", "n_base", "\u2028", "\ufeff", "é"]
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30), st.floats(), st.sampled_from([10**400, -1, 0, 1e308, True])
)
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, st.text(max_size=8), st.sampled_from(["all", "auto", "off", "5 images", "digits"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip


def told(path: Path, within_s: float = 10) -> str | None:
    """What loading says against a file, or planning against a small spec; None where it can run."""
    began = time.process_time()
    try:
        spec = load(path)
        assert isinstance(spec, GridSpec)
        said = None
        # What another place holds, and how long a large grid takes, are not asked here.
        if spec.dataset == "digits" and path.parent != CORPUS:
            planner.plan(resolve(spec, Store(path.parent / "store")))
    except UserError as error:
        said = str(error)
    assert "\n" not in (said or "")
    assert time.process_time() - began < within_s
    return said


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.stem)
def test_the_corpus(path):
    """Amounts beyond a dataset are for the plan to say; all else is said here."""
    said = told(path)
    assert said or path.stem == "copies-in-images"


def test_the_file_it_starts_from_is_a_spec(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC))
    assert told(path) is None


FUZZED = settings(
    max_examples=60, deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@FUZZED
@given(text=st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=30).map("".join))
def test_any_text(tmp_path, text):
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    told(path)


@FUZZED
@given(data=st.data())
def test_a_spec_whose_text_changed(tmp_path, data):
    """Random text is refused by the first check; what is nearly a spec gets further."""
    text = yaml.safe_dump(SPEC, sort_keys=False, default_flow_style=data.draw(st.booleans()))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        end = at + data.draw(st.sampled_from([0, 0, 1, 5]))
        text = text[:at] + data.draw(PIECES | st.text(max_size=3) | st.just("")) + text[end:]
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    told(path)


@FUZZED
@given(data=st.data())
def test_a_spec_with_another_value_in_any_place(tmp_path, data):
    tree = yaml.safe_load(yaml.safe_dump(SPEC))
    places = list(_places(tree))
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(VALUES)
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    told(path)
    with contextlib.suppress(UserError):
        load(tree)


@pytest.mark.slow
@settings(FUZZED, max_examples=20_000)
@given(text=st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=60).map("".join))
def test_any_text_for_long(tmp_path, text):
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    told(path)


def _places(tree):
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
