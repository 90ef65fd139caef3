"""What a grid is, for whatever plans a job of it: sizes, subsets, recipes, all without a store."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from equigrid.classifiers import recipes
from equigrid.classifiers.recipes import Recipe, ResolvedRecipe
from equigrid.generators.common import pools
from equigrid.grid.datasets import subsets
from equigrid.grid.datasets.sources.base import Shape
from equigrid.grid.errors import UserError
from equigrid.grid.jobs.classifier import Classifier
from equigrid.grid.jobs.job import Outside, Stream, Subset
from equigrid.grid.spec import GridSpec

# A trial's images up to here lie on the device whole; more of them are streamed.
RESIDENT_BYTES = 4 * 2**30
WINDOW_BYTES = 2**30  # of a streamed trial's images at hand: 5,440 at 256×256


@dataclass(frozen=True)
class GridFacts:
    """A spec, and what the world says about it.

    dataset: the fingerprint. source: the dataset's name. ingest: the id of its ingest. recipes: by
    name; `recipe` is the name of the grid's own. repeated: training images of each class that are
    copies of others, if there are any. grouped: whether images of one group stay together.
    zero_shot, quality: what was recorded of these parts; None asks the files that the spec names.
    twice: images that two splits have, by pair, such as train_test. classifiers: by their names in
    rows. recorded: whether the grid was planned once, so that nobody asks again whether each of
    its jobs can be done: those that could have their results, and these can be read.
    """

    spec: GridSpec
    shape: Shape
    dataset: str
    source: str
    ingest: str
    recipes: Mapping[str, Recipe]
    recipe: str
    domain_recipe: Recipe
    repeated: tuple[int, ...] = ()
    grouped: bool = False
    zero_shot: Mapping[str, Any] | None = None
    quality: Mapping[str, Any] | None = None
    twice: Mapping[str, int] = field(default_factory=dict)
    classifiers: Mapping[str, Classifier] = field(default_factory=dict)
    recorded: bool = False

    @property
    def first_classifier(self) -> Classifier:
        """The grid's own, where one is wanted."""
        return next(iter(self.classifiers.values()))

    def classifier(self, name: str) -> Classifier:
        """By its name in rows; one that the grid has not is trained from scratch."""
        return self.classifiers.get(name) or Classifier.named(name)

    def zero_shot_payload(self) -> Mapping[str, Any] | None:
        """What of `zero_shot` determines a trial; None where the spec has none."""
        classes = self.shape.classes
        if self.zero_shot is not None or self.spec.zero_shot is None:
            return self.zero_shot
        return self.spec.zero_shot.payload(classes, len(classes))

    def quality_payload(self) -> tuple[Mapping[str, Any], Mapping[str, bool | str]]:
        """What of `quality` determines the measuring of a pool, and where its networks come
        from."""
        wanted = self.spec.quality
        assert wanted is not None, "the spec has it off"
        if self.quality is not None:
            return self.quality["payload"], self.quality["networks"]
        return wanted.payload(*self.shape.image), wanted.networks(*self.shape.image)

    @cached_property
    def seen(self) -> tuple[int, ...] | None:
        """The labels whose real images may be trained on, where that is not all of them."""
        if not self.spec.zero_shot:
            return None
        classes = len(self.shape.classes)
        unseen = self.spec.zero_shot.unseen_labels(self.shape.classes, classes)
        return tuple(sorted(set(range(classes)) - set(unseen)))

    @cached_property
    def unseen_shares(self) -> tuple[int, ...] | None:
        """The classes' shares of the pools of a zero-shot grid that makes images of the unseen
        classes alone; None for every other grid.
        """
        if not self.spec.zero_shot:
            return None
        return self.spec.zero_shot.shares(self.shape.classes, len(self.shape.classes))

    @cached_property
    def counts(self) -> np.ndarray:
        """Different real images of each class that may be trained on, where there are any of the
        class.
        """
        return subsets.counts_left(self._not_held_out, self.kept_apart)

    @cached_property
    def n_different(self) -> int:
        """Different real images that may be trained on."""
        return int(self.counts.sum())

    @cached_property
    def n_train(self) -> int:
        """Real images that may be trained on: only the whole set has those that are copies of
        others.
        """
        left_out = self.held_out or self.kept_apart
        return self.n_different + (0 if left_out else int(np.sum(self._copies)))

    def check_different(self, n: int, where: str) -> None:
        """Raises UserError for a number of images that only copies would fill."""
        if self.n_different < n < self.n_train:
            have = f"{self.n_different:,} different training images, {self.n_train:,} with copies"
            right = f"use at most {self.n_different:,}, or all"
            raise UserError(f"{where}: {n:,}, and {self.source} has {have}; {right}")

    @cached_property
    def held_out(self) -> int:
        """Images of the training set that are kept for validation. Raises UserError."""
        different = self._of_seen(self.shape.train_counts) - self._copies
        wanted, every = self.spec.validation, int(different.sum())
        if wanted is None:
            return 0
        if wanted.images == "own":
            if not self.shape.n_val:
                right = "has no validation split of its own; write a number"
                raise UserError(f"validation.images: {self.source} {right}")
            return 0
        if wanted.images >= every:
            of = f"of the {every:,} training images of {self.source}"
            raise UserError(f"validation.images: {wanted.images:,} {of}; leave some")
        if self.grouped:
            right = "set val: 0.1 in dataset, and write validation: {images: own}"
            what = f"{wanted.images:,} images would tear groups of {self.source} apart"
            raise UserError(f"validation.images: {what}; {right}")
        return wanted.images

    @property
    def _own_validation(self) -> bool:
        """Whether the validation split that the dataset brings is looked at."""
        return self.spec.validation is not None and self.spec.validation.images == "own"

    @cached_property
    def _not_held_out(self) -> np.ndarray:
        """Different images of each class that may be trained on, or kept apart."""
        different = self._of_seen(self.shape.train_counts) - self._copies
        return subsets.counts_left(different, self.held_out)

    @cached_property
    def kept_apart(self) -> int:
        """Images of the training set that stand in for other people's data. Raises UserError where
        they would overlap with what they are kept apart from, or too few would be left.
        """
        wanted = self.spec.outside
        if wanted is None:
            return 0
        if wanted.images == "own":
            self._check_own_outside()
            return 0
        n, counts = wanted.images, self._not_held_out
        if self.grouped:
            right = "set val: 0.3 in dataset, and write outside: {images: own}"
            what = f"{n:,} images would tear groups of {self.source} apart"
            raise UserError(f"outside.images: {what}; {right}")
        self._refuse_twice("train_test", *(["train_val"] if self._own_validation else []))
        if n >= (every := int(counts.sum())):
            of = f"of the {every:,} training images of {self.source}"
            raise UserError(f"outside.images: {n:,} {of}; leave some for the bases")
        chosen = subsets.subset_counts(counts, n)
        for side, what in ((chosen, "have no image"), (counts - chosen, "leave no image")):
            if not side.all():
                name = self.shape.classes[int(side.argmin())]
                right = "each class needs images on both sides"
                raise UserError(f"outside.images: {n:,} {what} of class {name!r}; {right}")
        return n

    def _check_own_outside(self) -> None:
        """Raises UserError where the dataset's own validation split cannot be kept apart."""
        if self._own_validation:
            right = "write a number for one of them"
            raise UserError(f"outside.images: own is what validation.images: own looks at; {right}")
        if not self.shape.n_val:
            right = "has no validation split of its own; write a number"
            raise UserError(f"outside.images: {self.source} {right}")
        if not all(self.shape.val_counts):
            name = self.shape.classes[self.shape.val_counts.index(0)]
            what = f"the validation split of {self.source} has no image of class {name!r}"
            raise UserError(f"outside.images: {what}; write a number")
        self._refuse_twice("train_val", "val_test")

    def _refuse_twice(self, *pairs: str) -> None:
        """Raises UserError where two splits, which are to be kept apart, have images in common."""
        for pair in pairs:
            if n := self.twice.get(pair, 0):
                one, other = pair.split("_")
                what = f"{n:,} {other} images of {self.source} are in {one} too, pixel by pixel"
                right = "set duplicates: drop in dataset"
                raise UserError(f"outside.images: {what}, and could be on both sides; {right}")

    @cached_property
    def outside(self) -> Outside:
        """The images kept apart. Raises UserError where there are none."""
        wanted = self.spec.outside
        if wanted is None:
            right = "write outside: {images: 600}, or as many as the bases can spare"
            raise UserError(f"trained_on: outside: the grid keeps no images apart; {right}")
        if self.kept_apart:
            return Outside(n=self.kept_apart, held_out=self.held_out)
        return Outside(n=self.shape.n_val, own=True)

    @property
    def but_kept_apart(self) -> str:
        """For messages: how many images no base can have, where there are some."""
        told = [f"{self.kept_apart:,} more are kept apart"] if self.kept_apart else []
        told += [f"{self.held_out:,} more are held out for validation"] if self.held_out else []
        return f" ({', '.join(told)})" if told else ""

    @cached_property
    def _copies(self) -> np.ndarray | int:
        """Of each class that may be trained on, the images that are copies of others."""
        return self._of_seen(self.repeated) if self.repeated else 0

    def _of_seen(self, counts: tuple[int, ...]) -> np.ndarray:
        every = np.asarray(counts)
        return every if self.seen is None else every[list(self.seen)]

    def subset(self, n: int, seed: int) -> Subset:
        """The first n real images in the order of a subset seed.

        The subset of everything is the same for every seed, and so is all that is made from it.
        """
        one_order = not 0 < n < self.n_train
        return Subset(
            n=n,
            subset_seed=None if one_order else seed,
            held_out=self.held_out,
            classes=self.seen,
            kept_apart=self.kept_apart,
        )

    def of_each_class(self, n: int) -> tuple[int, ...]:
        """Real images of each class in the first n, whatever the subset seed."""
        if self.seen is not None:
            raise ValueError("a zero-shot grid has real images of the seen classes alone")
        different = n < self.n_train or self.held_out or self.kept_apart
        found = subsets.subset_counts(self.counts, n) if different else self.shape.train_counts
        return tuple(int(count) for count in found)

    def drawn(self, n: int) -> int:
        """Images from a pool's start that hold n to train on: zero-shot takes those of the unseen
        classes, and a pool may have all classes.
        """
        if self.seen is None or self.unseen_shares:
            return n
        classes = len(self.shape.classes)
        return -(-n // (classes - len(self.seen))) * classes

    def resolved_recipe(
        self, name: str, *, n_base: int, n_total: int, classifier: str, arm: str | None = None
    ) -> ResolvedRecipe:
        """A recipe at a size, in an arm, as a classifier of that name in rows trains. Raises
        UserError.
        """
        sizes = {"n_base": n_base, "n_total": n_total, "n_dataset": self.n_train}
        try:
            found = recipes.resolve(self.recipes[name], **sizes, classifier=classifier, arm=arm)
            found = self.classifier(classifier).settled(found)
        except ValueError as error:
            raise UserError(f"recipe {name}: {error}") from error
        own = f"by_arm.{arm}: " if arm in self.recipes[name].by_arm else ""
        self.check_recipe(classifier, found, f"recipe {name}: {own}".rstrip(": "))
        return found

    def check_recipe(
        self, classifier: str, recipe: ResolvedRecipe, where: str, patch_px: int | None = None
    ) -> None:
        """Raises UserError for a recipe by which a classifier of that name in rows cannot be
        trained on the dataset's images, or on squares of them.
        """
        if self.recorded:
            return
        height, width, channels = self.shape.image
        size = (patch_px or height, patch_px or width, channels, len(self.shape.classes))
        try:
            self.classifier(classifier).check_recipe(recipe, *size)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error

    def stream(self, n_total: int, patch_px: int | None = None) -> Stream | None:
        """How so many images are read where they are too large for a device; None where they are
        not. By sizes alone: it changes the order of images, so it is a part of a trial's id, and no
        device has a say in it.

        patch_px: the side of the square that is kept of each image, where that is not all of it.
        """
        shape = self.shape
        image_bytes = (patch_px**2 if patch_px else shape.height * shape.width) * shape.channels
        if n_total * image_bytes <= RESIDENT_BYTES:
            return None
        return Stream(window=max(1, WINDOW_BYTES // (image_bytes * pools.shard_size(*shape.image))))

    @staticmethod
    def check_streamed(
        recipe: ResolvedRecipe, stream: Stream | None, n_total: int, where: str, other: str
    ) -> None:
        """Raises UserError for a recipe that leaves its normalisation to be measured, or its
        classes to be counted, of images that nobody sees before the training. other: what else
        would do.
        """
        if stream and recipe.class_weights != "none":
            what = f"{n_total:,} images of this size are streamed, and not counted by class"
            raise UserError(f"{where}: class_weights: {what}; leave it out, or {other}")
        if stream and recipe.normalisation is None:
            right = f"give the recipe a normalisation (mean and std), or {other}"
            text = f"{n_total:,} images are streamed, and so are not measured; {right}"
            raise UserError(f"{where}: {text}")

    def where(self, n_base: int) -> str:
        """What stages say after the kind of a job."""
        return f"{self.source}:n{n_base}"
