"""How many synthetic images is one real image worth?

The rooms `grid`, `generators`, `classifiers` and `analysis` stand beside this folder, at the top of
the repository; the links in here make them parts of this one package, so that no other module of
those names is ever taken for them.
"""

__version__ = "0.1.0"
