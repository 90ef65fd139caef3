"""The snippets of README and docs: Python runs, specs load, commands parse.

A reader copies them. So each Python snippet is run as it stands, but for what makes it long or
needs files that are not here: `Shorter` names the text that is replaced, and by what.
"""

import pickle
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]


def snippets(language: str) -> list[tuple[str, int, str]]:
    """(page, place among the page's snippets of that language, text without its indentation)."""
    found = []
    for page in sorted(PAGES):
        text = (ROOT / page).read_text()
        fenced = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, flags=re.M | re.S)
        for number, (indentation, block) in enumerate(fenced):
            found.append((page, number, re.sub(rf"^{indentation}", "", block, flags=re.M)))
    return found


def fragments(page: str, language: str) -> str:
    return "\n".join(text for name, _, text in snippets(language) if name == page)


class Shorter(NamedTuple):
    """What a snippet is given instead, and what must be true of its names afterwards."""

    replaced: dict[str, str]
    holds: Callable[[dict], bool]


SMALL_DIT = (
    '"preset": "digits", "training": {"steps": 3},'
    ' "vae": {"training": {"steps": 3}}, "sampler": {"steps": 2}'
)
RUN = {
    ("docs/analysis.md", 0): Shorter({}, lambda names: len(names["analysis"].curves) == 2),
    ("docs/classifiers.md", 0): Shorter({}, lambda names: names["result"].top1 > 90),
    ("docs/edm.md", 0): Shorter(
        {'"preset": "digits"': '"preset": "digits", "training": {"total_nimg": 320}',
         "stop=1000": "stop=20"},
        lambda names: names["made"].shape == (20, 8, 8, 1) and Path("sheet.png").stat().st_size > 0,
    ),
    ("docs/edm.md", 1): Shorter({}, lambda names: Path("edm.safetensors").is_file()),
    ("docs/dit.md", 0): Shorter(
        {'"preset": "digits"': SMALL_DIT, "stop=1000": "stop=20"},
        lambda names: names["made"].shape == (20, 8, 8, 1) and Path("sheet.png").stat().st_size > 0,
    ),
    ("docs/open-set.md", 0): Shorter(
        {'"/models/stable-diffusion-2"': '"<sd>", "sampler": {"steps": 2}',
         '"cuda"': '"cpu"', "stop=100": "stop=6"},
        lambda names: names["images"].shape == (6, 256, 256, 3),
    ),
    ("docs/own-generator.md", 0): Shorter(
        {}, lambda names: abs(names["sample"](5, 1).astype(float).mean() - 100) < 5
    ),
    ("docs/python.md", 1): Shorter(
        {}, lambda names: names["answer"].low < 100 / 0.3 < names["answer"].high
    ),
    ("docs/zero-shot.md", 0): Shorter(
        {'"/models/bert-base-uncased"': '"<bert>", text_width=16'},
        lambda names: names["result"].among_unseen > 50,  # five classes: 20% by chance
    ),
}  # fmt: skip
# Needs a published network's files: tests/generators/dit/test_training.py runs it on such. Runs a
# grid: tests/grid/api/test_run.py.
ELSEWHERE = {("docs/dit.md", 1), ("docs/python.md", 0)}


def test_every_python_snippet_is_run():
    assert {(page, number) for page, number, _ in snippets("python")} == set(RUN) | ELSEWHERE


@pytest.mark.parametrize(("page", "number"), RUN)
def test_python_snippets_run(page, number, sd, bert, tmp_path, monkeypatch):
    import torch

    monkeypatch.chdir(tmp_path)
    if (page, number) == ("docs/edm.md", 1):
        released = {"ema": torch.nn.Linear(2, 3)}
        Path("edm-cifar10-32x32-cond-vp.pkl").write_bytes(pickle.dumps(released))
    (text,) = [t for name, n, t in snippets("python") if (name, n) == (page, number)]
    shorter = RUN[page, number]
    for old, new in shorter.replaced.items():
        assert text.count(old) == 1, f"{page} no longer says {old}"
        text = text.replace(old, new.replace("<sd>", sd).replace("<bert>", bert))
    names: dict = {"__name__": "snippet"}
    exec(compile(text, f"{page}#{number}", "exec"), names)
    assert shorter.holds(names)


def settings() -> list[tuple[str, str]]:
    """(page, one top-level setting as a spec writes it): a page may show one key several times."""
    found = []
    for page, _, text in snippets("yaml"):
        if not text.startswith("name:"):
            found += [(page, part) for part in re.split(r"^(?=\S)", text, flags=re.M) if part]
    return found


def test_there_are_settings():
    assert {page for page, _ in settings()} >= {
        "docs/classifiers.md", "docs/datasets.md", "docs/domain-gap.md",
        "docs/watching.md",
    }  # fmt: skip


def first_words(value) -> str:
    return " ".join(str(value).split())[:40]


@pytest.mark.parametrize(("page", "setting"), settings(), ids=first_words)
def test_settings_load_as_a_spec(page, setting, tmp_path, monkeypatch):
    import inspect

    from equigrid.grid.datasets.catalogue import SOURCES
    from equigrid.grid.spec import load

    (key, value), *others = yaml.safe_load(setting).items()
    assert not others
    spec = {"name": "x", "dataset": "digits", "recipe": "digits", "classifiers": ["digits-cnn"],
            "generators": {"edm": {"kind": "edm", "preset": "digits"}},
            "blocks": [{"n_base": 100, "syn": {"edm": 1}}]}  # fmt: skip
    if key == "generators":
        spec["blocks"][0]["syn"] = dict.fromkeys(value, 1)
    path = tmp_path / "spec.yaml"
    (tmp_path / "tuned.yaml").write_text("recipe: {extends: digits, steps: 30}\n")
    (tmp_path / "tuned-generator.yaml").write_text("{kind: edm, preset: digits}\n")
    path.write_text(yaml.safe_dump({k: v for k, v in spec.items() if k != key}) + setting)
    assert key in load(path).model_dump(exclude_unset=True)
    if key == "dataset":  # its options are read with the data
        kind = value if isinstance(value, str) else next(iter(value))
        options = [] if isinstance(value, str) else list(value)[1:]
        assert set(options) <= {*inspect.signature(SOURCES[kind]).parameters, "class_names", "keep"}


def commands() -> list[tuple[str, str, bool]]:
    """(page, an equigrid command, whether it stands in a block of shell): those that are whole."""
    found = []
    for page in sorted(PAGES):
        shell = fragments(page, "sh").replace("\\\n", " ")
        for line in shell.splitlines():
            if match := re.search(r"(?:^|-- +)(equigrid [^#]+)", line):
                found.append((page, " ".join(match[1].split()), True))
        inline = re.findall(r"`([^`]+)`", (ROOT / page).read_text())
        for text in inline:
            line = " ".join(text.split())
            if line.startswith("equigrid ") and "…" not in line:
                found.append((page, line, False))
    return found


def test_there_are_commands():
    assert len([line for _, line, block in commands() if block]) > 10
    assert ("docs/paper.md", "equigrid paper", False) in commands()


@pytest.mark.parametrize(("page", "line", "block"), commands())
def test_commands_parse(page, line, block):
    """Every word of it is one that the command line takes; in a sentence a SPEC may be left out."""
    import typer

    from equigrid.grid.cli.entry import app

    known = typer.main.get_command(app).commands
    name, *words = shlex.split(line)[1:]
    assert name in known, f"{page}: {line}"
    try:
        known[name].make_context(name, words)
    except Exception as error:  # click's, whose own module typer may bring or import
        if block or type(error).__name__ not in ("MissingParameter", "BadOptionUsage"):
            raise AssertionError(f"{page}: {line}: {error}") from error


def test_a_wrong_option_would_be_seen():
    with pytest.raises(AssertionError, match="--stores"):
        test_commands_parse("page", "equigrid run digits --stores x", False)
    with pytest.raises(AssertionError, match="rune"):
        test_commands_parse("page", "equigrid rune digits", False)


@pytest.mark.parametrize(("page", "number", "text"), snippets("sh"), ids=first_words)
def test_shell_is_shell(page, number, text):
    text = text.replace("…", "x")
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_make_targets_and_scripts_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in [*PAGES, "benchmarks/README.md"]:
        text = (ROOT / page).read_text()
        code = "\n".join([*re.findall(r"`([^`]+)`", text), fragments(page, "sh")])
        for target in re.findall(r"^make ([\w-]+)", code, flags=re.M):
            assert re.search(rf"^{target}:", makefile, flags=re.M), f"{page}: make {target}"
        for script, words in re.findall(r"python (benchmarks/\w+\.py)([^`#\n]*)", code):
            for option in re.findall(r"--[\w-]+", words):
                known = (ROOT / script).read_text()
                assert option in known or option[2:].replace("-", "_") in known, f"{page}: {option}"
