"""From a configuration to the code that trains and samples its kind of generator, imported when it is needed."""

from importlib import import_module

MODULES = {"edm": ("generators.edm.training", "generators.edm.sampling")}
"""For each kind, the modules with `train` and with `sample`."""


def train(images, labels, config, **options) -> dict:
    """The kind's `train`: weights by name. See `generators.edm.training.train` for the contract."""
    return import_module(MODULES[config.kind][0]).train(images, labels, config, **options)


def sample(weights, config, **options):
    """The kind's `sample`: images (n, H, W, C) uint8 and labels (n,) int64. See `generators.edm.sampling.sample`."""
    return import_module(MODULES[config.kind][1]).sample(weights, config, **options)
