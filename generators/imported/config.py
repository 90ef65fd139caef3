"""Imported sets of synthetic images: the configuration, frozen, validated where it is built, free
of torch.
"""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from equigrid.generators.base_config import Flops, GeneratorConfig
from equigrid.generators.imported.finding import listing
from equigrid.generators.imported.listing import Listing
from equigrid.generators.imported.order import capacity


class ImportedConfig(GeneratorConfig):
    """A finite pool: images that somebody made, in a persisted order that is balanced over the
    classes.
    """

    original: ClassVar = ("kind", "setting", "path", "split", "image", "label", "rename")

    kind: Literal["imported", "cifake"] = "imported"
    """imported: a folder CLASS/*, or Parquet files in Hugging Face's layout; cifake: Kaggle's tree
    of CIFAKE.
    """
    setting: Literal["open", "closed"] = "open"
    """open: whatever made the images may have seen other data; closed: it saw the base subset
    only.
    """
    path: str
    """A folder, or for Parquet any URI of pyarrow's, such as s3://bucket/folder."""
    split: str | None = None
    """The folder of this name inside `path`, or the Parquet files whose names begin with it; null
    for all there is. For cifake train (null) or test.
    """
    image: str | None = None
    """Parquet: the column of structs with the encoded `bytes`; null for the only one."""
    label: str | None = None
    """Parquet: the column of classes, numbers or names; null for `label`, `labels`, or the only one
    that could be."""
    rename: dict[str, str] = {}
    """From names of classes in the set to the dataset's, where they differ."""
    range: tuple[float, float] | None = None
    """The grey levels that become 0 and 255, as for datasets; null: all that the images can
    hold.
    """
    page: int | None = Field(None, ge=1)
    """Of a stack or an animation, which image is taken, from 1 on; null: the first."""

    test_images: Literal["refuse", "keep"] = "refuse"
    """What becomes of a pool with images that are the dataset's own test (or validation) images,
    pixel by pixel.
    """

    untrained: ClassVar = GeneratorConfig.untrained | {"range", "page", "test_images"}
    brings_images: ClassVar = True

    @field_validator("path")
    @classmethod
    def _path(cls, path: str) -> str:
        if not path:
            raise ValueError("name a folder with the images")
        return path

    @field_validator("range")
    @classmethod
    def _range(cls, levels: tuple[float, float] | None) -> tuple[float, float] | None:
        if levels and not levels[0] < levels[1]:
            raise ValueError("write the lowest and the highest grey level: [0, 4095]")
        return levels

    @model_validator(mode="after")
    def _fits(self) -> "ImportedConfig":
        if self.kind == "cifake" and self.split not in (None, "train", "test"):
            raise ValueError(f"split {self.split!r}: CIFAKE has train and test")
        if self.kind == "cifake" and (self.image or self.label):
            raise ValueError("image and label name columns of Parquet files; CIFAKE is a folder")
        return self

    def listing(self) -> Listing:
        """The set's images by class; ValueError if there is no such set."""
        renamed = tuple(sorted(self.rename.items()))
        return listing(
            self.kind,
            self.path,
            split=self.split,
            image=self.image,
            label=self.label,
            rename=renamed,
        )

    def capacity(
        self, class_names: tuple[str, ...], shares: tuple[int, ...] | None = None
    ) -> int | None:
        """Images in the classes' shares; in equal ones, as many of each as the rarest has. Where
        `balance` is equal, no class has more in pools of other shares.
        """
        every_image = self.balance != "equal"
        return capacity(self.listing(), class_names, shares, every_image=every_image)

    def remarks(self) -> list[str]:
        """Images that are there twice: a pool counts them as different ones."""
        listing = self.listing()
        n = listing.copies()
        if not n:
            return []
        return [
            f"{n:,} of the {len(listing.images):,} images in {listing.root} are another one again, "
            "byte for byte, and count as more synthetic images; remove them"
        ]

    def check_own(
        self,
        height: int,
        width: int,
        channels: int,
        classes: int,
        n_images: int,
        class_names: tuple[str, ...],
    ) -> None:
        names = class_names or tuple(map(str, range(classes)))
        if len(names) != classes:
            raise ValueError(f"{classes} classes have as many names, got {len(names)}")
        self.capacity(names)

    def training_payload(self) -> dict:
        """The images' content, wherever they lie."""
        order = {} if self.balance == "equal" else {"order": "of all"}
        return {"kind": "imported", "content": self.listing().digest(), "rev": ORDER_REV, **order}

    def sampling_payload(self) -> dict:
        """How they are brought to the dataset's size."""
        decoding = self.identity(include=("range", "page"))
        return {"kind": "imported", "rev": DECODING_REV, **decoding}

    def cost_facts(
        self, height: int, width: int, channels: int, classes: int, n_images: int | None
    ) -> dict[str, int]:
        """Nothing is trained or computed."""
        return {}

    def flops(self, height: int, width: int, channels: int, classes: int, n_images: int) -> Flops:
        """Images are read and resized: nothing beside any training."""
        return Flops(0, 0, True)


ORDER_REV = 1
"""Raised when a change of the code changes the order of a pool's images."""
DECODING_REV = 1
"""Raised when a change of the code changes pixels."""
