"""The trackers that a spec may name, and the places they take."""

from collections.abc import Mapping
from urllib.parse import urlsplit

# What pip calls them.
TRACKER_PACKAGES = {
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "mlflow": "mlflow-skinny",
    "wandb": "wandb",
}


def validate_trackers(places: Mapping[str, str]) -> None:
    """Raises ValueError for a tracker there is not, one without a place, and a place with a
    password in it.
    """
    for name, place in places.items():
        if name not in TRACKER_PACKAGES:
            raise ValueError(f"no {name!r}; there are {', '.join(TRACKER_PACKAGES)}")
        if not place:
            raise ValueError(f"{name}: where to? A folder, a tracking URI or a project")
        if name == "tensorboard" and "://" in place:
            raise ValueError(
                f"tensorboard: a folder of the driver's machine is needed, got {place}"
            )
        if urlsplit(place).password is not None:  # not shown: specs and messages are kept
            raise ValueError(
                f"{name}: no passwords in a spec; the package's environment variables take them"
            )
