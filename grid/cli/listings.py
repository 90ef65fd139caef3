"""What comes with equigrid."""

from equigrid.grid.cli import streams
from equigrid.grid.cli.inputs import print_json
from equigrid.grid.cli.options import Json


def presets(as_json: Json = False) -> None:
    """List the presets."""
    from equigrid.grid.spec import PRESETS
    from equigrid.grid.spec import presets as names

    about = {
        name: (PRESETS / f"{name}.yaml")
        .read_text(encoding="utf-8")
        .splitlines()[0]
        .removeprefix("# ")
        for name in names()
    }
    if as_json:
        print_json(about)
    else:
        streams.say("\n".join(f"{name}: {text}" for name, text in about.items()))
