"""Recipes and generators that lie in files of their own, as `equigrid tune` writes them: `recipe:
tuned.yaml`.

A spec takes in what its files say when it is read. What is recorded in a store then has all of it,
and no file is asked for again.
"""

from collections.abc import Callable
from typing import Any

from equigrid.grid.errors import UserError

SUFFIXES = (".yaml", ".yml")


def is_file(recipe: object) -> bool:
    """Whether a recipe is the path of a file."""
    return isinstance(recipe, str) and recipe.endswith(SUFFIXES)


def with_recipes(data: dict, read: Callable[[str], Any]) -> dict:
    """A spec's mapping with what `read` finds in the files of its recipes and generators. Raises
    UserError.
    """
    found = _taken_in(data, "recipe", read)
    if isinstance(generators := found.get("generators"), dict):
        found["generators"] = {
            name: _generator(name, entry, read) if is_file(entry) else entry
            for name, entry in generators.items()
        }
    if isinstance(gap := found.get("domain_gap"), dict):
        found["domain_gap"] = _taken_in(gap, "domain_gap.recipe", read)
    if isinstance(blocks := found.get("blocks"), list):
        found["blocks"] = [
            _taken_in(block, f"blocks.{i}.recipe", read) if isinstance(block, dict) else block
            for i, block in enumerate(blocks)
        ]
    return found


def _taken_in(holder: dict, where: str, read: Callable[[str], Any]) -> dict:
    name = holder.get("recipe")
    if not is_file(name):
        return dict(holder)
    content = read(str(name))
    # What `equigrid tune` writes has its provenance beside the recipe.
    recipe = content.get("recipe", content)
    if is_file(recipe) or not isinstance(recipe, str | dict):
        raise UserError(f"{where}: {name} names no recipe; write recipe: and below it its keys")
    if isinstance(recipe, dict) and isinstance(content.get("name"), str):
        recipe = {"name": content["name"], **recipe}
    return {**holder, "recipe": recipe}


def _generator(name: object, entry: str, read: Callable[[str], Any]) -> dict[str, Any]:
    content = read(entry)
    generator = content.get("generator", content)
    if not isinstance(generator, dict):
        right = "write generator: and below it its keys"
        raise UserError(f"generators.{name}: {entry} names no generator; {right}")
    return generator
