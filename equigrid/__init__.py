"""How many synthetic images is one real image worth?

    import equigrid as eg

    grid = eg.load("digits")          # a preset, a YAML file or a mapping
    eg.plan(grid)                     # what would run, what is done, what it would take
    run = eg.run(grid)                # the same call resumes
    run.results()                     # a DataFrame; eg.COLUMNS says what each column means
    eg.tune(grid)                     # a recipe for your own data, on validation images
    run.answer(n_base=60, n_real=60, generator="open")
    run.report()                      # figures and report.html
    eg.fit(dataframe)                 # results made elsewhere

docs/python.md has all of it. Names are imported at their first use: `import equigrid` itself loads
neither pandas nor torch nor Ray.

The rooms `grid`, `generators`, `classifiers` and `analysis` stand beside this folder, at the top of
the repository; the links in here make them parts of this one package, so that no other module of
those names is ever taken for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equigrid.analysis.answer.asking import Question
    from equigrid.analysis.schema import DESCRIPTIONS as COLUMNS
    from equigrid.analysis.settings import Settings
    from equigrid.grid.api.drafts import Draft
    from equigrid.grid.api.fits import Answer, Fit
    from equigrid.grid.api.images import PoolImages
    from equigrid.grid.api.plans import GridPlan, NextSteps
    from equigrid.grid.api.runs import Run
    from equigrid.grid.api.tuning import Search, tune
    from equigrid.grid.api.verbs import (
        equiv,
        fit,
        init,
        load,
        next_steps,
        open_run,
        plan,
        presets,
        report,
        results,
        run,
    )
    from equigrid.grid.errors import ClusterError, StoreError, UnavailableError, UserError
    from equigrid.grid.spec import GridSpec

__version__ = "0.1.0"

__all__ = [
    "COLUMNS", "Answer", "ClusterError", "Draft", "Fit", "GridPlan", "GridSpec", "NextSteps",
    "PoolImages", "Question", "Run", "Search", "Settings", "StoreError", "UnavailableError",
    "UserError", "__version__", "equiv", "fit", "init", "load", "next_steps", "open_run", "plan",
    "presets", "report", "results", "run", "tune",
]  # fmt: skip

_PLACES = {
    "equigrid.analysis.answer.asking": ("Question",),
    "equigrid.analysis.settings": ("Settings",),
    "equigrid.grid.api.drafts": ("Draft",),
    "equigrid.grid.api.fits": ("Answer", "Fit"),
    "equigrid.grid.api.images": ("PoolImages",),
    "equigrid.grid.api.plans": ("GridPlan", "NextSteps"),
    "equigrid.grid.api.runs": ("Run",),
    "equigrid.grid.api.tuning": ("Search", "tune"),
    "equigrid.grid.api.verbs": (
        "equiv", "fit", "init", "load", "next_steps", "open_run", "plan", "presets", "report",
        "results", "run",
    ),
    "equigrid.grid.errors": ("ClusterError", "StoreError", "UnavailableError", "UserError"),
    "equigrid.grid.spec": ("GridSpec",),
}  # fmt: skip
_LAZY = {name: (place, name) for place, names in _PLACES.items() for name in names}
_LAZY["COLUMNS"] = ("equigrid.analysis.schema", "DESCRIPTIONS")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place, own = _LAZY[name]
    found = getattr(import_module(place), own)
    globals()[name] = found  # the next time it is found at once
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
