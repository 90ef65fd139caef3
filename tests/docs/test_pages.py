"""The pages a reader sees: links and anchors lead somewhere, the files and names they speak of
exist, and no line is longer than 100 columns.
"""

import importlib
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COLUMNS = 100


def tracked(*patterns: str) -> list[str]:
    """Files of the repository, by git's pathspecs; in a copy without git, by walking it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        names = {str(path.relative_to(ROOT)) for p in patterns for path in ROOT.rglob(p)}
        return sorted(name for name in names if not name.startswith((".venv/", "build/")))
    return sorted(name for name in listed.stdout.splitlines() if (ROOT / name).is_file())


PAGES = tracked("*.md")
CORPUS = "tests/corpus/"  # of inputs that are to be refused: no texts of ours
TEXTS = [
    name
    for name in (*PAGES, *tracked("*.yaml", "*.yml", "*.sh", "*.cff", "*Dockerfile"))
    if not name.startswith(CORPUS)
]


def prose(name: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", (ROOT / name).read_text(), flags=re.M | re.S)


def slug(heading: str) -> str:
    """GitHub's anchor of a heading: lower case, no punctuation, a hyphen for each space."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def anchors(name: str) -> set[str]:
    found = {slug(line) for line in re.findall(r"^#+ (.+)$", prose(name), flags=re.M)}
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', prose(name)))


def test_the_pages_are_found():
    assert {"README.md", "CONTRIBUTING.md", "docs/glossary.md", "docs/edm.md"} <= set(PAGES)
    assert {"cluster.yaml", "deploy/setup-node.sh", "grid/spec/presets/digits.yaml"} <= set(TEXTS)


def test_anchors_are_made_as_github_makes_them():
    assert slug("What came of `cifar10-2cores`") == "what-came-of-cifar10-2cores"
    assert slug("Pools, checkpoints, memory") == "pools-checkpoints-memory"
    assert slug("To add …") == "to-add-"
    assert slug("[0.1.0] - 2026-11-27") == "010---2026-11-27"


@pytest.mark.parametrize("name", TEXTS)
def test_lines_have_at_most_100_columns(name):
    """But for rows of tables, which Markdown cannot wrap."""
    for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
        row = name.endswith(".md") and line.lstrip().startswith("|")
        assert row or len(line) <= COLUMNS, f"{name}:{number} has {len(line)} columns"


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name):
    text = re.sub(r"`[^`\n]+`", "", prose(name))
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    targets += re.findall(r"^\[[^\]]+\]: (\S+)$", text, flags=re.M)
    for target in targets:
        if re.match(r"[a-z]+:", target):  # an address elsewhere
            continue
        path, _, anchor = target.partition("#")
        page = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert page.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(str(page.relative_to(ROOT))), f"{name}: {target}"


FOLDERS = "grid generators classifiers analysis equigrid tests benchmarks deploy docs".split()
PLACE = re.compile(rf"(?:\.\./)?((?:{'|'.join(FOLDERS)})/[\w./*-]*)")


@pytest.mark.parametrize("name", [*TEXTS, ".ci/run", "Makefile"])
def test_files_that_are_named_exist(name):
    """Paths in backticks, and in the comments of YAML and shell files."""
    text = (ROOT / name).read_text()
    if name.endswith(".md"):
        words = re.findall(r"`([^`\s]+)`", prose(name))
    else:
        words = [w for c in re.findall(r"# (.*)", text) for w in c.split()]
    for word in words:
        if match := PLACE.fullmatch(word.strip("().,:;`'\"")):
            place = match.group(1).rstrip("/")
            assert list(ROOT.glob(place)), f"{name} names {place}"


NAMES = sorted(
    {
        (page, name)
        for page in PAGES
        for name in re.findall(r"equigrid(?:\.[A-Za-z_]\w*)+", (ROOT / page).read_text())
        if not name.endswith((".yaml", ".md"))
    }
)


@pytest.mark.parametrize(("page", "name"), NAMES)
def test_modules_and_names_that_are_named_exist(page, name):
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            assert hasattr(found, part), f"{page}: {name}"
            found = getattr(found, part)
        return
    raise AssertionError(f"{page}: no module {name}")


# Ours, and the words of the field that a newcomer searches for.
WORDS = """
    cell, arm, pool, shard, slot, subset, base, nominal size, recipe, trial, attempt, part, generation,
    provenance, preemption, fault tolerance, idempotence, mixed precision, determinism, ablation,
    hyperparameter, data parallelism, checkpoint, autoscaling, lineage, compaction,
    effective sample size, equivalence curve, closed set, open set, memorisation, data leakage,
    class imbalance
"""


def test_the_glossary_has_the_words_and_says_where_each_lives():
    entries = re.findall(
        r"^- \*\*(.+?)\*\*(.+?)(?=^- |^#|\Z)", prose("docs/glossary.md"), re.M | re.S
    )
    heads = ", ".join(head for head, _ in entries).lower()
    for word in WORDS.split(","):
        word = " ".join(word.split())
        assert re.search(rf"\b{word}\b", heads), f"the glossary lacks {word}"
    for head, text in entries:
        placed = re.search(r"`[\w/*.-]+/|\]\(|\bsee\b|not here", text)
        assert placed, f"the glossary does not say where {head} lives"
    for part in ("## Our words", "## The field's words"):
        section = prose("docs/glossary.md").split(part)[1].split("\n## ")[0]
        listed = [head.lower() for head in re.findall(r"^- \*\*(.+?)[,*(]", section, flags=re.M)]
        assert listed == sorted(listed), f"{part} is out of order"


@pytest.mark.parametrize("name", [n for n in PAGES if n.startswith("docs/")])
def test_every_page_of_docs_can_be_reached_from_the_readme(name):
    seen, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            for target in re.findall(r"\]\(([^)\s#]+\.md)[^)]*\)", prose(page)):
                if "://" not in target:
                    path = ((ROOT / page).parent / target).resolve()
                    waiting.append(str(path.relative_to(ROOT)))
    assert name in seen


def test_licence_citation_and_version_agree():
    from equigrid import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["license"] == citation["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text()
    assert all((ROOT / name).is_file() for name in project["license-files"])
    assert citation["version"] == __version__ == project.get("version", __version__)
    released = rf"^## \[{re.escape(__version__)}\] - {citation['date-released']}$"
    assert re.search(released, (ROOT / "CHANGELOG.md").read_text(), flags=re.M)


def test_the_readme_lists_the_exit_codes():
    from equigrid.grid.errors import ExitCode

    rows = re.findall(r"^\| (\d+) \| [^|]+ \|$", (ROOT / "README.md").read_text(), flags=re.M)
    assert [int(code) for code in rows] == [code.value for code in ExitCode]


def test_hooks_of_pre_commit_need_no_download():
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]:
        assert repo["repo"] == "local"
        assert {hook["language"] for hook in repo["hooks"]} == {"system"}
