"""Hooks of mkdocs (mkdocs.yml): the pages that lie outside docs/ are pages of the site too, and the
links between all of them lead where they lead on disk.
"""

import json
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import notebooks  # noqa: E402

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "THIRD_PARTY_NOTICES.md": "third-party-notices.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/quickstart.ipynb": "examples/quickstart.md",
    "examples/own_dataset.ipynb": "examples/own_dataset.md",
}
"""From a page in the repository to its page of the site."""
BESIDE = (
    "LICENSE",
    "CITATION.cff",
    *sorted(f"examples/{p.name}" for p in (ROOT / "examples").glob("*.*")),
)
"""Files that pages link to, which the site has as they are."""
LINK = re.compile(r"(\]\(|^\[[^\]\n]+\]: )(?![a-z]+:|#)([^)\s#]+)", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages and files that lie outside docs/."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        if name.endswith(".ipynb"):
            text = notebooks.page(json.loads(text), Path(name).name)
        files.append(File.generated(config, page, content=text))
    for name in BESIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites the page's relative links, which are right in the repository."""
    here = {site: name for name, site in PAGES.items()}.get(
        page.file.src_uri, f"docs/{page.file.src_uri}"
    )

    def led(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), match[2]))
        place = PAGES.get(target, target.removeprefix("docs/"))
        start = posixpath.dirname(page.file.src_uri)
        return match[1] + posixpath.relpath(place, start or ".")

    return LINK.sub(led, markdown)
