"""The reading of a spec: a preset's name, a YAML file, or a mapping.

All mistakes in one are `UserError`s: one line that says what, where (file, line, key) and what
would be right.
"""

from pathlib import Path
from stat import S_ISREG
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from equigrid.grid.errors import UserError, near
from equigrid.grid.spec.forgiving import models_in
from equigrid.grid.spec.model import GridSpec
from equigrid.grid.spec.paths import rooted
from equigrid.grid.spec.recipe_files import with_recipes

PRESETS = Path(__file__).parent / "presets"
_YAML_BOOL = "tag:yaml.org,2002:bool"
# A spec is some kB. More is another file, or one that unfolds (aliases of aliases) beyond all use.
MOST_BYTES, MOST_NODES = 2**20, 100_000
MOST_WRITTEN = 50_000  # values that stand in the file: reading more than these takes seconds
MOST_DIGITS = 400  # characters of a number: no float is longer


def presets() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load(source: str | Path | dict) -> GridSpec:
    """The spec in a preset (by name), in a YAML file, or in a mapping. Raises UserError.

    Relative paths in it are relative to the file, of a mapping to the present folder.
    """
    if isinstance(source, dict):
        return _validate(_completed(source, Path.cwd(), "spec"), "spec", {})
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        path = PRESETS / f"{source}.yaml"
        if str(source) not in presets():
            known = ", ".join(presets())
            raise UserError(
                f"{source}: no such preset, and no .yaml file; presets: "
                f"{known}{near(source, presets())}"
            )
    tree, data = _parsed(_text(path, source), source)
    if tree is None or not isinstance(data, dict):
        raise UserError(f"{source}: a spec is a mapping with name, dataset, classifiers and blocks")
    found = _completed(data, path.absolute().parent, str(source))
    return _validate(found, str(source), _lines(tree))


def _completed(data: dict, folder: Path, source: str) -> dict:
    """A spec's mapping with absolute paths, and with the recipes that lie in files of their own.
    Raises UserError.
    """
    return with_recipes(rooted(data, folder), lambda name: _recipe_file(name, folder, source))


def _recipe_file(name: str, folder: Path, source: str) -> object:
    """What a file of a recipe says."""
    try:
        return mapping_of(folder / Path(name).expanduser())
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def mapping_of(path: Path) -> dict:
    """The mapping that a YAML file holds. Raises UserError."""
    data = _parsed(_text(path, path), path)[1]
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds no mapping")
    return data


def mapping_in(text: str, where: str) -> dict:
    """The mapping that a text in YAML is, or that the file holds whose path it is. Raises
    UserError.
    """
    if text.endswith((".yaml", ".yml")) and "\n" not in text:
        return mapping_of(Path(text))
    data = _parsed(text, where)[1]
    if not isinstance(data, dict):
        raise UserError(f"{where}: {text!r} is no mapping; write lr: [0.03, 0.1]")
    return data


def value_in(text: str, where: str) -> object:
    """The value that a text in YAML is, within the bounds of a spec. Raises UserError."""
    return _parsed(text, where)[1]


def _text(path: Path, source: str | Path) -> str:
    try:
        if not S_ISREG(path.stat().st_mode) and not path.is_dir():
            raise OSError("is no file (a pipe or a device?)")
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: no path, such as one with NUL in it
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{source}: cannot be read: {why}") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{source}: is larger than {MOST_BYTES:,} bytes; a spec is some kB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: cannot be read: is no text in UTF-8: {error.reason}") from error


def _parsed(text: str, source: str | Path) -> tuple[yaml.Node | None, object]:
    """The YAML's nodes, which know their lines, and its values. Raises UserError."""
    try:
        loader = _Loader(text)
        try:
            tree = loader.get_single_node()
            _unfolded(tree, {})
            return tree, None if tree is None else loader.construct_document(tree)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else str(source)
        why = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{where}: not YAML: {why}") from error
    except RecursionError as error:
        raise UserError(f"{source}: is nested too deeply; a spec has a few levels") from error
    # PyYAML lets through what its conversions raise: 2020-99-99, !!int x.
    except Exception as error:
        raise UserError(f"{source}: not YAML: a value is not of its type: {error}") from error


def _unfolded(node: yaml.Node | None, counts: dict[int, int]) -> int:
    """How many nodes there are once aliases are replaced by what they stand for. Raises
    yaml.YAMLError if too many, if one contains itself, or if a key is no scalar.

    counts: of the nodes that were seen, by identity; 0 for those that are being counted.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if known := counts.setdefault(id(node), 0):
        return known
    children = node.value
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key is a word or a number, no list or mapping", key)
        children = [value for _, value in node.value]
    total = 1
    for child in children:
        if counts.get(id(child)) == 0:
            raise _refused("an alias stands inside what it stands for", child)
        total += _unfolded(child, counts)
        if total > MOST_NODES:
            raise _refused(f"aliases unfold to more than {MOST_NODES:,} values", child)
    counts[id(node)] = total
    return total


def _refused(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


class _Loader(yaml.SafeLoader):
    """Safe loading that refuses a key given twice, which YAML's readers otherwise let pass, and in
    which on, off, yes and no are words, as in YAML 1.2: `quality: off` and `compile: on` mean what
    they say.
    """

    yaml_implicit_resolvers = {
        first: [
            (tag, pattern) for tag, pattern in resolvers if tag != _YAML_BOOL or first in "tTfF"
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._written = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._written += 1
        if self._written > MOST_WRITTEN:
            problem = f"there are more than {MOST_WRITTEN:,} values; a spec has some hundreds"
            raise yaml.composer.ComposerError(None, None, problem, self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Of some thousand digits, or parts with `:` between them, it would take minutes."""
        if len(node.value) > MOST_DIGITS:
            raise _refused(f"a number of {len(node.value):,} characters", node)
        if node.tag.endswith(":int"):
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"the key {key.value!r} is there twice; name each once"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


def _lines(node: yaml.Node, path: tuple = ()) -> dict[tuple, int]:
    """The line (from 1) of every key and list item, by its path of keys."""
    lines = {path: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines.update(_lines(value, (*path, key.value)))
            lines[(*path, key.value)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines.update(_lines(item, (*path, str(i))))
    return lines


def _validate(data: dict, source: str, lines: dict[tuple, int]) -> GridSpec:
    try:
        return GridSpec.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    path = tuple(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        message = f"unknown key; known: {', '.join(known)}{near(path[-1], known)}"
    elif first["type"] == "missing":
        message = "is missing; it is required"
    else:
        value = first.get("input")
        if not first["msg"].startswith("Value error") and isinstance(value, str | int | float):
            message = f"{value!r}: {message[0].lower()}{message[1:]}"
    where = path
    while where and where not in lines:  # the nearest thing that stands in the file
        where = where[:-1]
    line = f":{lines[where]}" if where in lines and where else ""
    forms = ("int", "float", "str", "literal['all']")  # of a value that may have several
    key = ".".join(
        part for part in path if part not in forms and not part.startswith(("list[", "dict["))
    )
    raise UserError(_in_one_line(f"{source}{line}: {key + ': ' if key else ''}{message}"))


def _in_one_line(text: str) -> str:
    r"""With line feeds written out: keys and values of a stranger's spec may hold some."""
    return "".join(
        repr(part)[1:-1] if part in "\r\n\v\f\x85\u2028\u2029" else part for part in text
    )


def _keys_at(path: tuple[str, ...]) -> list[str]:
    """The keys that a spec may have at a place: those of the last model on the way there."""
    model: type[BaseModel] = GridSpec
    for part in path:
        field = model.model_fields.get(part)
        model = next(models_in(field.annotation), model) if field else model
    return list(model.model_fields)
