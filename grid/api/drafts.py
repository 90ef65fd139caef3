"""A first spec for one's own images, as one looks at it."""

from html import escape
from pathlib import Path
from typing import Any

from equigrid.grid.authoring import writing
from equigrid.grid.authoring.proposing import Proposal
from equigrid.grid.spec import GridSpec


class Draft:
    """A proposed spec; made by `equigrid.init`. Printed or shown in a notebook it is the text.

    spec: checked, as `equigrid.plan` and `equigrid.run` take it. mapping: its keys as they are
    written. about: what was found, a line each. text: YAML with a comment at each choice.

    >>> import numpy as np
    >>> import equigrid as eg
    >>> images = np.random.default_rng(0).integers(0, 256, (240, 8, 8, 3), np.uint8)
    >>> labels = np.arange(240) % 4
    >>> np.savez("mine.npz", train_images=images[:200], train_labels=labels[:200],
    ...          test_images=images[200:], test_labels=labels[200:])
    >>> draft = eg.init("mine.npz")
    >>> draft.about[0]
    'mine: 200 training and 40 test images of 4 classes, 8×8 in colour.'
    >>> draft.mapping["blocks"][0]["real"]
    [0.5, 1, 2]
    >>> grid = eg.load(draft.write("mine.yaml"))
    """

    def __init__(self, proposal: Proposal, spec: GridSpec) -> None:
        self.spec = spec
        self.mapping: dict[str, Any] = proposal.spec
        self.about = proposal.about
        self.text = writing.text(proposal)

    def write(self, path: str | Path, *, force: bool = False) -> Path:
        """Writes the text to a `.yaml` file, which is then yours to change; force: also where a
        file is there. Gives the path. Raises UserError.

        >>> import numpy as np
        >>> import equigrid as eg
        >>> np.savez("some.npz", train_images=np.zeros((40, 8, 8), np.uint8),
        ...          train_labels=np.arange(40) % 2, test_images=np.ones((8, 8, 8), np.uint8),
        ...          test_labels=np.arange(8) % 2)
        >>> eg.init("some.npz").write("some.yml", force=True).name
        'some.yml'
        """
        writing.write(Path(path), self.text, force=force, where="path", right="pass force=True")
        return Path(path)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<first spec for {self.about[0]}>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text)}</pre>"
