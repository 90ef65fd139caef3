"""What a plan says beside its table: how the dataset was understood, and what defaults cost."""

from equigrid.generators import registry
from equigrid.grid.planning.resolve import Resolved


def remarks(resolved: Resolved) -> list[str]:
    """A line each."""
    dataset = resolved.dataset
    told = dataset.told if dataset else resolved.source.told
    lines = [f"{resolved.source.name}: {line}" for line in told]
    lines += [f"warning: {line}" for line in (dataset.warnings if dataset else ())]
    lines += _unused_outside(resolved)
    for name, choice in resolved.generators.items():
        if choice.recorded is None:  # else its files may be gone
            lines += [f"warning: generators.{name}: {line}" for line in choice.config.remarks()]
        if cost := _cost_of_defaults(resolved, name):
            lines.append(cost)
    return lines


def _unused_outside(resolved: Resolved) -> list[str]:
    """A line where images are kept apart that no generator is trained on."""
    choices = resolved.generators.values()
    if resolved.spec.outside is None or any(one.config.learns_from_outside for one in choices):
        return []
    return [
        "warning: outside: images are kept apart, and no generator is trained on them; write "
        "trained_on: outside in one of generators"
    ]


def _cost_of_defaults(resolved: Resolved, name: str) -> str | None:
    """What a generator that is trained without a preset takes: the defaults are a paper's, not a
    laptop's.
    """
    entry, shape = resolved.spec.generators[name], resolved.shape
    presets = registry.KINDS[entry["kind"]][1]
    if not shape or not presets or "preset" in entry:
        return None
    config = resolved.generators[name].config
    facts = config.cost_facts(*shape.image, len(shape.classes), shape.n_train)
    if not facts.get("training_nimg"):
        return None
    size = f"{facts['parameters'] / 1e6:,.1f} million parameters"
    images = f"{facts['training_nimg'] / 1e6:,.1f} million images"
    return (
        f"generators.{name}: no preset: by its defaults {size} are trained on {images}, "
        f"for each base size and seed; presets: {', '.join(presets)}"
    )
