"""Where a user's module lies, and which files it is made of: without running any of it.

So a plan can be made, and ids with it, where the libraries that the module needs are missing.
"""

import ast
import hashlib
import importlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

OURS = "equigrid"  # its version is in every result; it is no part of a user's module


class Source(NamedTuple):
    """A module as it lies on disk. root: the folder that the module's dotted name counts from.
    file: of the module itself. files: it and all that it imports from there, directly or not,
    relative to root, sorted. names: what its top level binds; None where that cannot be told.
    """

    root: Path
    file: Path
    files: tuple[str, ...]
    names: frozenset[str] | None

    def digest(self) -> str:
        """SHA-256 of names and contents of the files, wherever they lie: hexadecimal."""
        whole = hashlib.sha256()
        for name in self.files:
            content = (self.root / name).read_bytes().replace(b"\r\n", b"\n")
            whole.update(f"{name}\0{len(content)}\0".encode() + content)
        return whole.hexdigest()


def find(module: str, path: str | None) -> Source:
    """The module of this dotted name: in the folder `path`, else where Python looks for modules.

    Imports are followed within `path`; of a module that lies elsewhere, within its own package.
    Raises ValueError, one line, if there is none, or a file of it is no Python.
    """
    top, own = module.partition(".")[0], Path(path).expanduser().absolute() if path else None
    if own and (file := _located(own, module)):
        root, within = own, None
    elif (found := _installed(top)) and (file := _located(found, module)):
        root, within = found, top
    else:
        places = f"in {path} or " if path else ""
        raise ValueError(
            f"there is no file {module.replace('.', '/')}.py {places}where Python looks for "
            "modules; set path to the folder that it lies in, or PYTHONPATH"
        )
    trees = _followed(root, file, within)
    files = tuple(sorted(one.relative_to(root).as_posix() for one in trees))
    return Source(root, file, files, _bound(trees[file].body))


def _located(root: Path, module: str) -> Path | None:
    """The file of a module, counted from root, as Python would choose it."""
    base = root.joinpath(*module.split("."))
    for file in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if file.is_file():
            return file
    return None


def _installed(top: str) -> Path | None:
    """The folder from which Python would import a module of this first name; nothing is run."""
    importlib.invalidate_caches()  # the file may be younger than what Python knows of its folder
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # __main__ has no place
        return None
    if spec is None:
        return None
    inside = next(iter(spec.submodule_search_locations or ()), None)
    place = inside or (spec.origin if spec.has_location else None)
    return Path(os.path.abspath(place)).parent if place else None


def _followed(root: Path, file: Path, within: str | None) -> dict[Path, ast.Module]:
    """The syntax trees of a file and of what it imports, directly or not, below root."""
    trees: dict[Path, ast.Module] = {}
    waiting = [file, *_packages_above(root, file)]
    while waiting:
        one = waiting.pop()
        if one in trees:
            continue
        trees[one] = _parsed(one)
        for name in _imported(trees[one], _package(root, one)):
            top = name.partition(".")[0]
            if top != OURS and within in (None, top) and (found := _located(root, name)):
                waiting += [found, *_packages_above(root, found)]
    return trees


def _packages_above(root: Path, file: Path) -> Iterator[Path]:
    """The __init__.py files that importing a file runs first."""
    for folder in file.parents:
        if folder == root:
            return
        if (init := folder / "__init__.py").is_file():
            yield init


def _package(root: Path, file: Path) -> list[str]:
    return list(file.relative_to(root).parent.parts)


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f"{file}:{line}" if line else str(file)
        raise ValueError(f"{where} is no Python: {getattr(error, 'msg', error)}") from error
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error


def _imported(tree: ast.Module, package: list[str]) -> Iterator[str]:
    """Dotted names that a file may import, in functions too: modules, or names inside them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
            else:
                yield from (alias.name for alias in node.names if alias.name != "*")


def _bound(body: Iterable[ast.stmt]) -> frozenset[str] | None:
    """Names that statements bind; None where a star import hides some."""
    found: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                if any(alias.name == "*" for alias in names):
                    return None
                found |= {(alias.asname or alias.name).partition(".")[0] for alias in names}
            case ast.Assign() | ast.AnnAssign():
                inside = ast.walk(node)
                found |= {n.id for n in inside if isinstance(n, ast.Name) and _stored(n)}
            case ast.If() | ast.Try() | ast.With():
                inner = [part for part in ast.walk(node) if isinstance(part, ast.stmt)]
                below = _bound(part for part in inner if part is not node)
                if below is None:
                    return None
                found |= below
    return frozenset(found)


def _stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)
