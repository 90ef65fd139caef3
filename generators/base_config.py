"""What the configurations of all kinds of generators share: frozen parts, and the methods that each
kind has.
"""

import difflib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from equigrid.generators import balance
from equigrid.generators.naming import normal
from equigrid.payloads import Frozen


def _below_one(betas: tuple[float, float]) -> tuple[float, float]:
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"{list(betas)}: both lie in [0, 1)")
    return betas


Betas = Annotated[tuple[float, float], AfterValidator(_below_one)]
"""Of Adam's moments."""
Precision = Literal["auto", "fp32", "bf16", "fp16"]


def _checked_balance(value: object) -> object:
    if isinstance(value, dict):
        named = {normal(str(name)): share for name, share in value.items()}
        if not all(type(share) in (int, float) for share in named.values()):
            raise ValueError("write a number for each class, its share of the images")
        balance.reduced(list(named.values()))
        return named
    if value not in ("equal", "as_data"):
        raise ValueError("write equal, as_data, or a mapping from each class to its share")
    return value


Balance = Annotated[
    Literal["equal", "as_data"] | dict[str, int | float], BeforeValidator(_checked_balance)
]
"""The classes' shares of a pool's labels."""


class Compute(Frozen):
    """How, not what, is computed: changes results by rounding alone and never enters an id."""

    training_precision: Precision = "auto"
    """Of matrix products and convolutions; auto is bf16 on a CUDA device, fp32 on a CPU."""
    sampling_precision: Precision = "auto"
    """auto is fp16 on a CUDA device, fp32 on a CPU.  Never that of the sampler's state, which is
    float64.
    """
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto is on for CUDA devices, in long trainings and in sampling from large
    networks.
    """
    microbatch: int | None = Field(None, ge=1)
    """Most images of a training step that a device takes at once; null for its whole part of the
    batch. Halved by itself when memory does not suffice.
    """


class Flops(NamedTuple):
    """Floating-point operations, a multiplication and an addition counted as two: of the whole
    training, and of an image of a pool. wide: whether the networks have hundreds of channels, as
    devices like them; those of a few dozen are slower per operation.
    """

    training: float
    per_image: float
    wide: bool


TRAINING_PASSES = 3
"""A training step in forward passes: the backward pass is twice one."""


class GeneratorConfig(Frozen):
    """A generator as a spec names it.  A kind that lacks one of these methods cannot be made."""

    kind: str
    """Each kind's own name, a literal."""
    setting: Literal["closed", "open", "adapted"]
    """closed if it learns from the base subset alone, open if it may know other images, adapted if
    it knows other images and learns from the base subset too (open weights, closed images).
    """
    balance: Balance = "equal"
    """The classes' shares of the synthetic images: equal (the paper's), as_data (as in the training
    set, and so as in added real images), or a mapping from each class to a number, 0 for none.
    """

    untrained: ClassVar[frozenset[str]] = frozenset(("balance",))
    """Later fields that say nothing of what `train` returns."""
    brings_images: ClassVar[bool] = False
    """Whether its images are files of somebody's, which may be the dataset's own."""

    @property
    def learns_from_outside(self) -> bool:
        """Whether it is trained on images that are kept apart from every base."""
        return False

    @property
    def learns_from_base(self) -> bool:
        """Whether each base, under each subset seed, has a generator of its own."""
        return self.setting != "open"

    @property
    def varies_base(self) -> bool:
        """Whether an image of a pool is made from one of the base, which sampling then reads."""
        return False

    def shares(self, class_names: Sequence[str], counts: Sequence[int]) -> tuple[int, ...] | None:
        """The classes' shares of a pool's labels as whole numbers, None for equal ones. counts: the
        training set's images of each class. Raises ValueError for classes of the mapping that the
        dataset has not, or lacks.
        """
        if self.balance == "equal":
            return None
        if self.balance == "as_data":
            return balance.reduced([int(n) for n in counts])
        for name in self.balance:
            if name not in class_names:
                near = difflib.get_close_matches(name, class_names, n=1)
                some = ", ".join(class_names[:5]) + (", …" if len(class_names) > 5 else "")
                right = f"did you mean {near[0]!r}?" if near else f"it has {some}"
                raise ValueError(f"balance: {name!r} is no class of the dataset; {right}")
        if missing := [name for name in class_names if name not in self.balance]:
            right = "name each class, with 0 for one without synthetic images"
            raise ValueError(f"balance: class {missing[0]!r} has no share; {right}")
        return balance.reduced([self.balance[name] for name in class_names])

    def capacity(
        self, class_names: tuple[str, ...], shares: tuple[int, ...] | None = None
    ) -> int | None:
        """How many images a pool of these shares can have; None: as many as are asked for."""
        return None

    def check(
        self,
        height: int,
        width: int,
        channels: int,
        classes: int,
        n_images: int,
        class_names: tuple[str, ...] = (),
    ) -> None:
        """Raise ValueError, one line, if this generator cannot be made for such a dataset, n_images
        of it its base.
        """
        if channels not in (1, 3):
            raise ValueError(f"images have 1 or 3 channels, got {channels}")
        if classes < 1:
            raise ValueError(f"classes must be at least 1, got {classes}")
        if isinstance(self.balance, dict) and class_names:
            self.shares(class_names, ())
        self.check_own(height, width, channels, classes, n_images, class_names)

    def for_a_look(self) -> "GeneratorConfig":
        """As it is sampled in mid-training, from a state's "average"."""
        return self

    def fp16(self) -> str | None:
        """The key of a setting that only a CUDA device can compute; None where there is none."""
        compute = getattr(self, "compute", None)
        found = (name for name, value in compute or () if value == "fp16")
        return next((f"compute.{name}" for name in found), None)

    def batches(self) -> dict[str, int]:
        """Images per step, by key, of trainings that a worker group divides among its members."""
        return {}

    def remarks(self) -> list[str]:
        """What whoever plans with this should know, a line each."""
        return []

    @abstractmethod
    def check_own(
        self,
        height: int,
        width: int,
        channels: int,
        classes: int,
        n_images: int,
        class_names: tuple[str, ...],
    ) -> None:
        """What `check` asks of this kind beside channels and classes."""

    @abstractmethod
    def cost_facts(
        self, height: int, width: int, channels: int, classes: int, n_images: int | None
    ) -> dict[str, int]:
        """What costs follow from, for tables of costs, without torch: the size of the network,
        training and sampling.

        parameters; training_batch, training_steps, training_nimg of a base of n_images (None: of
        sampling alone); sampling_batch, sampler_steps, evaluations_per_image (of the network).
        What a kind does not have is left out.
        """

    def flops(
        self, height: int, width: int, channels: int, classes: int, n_images: int
    ) -> Flops | None:
        """What training on n_images and sampling compute, counted without torch; None where that is
        not known.
        """
        return None

    def trained_identity(self) -> dict:
        """What of the configuration enters the generator's id: `training_payload`, and every field
        that the kind has gained since, so that none is forgotten there, but those `untrained`.
        """
        gained = {k: v for k, v in self.added().items() if k not in self.untrained}
        return {**self.training_payload(), **gained}

    @abstractmethod
    def training_payload(self) -> dict:
        """What, beside the images and the seed, determines what `train` returns: for the
        generator's id.

        Files of weights by their SHA-256, never by their path.
        """

    @abstractmethod
    def sampling_payload(self) -> dict:
        """What, beside that and the seed, determines the pool: how images are sampled, but not how
        many at once.
        """


class TrainedConfig(GeneratorConfig):
    """A generator that is trained here, on one of two sets of real images, or has weights from
    files.
    """

    trained_on: Literal["base", "outside"] = "base"
    """base: the real images of each base, a training for each; outside: those that the grid's
    `outside` keeps apart, one training for all bases, and `setting` is open.
    """

    @model_validator(mode="before")
    @classmethod
    def _open_from_outside(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("trained_on") == "outside":
            return {"setting": "open", **given}
        return given

    @model_validator(mode="after")
    def _trained_on_fits(self) -> "TrainedConfig":
        if not self.learns_from_outside:
            return self
        if self.setting == "closed":
            raise ValueError(
                "trained_on 'outside' is of other images than the base: its setting is open; "
                "leave setting out"
            )
        if weights := getattr(self, "weights", None):
            raise ValueError(
                f"trained_on 'outside' and weights {weights!r} exclude each other: with weights "
                "from files nothing is trained"
            )
        return self

    @property
    def learns_from_outside(self) -> bool:
        return self.trained_on == "outside"
