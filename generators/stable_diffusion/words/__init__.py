"""Words for captions: in-context examples, backgrounds and relations, as data files of our own
writing.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

_OWN = Path(__file__).parent
TEMPLATES = ("c", "c,bg", "c,rel")


@dataclass(frozen=True)
class Words:
    """examples: template -> pairs (given, caption), such as ("owl, a barn", "An owl ...")."""

    examples: dict[str, list[tuple[str, str]]]
    backgrounds: list[str]
    relations: list[str]

    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def read(
    examples: str | None = None, backgrounds: str | None = None, relations: str | None = None
) -> Words:
    """The words of the files, None for ours.  ValueError, one line, names a file that cannot
    serve.
    """
    return Words(
        _examples(Path(examples or _OWN / "examples.json")),
        _lines("backgrounds", Path(backgrounds or _OWN / "backgrounds.txt")),
        _lines("relations", Path(relations or _OWN / "relations.txt")),
    )


def _examples(path: Path) -> dict[str, list[tuple[str, str]]]:
    read = _text("examples", path)
    try:
        content = json.loads(read)
        made = {
            template: [(str(given), str(text)) for given, text in content[template]]
            for template in TEMPLATES
        }
    except (KeyError, TypeError, ValueError):
        made = {}
    if not made or not all(made.values()):
        form = ", ".join(f'"{template}": [[given, caption], ...]' for template in TEMPLATES)
        raise ValueError(f"captions.examples: {str(path)!r} is not JSON of the form {{{form}}}")
    return made


def _lines(key: str, path: Path) -> list[str]:
    lines = [line.strip() for line in _text(key, path).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"captions.{key}: the file {str(path)!r} holds no line of text")
    return lines


def _text(key: str, path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"captions.{key}: there is no file {str(path)!r}")
    return path.read_text(encoding="utf-8")
