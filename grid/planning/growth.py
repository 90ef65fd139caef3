"""Grids that grow by a question: the small grid they begin with, and the trainings added since.

A grown grid is an ordinary spec: its blocks, and after them blocks with seeds of their own. So it
is planned, run, resumed and analysed as any other.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from equigrid.classifiers.models.pretraining import unhashed
from equigrid.grid.errors import UserError
from equigrid.grid.planning.graph import Cell
from equigrid.grid.planning.resolve import recipe_name
from equigrid.grid.spec import Amount, Block, GridSpec
from equigrid.grid.spec.model import Mixed

FIRST_SUBSETS = 2  # how many subset seeds the small grid has: one tells nothing of their spread


class Place(NamedTuple):
    """A training to add: amounts in images, `n_base` nominal, as `Cell` has them."""

    n_base: int
    n_real_added: int
    n_syn: int
    n_copies: int
    generator: str | None
    subset_seed: int
    generator_seed: int | None
    seed: int


def start(spec: GridSpec, classifier: str | None = None) -> GridSpec:
    """The small grid: every place of `spec` once, under two subset seeds, with one classifier.

    Raises UserError where the spec has several classifiers and none is named.
    """
    by_name = {one if isinstance(one, str) else one.spelled: one for one in spec.classifiers}
    if classifier is None and len(spec.classifiers) > 1:
        names = ", ".join(by_name)
        raise UserError(f"classifier: the grid has several; add classifier=NAME, one of {names}")
    if classifier is not None and unhashed(classifier) not in by_name:
        names = ", ".join(by_name)
        raise UserError(f"classifier {classifier!r}: the grid has {names}")
    chosen = by_name[unhashed(classifier)] if classifier else spec.classifiers[0]
    subsets = spec.subset_seeds[:FIRST_SUBSETS]
    while len(subsets) < FIRST_SUBSETS:
        subsets = (*subsets, max(subsets) + 1)
    return spec.model_copy(
        update={"classifiers": (chosen,), "subset_seeds": subsets, "seeds": spec.seeds[:1]}
    )


def grew_from(grown: GridSpec, first: GridSpec) -> bool:
    """Whether a grid is `first` with blocks added, however it runs."""
    n = len(first.blocks)
    same = grown.model_copy(update={"blocks": grown.blocks[:n], "execution": first.execution})
    return same == first


def with_places(spec: GridSpec, cells: Sequence[Cell], places: Iterable[Place]) -> GridSpec:
    """`spec` with trainings added, each at a place of its own grid.

    cells: those of its plan. Raises ValueError for a place that the grid does not have.
    """
    # A question is about balanced amounts: those by class are none of its places. Augmentations add
    # nothing, as the base: no question asks for more of them.
    asked = [cell for cell in cells if cell.by_class is None and cell.arm != "augmentation"]
    known = {_amounts(cell): cell for cell in asked}
    by_seeds: dict[_Repeated, list[Cell]] = {}
    for place in places:
        if (cell := known.get(_amounts(place))) is None:
            raise ValueError(f"the grid has no place {place}")
        repeated = _Repeated(
            cell.n_base,
            cell.n_nominal,
            cell.recipe,
            place.subset_seed,
            place.generator_seed,
            place.seed,
        )
        by_seeds.setdefault(repeated, []).append(cell)
    blocks = [_block(spec, repeated, found) for repeated, found in by_seeds.items()]
    return spec.model_copy(update={"blocks": (*spec.blocks, *blocks)})


class _Repeated(NamedTuple):
    """What the places of one block have in common."""

    n_base: int
    n_nominal: int
    recipe: str
    subset_seed: int
    generator_seed: int | None
    seed: int


def _amounts(one: Cell | Place) -> tuple:
    n_base = one.n_nominal if isinstance(one, Cell) else one.n_base
    return n_base, one.n_real_added, one.n_syn, one.n_copies, one.generator


def _block(spec: GridSpec, at: _Repeated, cells: list[Cell]) -> Block:
    syn: dict[str, tuple[Amount, ...]] = {}
    for cell in _of(cells, "syn"):
        assert cell.generator
        syn[cell.generator] = (*syn.get(cell.generator, ()), Amount(images=cell.n_syn))
    return Block(
        n_base=(at.n_base,),
        nominal=at.n_nominal if at.n_nominal != at.n_base else None,
        base=any(_of(cells, "base")),
        recipe=_recipe(spec, at.recipe),
        real=tuple(Amount(images=cell.n_real_added) for cell in _of(cells, "real")),
        syn=syn,
        copies=tuple(Amount(images=cell.n_copies) for cell in _of(cells, "copies")),
        mixes=tuple(_mixed(cell) for cell in _of(cells, "mix")),
        subset_seeds=(at.subset_seed,),
        seeds=(at.seed,),
        generator_seeds=None if at.generator_seed is None else (at.generator_seed,),
    )


def _mixed(cell: Cell) -> Mixed:
    assert cell.generator
    synthetic = {cell.generator: Amount(images=cell.n_syn)}
    return Mixed(real=Amount(images=cell.n_real_added), syn=synthetic)


def _of(cells: list[Cell], arm: str) -> Iterator[Cell]:
    return (cell for cell in cells if cell.arm == arm)


def _recipe(spec: GridSpec, name: str) -> str | dict | None:
    """The recipe of a block, by the name that its cells have; None for the grid's own."""
    for block in spec.blocks:
        if block.recipe is not None and recipe_name(block.recipe) == name:
            return block.recipe
    return None
