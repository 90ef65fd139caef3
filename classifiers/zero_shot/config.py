"""What a zero-shot trial is made of beside images, classifier and recipe. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from equigrid.payloads import Frozen

_NO_WORD = re.compile(r"[\d\s._-]*|n\d{8}")  # numbers, and WordNet's ids
ENCODER_FILES = "config.json, a tokenizer and safetensors weights"
_READ = (".json", ".txt", ".model", ".safetensors")


class ZeroShotConfig(Frozen):
    """The class split, the text encoder and the joint space."""

    # fmt: off
    original: ClassVar = (
        "unseen", "text_encoder", "revision", "text_width", "template", "joint", "temperature",
    )
    # fmt: on

    unseen: tuple[int, ...] | tuple[str, ...] = ()
    """Labels or names of the classes without real training images; empty: the second half, as in
    the paper.
    """
    text_encoder: str = "google-bert/bert-base-uncased"
    """A folder with config.json, a tokenizer and safetensors weights, or a hub id. The paper says
    BERT, not which.
    """
    revision: str = "main"
    """Of the encoder, on its hub."""
    text_width: int = Field(768, ge=1)
    """Of the encoder's features: one of another width is refused."""
    template: str = "a photo of a {c}."
    """The text of a class, {c} its name. The paper names none."""
    joint: int = Field(512, ge=1)
    """Dimensions of the space that image and text features are projected onto."""
    temperature: float = Field(0.07, gt=0)
    """At the start, as in CLIP; it is learnt, and kept above 0.01. The paper names none."""
    pools: Literal["all", "unseen"] = "all"
    """The classes of which synthetic images are made: unseen, those that are trained on; or all, as
    before this key was there, of which half are never trained on where half of the classes are
    unseen.
    """

    @field_validator("template")
    @classmethod
    def _template(cls, template: str) -> str:
        try:
            fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
        except ValueError:
            fields = []
        if set(fields) != {"c"}:
            raise ValueError(
                f"template {template!r} must hold {{c}}, the class's name, and no other braces"
            )
        return template

    def unseen_labels(self, class_names: Sequence[str], classes: int) -> tuple[int, ...]:
        """The labels of the unseen classes, rising.

        Of an odd number of classes the first half is the larger. Raises ValueError for a class that
        does not exist, and unless at least two classes are seen and two unseen.
        """
        if not self.unseen:
            labels = list(range(classes - classes // 2, classes))
        else:
            known: dict[int | str, int] = {label: label for label in range(classes)}
            known |= {name: label for label, name in enumerate(class_names)}
            for one in self.unseen:
                if one not in known:
                    raise ValueError(
                        f"unseen: there is no class {one!r}; "
                        f"name labels 0..{classes - 1} or class names"
                    )
            labels = sorted({known[one] for one in self.unseen})
        return check_split(labels, classes)

    def shares(self, class_names: Sequence[str], classes: int) -> tuple[int, ...] | None:
        """The classes' shares of the pools, 1 or 0; None where all have the same. Raises as
        `unseen_labels`.
        """
        if self.pools == "all":
            return None
        unseen = self.unseen_labels(class_names, classes)
        return tuple(int(label in unseen) for label in range(classes))

    def texts(self, class_names: Sequence[str], classes: int) -> tuple[str, ...]:
        """The text of each class. Raises ValueError where names are missing, or are numbers or
        WordNet ids.
        """
        if len(class_names) != classes:
            raise ValueError(
                f"zero-shot needs the names of all {classes} classes, got {len(class_names)}; "
                "give the dataset `class_names`"
            )
        for name in class_names:
            if _NO_WORD.fullmatch(name):
                raise ValueError(
                    f"class name {name!r} says nothing to a text encoder; "
                    "give the dataset `class_names`"
                )
        return tuple(
            self.template.format(c=" ".join(name.replace("_", " ").split())) for name in class_names
        )

    def check(self, class_names: Sequence[str], classes: int) -> None:
        """Raise ValueError, one line, if no such trial can be made of a dataset."""
        self.unseen_labels(class_names, classes)
        self.texts(class_names, classes)
        self._encoder()
        if Path(self.text_encoder).is_dir():
            self._check_folder(Path(self.text_encoder))

    def payload(self, class_names: Sequence[str], classes: int) -> dict:
        """What, beside images, classifier, recipe and seed, determines a trial: JSON, free of
        paths. (`pools` says which images: the pool's id holds it.)
        """
        return {
            "unseen": list(self.unseen_labels(class_names, classes)),
            "texts": list(self.texts(class_names, classes)),
            "text_encoder": self._encoder(),
            "joint": self.joint,
            "temperature": self.temperature,
            "rev": REV,
            **{name: value for name, value in self.added().items() if name != "pools"},
        }

    def _check_folder(self, folder: Path) -> None:
        """What can be told before a trial: whether the files are there, and how wide the features
        are.
        """
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise ValueError(
                f"text_encoder: {str(folder)!r} does not hold {ENCODER_FILES}; place them there"
            )
        width = json.loads((folder / "config.json").read_bytes()).get(
            "hidden_size", self.text_width
        )
        if width != self.text_width:
            raise ValueError(
                f"text_encoder: {str(folder)!r} gives features of width {width}; "
                f"set text_width: {width}"
            )

    def _encoder(self) -> dict:
        """A hub id and its revision, or the SHA-256 of the folder's files."""
        folder = Path(self.text_encoder)
        if not folder.is_dir():
            if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", self.text_encoder):
                raise ValueError(f"text_encoder: there is no folder {self.text_encoder!r}")
            return {"hub": self.text_encoder, "revision": self.revision}
        files = sorted(path for path in folder.iterdir() if path.suffix in _READ)
        return {"sha256": _digest(tuple((str(path), path.stat().st_mtime_ns) for path in files))}


def check_split(unseen: Sequence[int], classes: int) -> tuple[int, ...]:
    """`unseen` itself; ValueError unless these are labels, at least two, and at least two others
    are left.
    """
    if (
        len(set(unseen)) < 2
        or classes - len(set(unseen)) < 2
        or not set(unseen) <= set(range(classes))
    ):
        raise ValueError(
            f"a split needs two seen and two unseen classes of 0..{classes - 1}, "
            f"got unseen {list(unseen)}"
        )
    return tuple(unseen)


@lru_cache(maxsize=16)
def _digest(stamps: tuple[tuple[str, int], ...]) -> str:
    total = hashlib.sha256()
    for path, _ in stamps:
        with open(path, "rb") as file:
            total.update(
                f"{Path(path).name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
            )
    return total.hexdigest()


REV = 1
"""Raised when a change of the code changes results by more than rounding."""
