"""The documentation as a site: `make docs` builds it without a warning."""

import inspect
import os
import re
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import equigrid as eg

ROOT = Path(__file__).parents[2]
needs_mkdocs = pytest.mark.skipif(not find_spec("mkdocs"), reason="no mkdocs here: make docs")


def hooks():
    spec = spec_from_file_location("hooks", ROOT / "docs/site/hooks.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_mkdocs
@pytest.mark.parametrize(
    ("page", "text", "right"),
    [
        ("index.md", "[a](docs/spec.md#x) ![b]\n\n[b]: docs/figures/f.png", "[a](spec.md#x) ![b]\n\n[b]: figures/f.png"),
        ("spec.md", "[a](../README.md#your-own-grid)", "[a](index.md#your-own-grid)"),
        ("benchmarks.md", "[a](../docs/edm.md)", "[a](edm.md)"),
        ("edm.md", "[a](dit.md) [b](../benchmarks/README.md#x)", "[a](dit.md) [b](benchmarks.md#x)"),
        ("edm.md", "[a](#x) [b](https://x.org/y.md)", "[a](#x) [b](https://x.org/y.md)"),
        ("tutorial.md", "[a](../examples/quickstart.ipynb)", "[a](examples/quickstart.md)"),
        ("examples/quickstart.md", "[a](own_dataset.ipynb)", "[a](own_dataset.md)"),
    ],
)  # fmt: skip
def test_links_between_pages_lead_where_they_lead_on_disk(page, text, right):
    there = SimpleNamespace(file=SimpleNamespace(src_uri=page))
    assert hooks().on_page_markdown(text, page=there) == right


def test_every_page_is_in_the_navigation():
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    settings = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)  # noqa: S506
    named = set(re.findall(r"[\w-]+\.md", str(settings["nav"])))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= named


@needs_mkdocs
@pytest.mark.long
def test_the_site_builds_without_a_warning_and_has_every_name(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site/reference.html").read_text()
    for name in eg.__all__:
        found = getattr(eg, name)
        if inspect.isfunction(found) or inspect.isclass(found):
            assert f'id="{found.__module__}.{name}"' in page or name == "GridSpec", name
    assert page.count('<span class="gp">&gt;&gt;&gt; </span>') > 50, "examples are blocks of code"
    assert "<blockquote>" not in page
    for name in ("quickstart", "own_dataset"):
        page = (tmp_path / f"site/examples/{name}.html").read_text()
        outputs = page.count('<div class="output">')
        assert outputs >= 6, name
        assert (tmp_path / f"site/examples/{name}.ipynb").is_file()
    assert "data:image/png;base64" in (tmp_path / "site/examples/quickstart.html").read_text()


@needs_mkdocs
def test_a_notebook_is_a_page_with_its_outputs_below_its_cells():
    html, png = "<table>\n\n<tr><td>1</td></tr></table>", "aGk=\n"
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": ["a = 1\n", "a"], "outputs": [
            {"output_type": "stream", "name": "stdout", "text": ["said\n"]},
            {"output_type": "execute_result", "data": {"text/plain": ["plain"], "text/html": html}},
            {"output_type": "display_data", "data": {"text/plain": "figure", "image/png": png}},
            {"output_type": "execute_result", "data": {"text/plain": "'one'"}},
        ]},
    ]  # fmt: skip
    made = hooks().notebooks.page({"cells": cells}, "a.ipynb")
    parts = ["# Title\ntext", 'href="a.ipynb"', "```python\na = 1\na\n```", "```text\nsaid\n```",
             html, "data:image/png;base64,aGk=\"", "```text\n'one'\n```"]  # fmt: skip
    places = [made.index(part) for part in parts]
    assert places == sorted(places)
    assert "plain" not in made and "figure" not in made
