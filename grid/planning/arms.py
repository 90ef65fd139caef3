"""From a spec's blocks to arms: what is added to which base, in images."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from equigrid.classifiers.recipes import Augmentation
from equigrid.grid.datasets import subsets
from equigrid.grid.errors import UserError
from equigrid.grid.jobs.grid_facts import GridFacts
from equigrid.grid.planning.resolve import GeneratorChoice, Resolved, recipe_name, shares_of
from equigrid.grid.spec import Amount, Block, ByClass


class Seeds(NamedTuple):
    """How often an arm is run. generator: in place of the generator's own, where it is set."""

    subset: tuple[int, ...]
    trial: tuple[int, ...]
    generator: tuple[int, ...] | None


class Rival(NamedTuple):
    """An augmentation in place of added images. steps_of: the images whose addition would ask for
    as many steps as its trainings make.
    """

    name: str
    augmentation: Augmentation
    steps_of: int


class Arm(NamedTuple):
    """The amounts of one arm at one base size: what is added to `n_base` images. shares: the
    classes' shares of copies, None for equal ones. by_class: the images of each class that are
    added, synthetic or copies, where the spec says so by class; None where shares say.
    """

    arm: str
    recipe: str
    seeds: Seeds
    n_base: int
    nominal: int
    n_real_added: int = 0
    n_syn: int = 0
    n_copies: int = 0
    shares: tuple[int, ...] | None = None
    by_class: tuple[int, ...] | None = None
    rival: Rival | None = None
    generator: GeneratorChoice | None = None

    @property
    def generator_seeds(self) -> tuple[int, ...]:
        """Of an arm with a generator."""
        assert self.generator
        return self.seeds.generator or self.generator.seeds

    @property
    def n_real(self) -> int:
        return self.n_base + self.n_real_added

    @property
    def n_total(self) -> int:
        return self.n_real + self.n_syn + self.n_copies


def arms_of(resolved: Resolved, grid: GridFacts) -> list[Arm]:
    """The arms of all blocks; what blocks have in common, seeds too, is there once. Raises
    UserError for amounts that the dataset or a generator cannot supply.
    """
    found: dict[tuple, Arm] = {}
    of_copies = _of_copies(resolved, grid)
    for number, block in enumerate(resolved.spec.blocks):
        for arm in _arms(block, number, resolved, grid, of_copies):
            key = (*arm[:-1], arm.generator and arm.generator.name)
            found.setdefault(key, arm)
    _check_rivals(found.values())
    return list(found.values())


def _check_rivals(arms: Iterable[Arm]) -> None:
    """Raises UserError where one name stands for two augmentations of a base."""
    known: dict[tuple, Rival] = {}
    for arm in arms:
        if arm.rival is None:
            continue
        place = (arm.n_base, arm.nominal, arm.recipe, arm.rival.name)
        if known.setdefault(place, arm.rival) != arm.rival:
            what = f"augmentations.{arm.rival.name} is two things at a base of {arm.nominal:,}"
            raise UserError(f"blocks: {what}, in settings or steps; give each a name of its own")


def _of_copies(resolved: Resolved, grid: GridFacts) -> tuple[int, ...] | None:
    """The classes' shares of `copies`: those of the pools that they are the control for. Raises
    UserError where the grid's pools have several.
    """
    blocks = resolved.spec.blocks
    if not any(_balanced(block.copies) for block in blocks):
        return None
    used = [name for block in blocks for name, amounts in block.syn.items() if _balanced(amounts)]
    used += [
        name
        for block in blocks
        for mix in block.mixes
        for name, amount in mix.syn.items()
        if _balanced((amount,))
    ]
    by_name = {name: resolved.generators[name].shares(grid.shape, grid.repeated) for name in used}
    if len(set(by_name.values())) > 1:
        first = next(iter(by_name))
        other = next(name for name in by_name if by_name[name] != by_name[first])
        what = (
            f"copies follow the balance of the pools, and {first} and {other} have different ones"
        )
        right = "give them one balance, or a grid each (what two grids share is trained once)"
        raise UserError(f"generators.{other}.balance: {what}; {right}")
    return next(iter(by_name.values()), None)


def _balanced(amounts: Iterable[Amount | ByClass]) -> bool:
    """Whether one of them leaves the classes to a pool's balance."""
    return any(isinstance(amount, Amount) for amount in amounts)


def _arms(
    block: Block,
    number: int,
    resolved: Resolved,
    grid: GridFacts,
    of_copies: tuple[int, ...] | None,
) -> Iterator[Arm]:
    where = f"blocks.{number}"
    spec = resolved.spec
    recipe = recipe_name(block.recipe) if block.recipe else resolved.recipe_name
    own = (
        recipe,
        Seeds(
            block.subset_seeds or spec.subset_seeds,
            block.seeds or spec.seeds,
            block.generator_seeds,
        ),
    )
    for size in block.n_base:
        n = _base_size(size, where, grid)
        nominal = block.nominal or n
        if n and block.base:
            yield Arm("base", *own, n, nominal)
        for amount in block.real:
            count = _real(amount, n, nominal, f"{where}.real", grid)
            yield Arm("real", *own, n, nominal, n_real_added=count)
        for name, amounts in block.syn.items():
            place = f"{where}.syn.{name}"
            choice = _generator(name, n, place, resolved)
            for one in amounts:
                added = _synthetic_of(one, (n, n, nominal), choice, place, grid)
                yield Arm("syn", *own, n, nominal, **added, generator=choice)
        for one in block.copies:
            if isinstance(one, ByClass):
                counts = _by_class(one, n, n, None, f"{where}.copies", grid)
                yield Arm("copies", *own, n, nominal, n_copies=sum(counts), by_class=counts)
                continue
            count = _copies(one, nominal, f"{where}.copies")
            yield Arm("copies", *own, n, nominal, n_copies=count, shares=of_copies)
        for name, augmentation in resolved.augmentations(number).items():
            like = block.augmentation_steps_of
            count = _whole(like.count(nominal, 0), like, f"{where}.augmentation_steps_of")
            rival = Rival(name, augmentation, count)
            yield Arm("augmentation", *own, n, nominal, rival=rival)
        for i, mix in enumerate(block.mixes):
            place = f"{where}.mixes.{i}"
            choice = _generator(mix.generator, n, f"{place}.syn.{mix.generator}", resolved)
            real = _real(mix.real, n, nominal, f"{place}.real", grid)
            one, place = mix.syn[mix.generator], f"{place}.syn.{mix.generator}"
            added = _synthetic_of(one, (n, n + real, nominal), choice, place, grid)
            yield Arm("mix", *own, n, nominal, n_real_added=real, **added, generator=choice)


def _generator(name: str, n_base: int, where: str, resolved: Resolved) -> GeneratorChoice:
    choice = resolved.generators[name]
    if not n_base and choice.config.learns_from_base:
        what = "an adapted" if choice.config.setting == "adapted" else "a closed-set"
        why = f"n_base 0 leaves {what} generator nothing to learn from"
        raise UserError(f"{where}: {why}")
    return choice


def _base_size(size: int | Literal["all"], where: str, grid: GridFacts) -> int:
    name, counts = grid.source, grid.counts
    n = grid.n_train if size == "all" else size
    if n > grid.n_train:
        right = f"use at most {grid.n_train:,}, or all"
        what = f"{n:,} is more than the {grid.n_train:,} training images of {name}"
        what += grid.but_kept_apart
        raise UserError(f"{where}.n_base: {what}; {right}")
    grid.check_different(n, f"{where}.n_base")
    if n and not counts.all():
        empty = grid.shape.classes[int(counts.argmin())]
        what = f"class {empty!r} of {name} has no image to train on"
        raise UserError(f"{where}: {what}; remove the class")
    if n and (least := subsets.smallest_complete(counts)) > n:
        missing = grid.shape.classes[int((subsets.subset_counts(counts, n) == 0).argmax())]
        what = f"{n:,} leaves class {missing!r} of {name} without an image"
        raise UserError(f"{where}.n_base: {what}; the smallest base with every class is {least:,}")
    return n


def _real(amount: Amount, n: int, nominal: int, where: str, grid: GridFacts) -> int:
    left = max(0, grid.n_different - n)
    count = _whole(amount.count(nominal, left), amount, where)
    if count > left:
        what = f"{amount} × {nominal:,} = {count:,}" if amount.images is None else f"{count:,}"
        more = "more" if grid.n_different == grid.n_train else "more that differ"
        right = f"{grid.source} has {left:,} {more}{grid.but_kept_apart}: write all for those"
        raise UserError(f"{where}: {what} real images to add to {n:,}; {right}")
    return count


# Of a pool, and of copies. 78 times ImageNet. Every shard of a pool is a job: a slip in an amount
# would fill the memory.
MOST_SYNTHETIC = 10**8


def _synthetic(
    amount: Amount, nominal: int, choice: GeneratorChoice, where: str, grid: GridFacts
) -> int:
    count = _whole(amount.count(nominal, 0), amount, where)
    if count > MOST_SYNTHETIC:
        raise UserError(
            f"{where}: {count:,} synthetic images; {MOST_SYNTHETIC:,} of a pool are the most"
        )
    shares = shares_of(choice, grid.spec, grid.shape, grid.repeated)
    most = choice.capacity(grid.shape.classes, shares)
    if most is not None and grid.drawn(count) > most:
        classes, seen = len(grid.shape.classes), len(grid.seen or ())
        balanced = most if grid.unseen_shares else most * (classes - seen) // classes
        of = "unseen classes" if seen else "classes"
        have = f"{choice.name} has {balanced:,} that are balanced over the {of}"
        if shares and not grid.unseen_shares:
            have = f"{choice.name} has {most:,} in the classes' shares that balance says"
        raise UserError(f"{where}: {count:,} images; {have}")
    return count


def _synthetic_of(
    amount: Amount | ByClass,
    sizes: tuple[int, int, int],
    choice: GeneratorChoice,
    where: str,
    grid: GridFacts,
) -> dict[str, Any]:
    """What an arm says of its synthetic images. sizes: of the base, of all real images, nominal."""
    n, n_real, nominal = sizes
    if isinstance(amount, Amount):
        return {"n_syn": _synthetic(amount, nominal, choice, where, grid)}
    counts = _by_class(amount, n, n_real, choice, where, grid)
    return {"n_syn": sum(counts), "by_class": counts}


def _by_class(
    amount: ByClass,
    n: int,
    n_real: int,
    choice: GeneratorChoice | None,
    where: str,
    grid: GridFacts,
) -> tuple[int, ...]:
    """Images of each class to add to a base of n, beside so many real ones with it; choice None:
    copies.
    """
    names = grid.shape.classes
    base, real = grid.of_each_class(n), grid.of_each_class(n_real)
    try:
        counts = amount.counts(names, base, real)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    if sum(counts) > MOST_SYNTHETIC:
        right = f"{MOST_SYNTHETIC:,} of an arm are the most"
        raise UserError(f"{where}: {sum(counts):,} images; {right}")
    for label, count in enumerate(counts):
        most = choice.capacity_of(label, names) if choice else None
        if choice and most is not None and count > most:
            have = f"{choice.name} has {most:,} of class {names[label]!r}"
            equal = choice.config.balance == "equal"
            right = ", as many of each as of the rarest; balance: as_data has all" if equal else ""
            raise UserError(f"{where}: {count:,} images; {have}{right}")
    return counts


def _copies(amount: Amount, nominal: int, where: str) -> int:
    count = _whole(amount.count(nominal, 0), amount, where)
    if count > MOST_SYNTHETIC:
        raise UserError(f"{where}: {count:,} copies; {MOST_SYNTHETIC:,} are the most")
    return count


def _whole(count: int, amount: Amount, where: str) -> int:
    if count < 1:
        raise UserError(f"{where}: {amount} of the base is no whole image; use a larger amount")
    return count
