"""What of a pool's quality is measured, and with which networks: free of torch."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from equigrid.generators.common import weights
from equigrid.generators.common.digests import sha256
from equigrid.generators.quality.names import CLASSIFIER, DINOV2, DINOV2_SIZE, INCEPTION, VIT
from equigrid.payloads import Frozen

LEAST_SIDE = 28
"""Networks of ImageNet are not asked, unless told to, about images that are smaller than this, or
grey.
"""

Metric = Literal["fd", "kid", "precision", "recall", "density", "coverage", "copying"]
METRICS: tuple[Metric, ...] = get_args(Metric)
_OF_METRICS = ("metrics", "extractor", "extractor_weights", "extractor_size")
LEAST_IMAGES = 20
"""Of a pool, and of the real images, for `metrics`: an interval needs groups of images."""


class QualityConfig(Frozen):
    """What is measured of a pool; FID and distances are against the whole training set, as in the
    paper.
    """

    original: ClassVar = ("images", "inception", "vit", "features", "neighbours")

    images: int | None = Field(None, ge=10, le=10**8)
    """Of a pool, from its start; null for as many as the grid takes from it. FID falls with their
    number.
    """
    inception: str = "auto"
    """For FID and Inception Score: auto (pytorch-fid's download, for colour images from 28 pixels
    up), off, or the path of pytorch-fid's file.
    """
    vit: str = "auto"
    """For diversity: auto (timm's download, where Inception's is), off, or the path of a state
    dict.
    """
    features: bool = True
    """The same distances on the features of the grid's own classifier."""
    neighbours: int = Field(500, ge=0)
    """Samples whose nearest training images are looked for; 0 for none."""
    metrics: tuple[Metric, ...] = ()
    """Of the pool in the features of `extractor`, each with an interval: any of fd (Fréchet
    distance), kid, precision, recall, density, coverage, copying; or all.
    """
    extractor: str = "auto"
    """The network whose features `metrics` are of: auto (dinov2 where Inception is asked, else
    classifier), dinov2 (ViT-L/14, 224 pixels), inception, classifier (the grid's own), a name of
    timm's, or hf-hub:OWNER/NAME.
    """
    extractor_weights: str | None = None
    """The path of a state dict of timm's model that `extractor` names; null for its download."""
    extractor_size: int | None = Field(None, ge=8, le=4096)
    """Pixels a side that images are resized to for it; null for the network's own, 224 for
    dinov2.
    """

    @field_validator("metrics", mode="before")
    @classmethod
    def _all_of_them(cls, value: Any) -> Any:
        return METRICS if value == "all" else value

    @field_validator("metrics")
    @classmethod
    def _in_one_order(cls, value: tuple[Metric, ...]) -> tuple[Metric, ...]:
        return tuple(name for name in METRICS if name in value)

    @field_validator("extractor")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value or value != value.strip():
            raise ValueError(f"{value!r} names no network: write auto, dinov2, or a name of timm's")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        own = ("extractor_weights", "extractor_size")
        if self.extractor == CLASSIFIER or self.extractor == "inception":
            for name in own:
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for a network of timm's, not {self.extractor}")
        if self.extractor == "inception" and self.inception == "off" and self.metrics:
            raise ValueError("extractor: inception is asked for, and inception: off turns it off")
        return self

    def check_files(self) -> None:
        """Raise ValueError for files that are not there, or no weights. Not where a configuration
        is built: a grid's results outlive the files that it was measured with.
        """
        for name in ("inception", "vit", "extractor_weights"):
            path = getattr(self, name)
            if path in (None, "auto", "off"):
                continue
            if not Path(path).is_file():
                usual = "null" if name == "extractor_weights" else "auto, off"
                right = f"write {usual}, or the path of one"
                raise ValueError(f"{name}: {path!r} is no file of weights; {right}")
            weights.check_file(path, name)

    def check_extractor(self, height: int, width: int, channels: int) -> None:
        """Raise ValueError for an extractor that timm has not, or has no weights of. Imports timm,
        and torch with it, where it is one of timm's that is not usual.
        """
        extractor = self.extracted_by(height, width, channels)
        if extractor is None or extractor in ("dinov2", "inception", CLASSIFIER):
            return
        from equigrid.generators.quality.extractors import check_known

        check_known(extractor, self.extractor_weights)

    def extracted_by(self, height: int, width: int, channels: int) -> str | None:
        """The network whose features such images' `metrics` are of; None where there are none."""
        if not self.metrics:
            return None
        if self.extractor != "auto":
            return self.extractor
        named = self.extractor_weights is not None
        return "dinov2" if named or self._sensible(height, width, channels) else CLASSIFIER

    @staticmethod
    def _sensible(height: int, width: int, channels: int) -> bool:
        return min(height, width) >= LEAST_SIDE and channels == 3

    def networks(self, height: int, width: int, channels: int) -> dict[str, bool | str]:
        """Options of `measure.load_networks` for such images: True for a download, a path, or False
        for none.
        """
        chosen: dict[str, bool | str] = {
            "auto": self._sensible(height, width, channels), "off": False,
        }  # fmt: skip
        found = {
            name: chosen.get(value, value)
            for name, value in (("inception", self.inception), ("vit", self.vit))
        }
        if self.extracted_by(height, width, channels) == "inception":
            found["inception"] = found["inception"] or True
        if self.metrics and self.extractor_weights:
            found["extractor_weights"] = self.extractor_weights
        return found

    def payload(self, height: int, width: int, channels: int) -> dict:
        """What determines a row beside the images and the classifier: networks by name, files by
        SHA-256.
        """
        names = {"inception": INCEPTION, "vit": VIT}
        identities: dict[str, dict[str, str] | str | None] = {}
        networks = self.networks(height, width, channels)
        for name in ("inception", "vit"):
            wanted = networks[name]
            if isinstance(wanted, str):
                identities[name] = {"sha256": sha256(wanted, name)}
            else:
                identities[name] = names[name] if wanted else None
        return {
            **identities,
            "features": self.features,
            "neighbours": self.neighbours,
            "rev": QUALITY_REV,
            **{name: value for name, value in self.added().items() if name not in _OF_METRICS},
            **self._comparison(height, width, channels),
        }

    def _comparison(self, height: int, width: int, channels: int) -> dict:
        """What `metrics` add to a payload: nothing where none is asked for."""
        extractor = self.extracted_by(height, width, channels)
        if extractor is None:
            return {}
        found: dict[str, Any] = {"name": extractor}
        if extractor not in (CLASSIFIER, "inception"):
            found["name"] = DINOV2 if extractor == "dinov2" else extractor
            size = DINOV2_SIZE if found["name"] == DINOV2 else None
            found["size"] = self.extractor_size or size
            if self.extractor_weights:
                found["sha256"] = sha256(self.extractor_weights, "extractor_weights")
        return {"metrics": list(self.metrics), "extractor": found, "metrics_rev": METRICS_REV}


QUALITY_REV = 1
"""Raised when a change of the code changes a measure."""
METRICS_REV = 1
"""The same for those of `metrics`, which older rows do not have."""
