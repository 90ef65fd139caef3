"""A generator of the user's own: the configuration, frozen, validated where it is built. It reads
the module's files and runs none of them.
"""

import json
import re
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from equigrid.generators.base_config import GeneratorConfig
from equigrid.generators.python.source import Source, find

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class PythonConfig(GeneratorConfig):
    """A module of your own: anything with `sample(label, seed)`; docs/own-generator.md says how."""

    original: ClassVar = (
        "kind", "setting", "path", "module", "version", "code", "training", "sampling", "batch",
    )  # fmt: skip

    kind: Literal["python"] = "python"
    setting: Literal["closed", "open", "adapted"]
    """closed: it learns from the base subset alone, in `train`; open: it may know other images;
    adapted: both.
    """
    path: str | None = None
    """The folder that the module's name counts from; null for where Python looks for modules. In a
    spec's file the default is the file's folder. No part of an id.
    """
    module: str
    """Its dotted name, such as `my.generator` for my/generator.py."""
    version: str | None = None
    """Yours: it stands in ids in place of the module's files; raise it when images change. Null:
    any change of the files makes new ids.
    """
    code: str | None = Field(None, validate_default=True)
    """SHA-256 of the module's files; worked out where it is not given. A machine that has other
    files refuses the work.
    """
    training: dict[str, Any] = {}
    """What `train` is given beside the images, by name."""
    sampling: dict[str, Any] = {}
    """What `load`, or else `sample`, is given, by name."""
    batch: int = Field(64, ge=1)
    """Images of a call to `sample_batch`. No part of an id."""

    @field_validator("module")
    @classmethod
    def _exists(cls, module: str, info: ValidationInfo) -> str:
        if not _DOTTED.fullmatch(module):
            raise ValueError("write a module's dotted name, such as my.generator")
        if "path" in info.data:
            find(module, info.data["path"])
        return module

    @field_validator("code")
    @classmethod
    def _is_that_of_the_files(cls, code: str | None, info: ValidationInfo) -> str | None:
        given = info.data
        if {"module", "path", "version"} - given.keys():  # one of them is wrong, which is told
            return code
        if given["version"] is not None:
            return None
        found = find(given["module"], given["path"])
        if code not in (None, found.digest()):
            raise ValueError(
                f"{found.file} here, or what it imports, is not what the grid was planned with; "
                "bring the same files to every machine, and leave them while a grid runs"
            )
        return found.digest()

    @field_validator("training", "sampling")
    @classmethod
    def _plain(cls, options: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(options, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"write numbers, text, lists and mappings: {error}") from error
        return options

    @model_validator(mode="after")
    def _has_its_functions(self) -> "PythonConfig":
        names = self.source().names
        if names is None:  # a star import: only running it will tell
            return self
        trains, loads = "train" in names, "load" in names
        if trains and not loads:
            raise ValueError(
                f"module {self.module} has train and no load(folder), which gives back what train "
                "wrote, with sample(label, seed)"
            )
        if not loads and not names & {"sample", "sample_batch"}:
            raise ValueError(
                f"module {self.module} has neither sample(label, seed) nor "
                "sample_batch(labels, seeds) nor load(folder)"
            )
        if self.learns_from_base and not trains:
            raise ValueError(
                f"setting {self.setting}: module {self.module} has no train(images, labels, "
                "folder, seed), so it cannot learn from the base; write setting: open"
            )
        return self

    def source(self) -> Source:
        """The module's files; ValueError if they are not there."""
        return find(self.module, self.path)

    def check_own(
        self,
        height: int,
        width: int,
        channels: int,
        classes: int,
        n_images: int,
        class_names: tuple[str, ...],
    ) -> None:
        """The shape that the module makes is known when it makes it."""

    def training_payload(self) -> dict:
        """The module's name, its version or its files, and what `train` is given."""
        return {
            "kind": "python", "module": self.module, "version": self.version, "code": self.code,
            "training": self.training, "rev": REV,
        }  # fmt: skip

    def sampling_payload(self) -> dict:
        """What `load` or `sample` is given."""
        return {"kind": "python", "sampling": self.sampling, "rev": REV}

    def cost_facts(
        self, height: int, width: int, channels: int, classes: int, n_images: int | None
    ) -> dict[str, int]:
        """Nothing is known of it but the seconds that it took."""
        return {}


REV = 1
"""Raised when a change of the code changes the seeds that the module is given."""
