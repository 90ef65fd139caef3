"""What of a pool's quality is measured, and with which networks: free of torch."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from equigrid.generators.common.digests import sha256
from equigrid.generators.quality.names import INCEPTION, VIT
from equigrid.payloads import Frozen

LEAST_SIDE = 28
"""Networks of ImageNet are not asked, unless told to, about images that are smaller than this, or
grey.
"""


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

    @field_validator("inception", "vit")
    @classmethod
    def _is_there(cls, value: str) -> str:
        if value not in ("auto", "off") and not Path(value).is_file():
            raise ValueError(f"{value!r} is no file of weights; write auto, off or the path of one")
        return value

    def networks(self, height: int, width: int, channels: int) -> dict[str, bool | str]:
        """Options of `measure.load_networks` for such images: True for a download, a path, or False
        for none.
        """
        sensible = min(height, width) >= LEAST_SIDE and channels == 3
        chosen: dict[str, bool | str] = {"auto": sensible, "off": False}
        return {
            name: chosen.get(value, value)
            for name, value in (("inception", self.inception), ("vit", self.vit))
        }

    def payload(self, height: int, width: int, channels: int) -> dict:
        """What determines a row beside the images and the classifier: networks by name, files by
        SHA-256.
        """
        names = {"inception": INCEPTION, "vit": VIT}
        identities: dict[str, dict[str, str] | str | None] = {}
        for name, wanted in self.networks(height, width, channels).items():
            if isinstance(wanted, str):
                identities[name] = {"sha256": sha256(wanted, name)}
            else:
                identities[name] = names[name] if wanted else None
        return {
            **identities,
            "features": self.features,
            "neighbours": self.neighbours,
            "rev": QUALITY_REV,
            **self.added(),
        }


QUALITY_REV = 1
"""Raised when a change of the code changes a measure."""
