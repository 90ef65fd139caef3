"""What one more training, and one more generator, will likely take."""

from statistics import median

import numpy as np
import pandas as pd

from equigrid.analysis.answer.next_trials import Costs
from equigrid.grid.jobs import generator
from equigrid.grid.planning.graph import Plan
from equigrid.grid.reporting import estimate
from equigrid.grid.store import Store


def costs(store: Store, plan: Plan, table: pd.DataFrame) -> Costs:
    """Device-seconds of one more training, by its images, and of one more generator; equal costs
    where nothing is known. table: the plan's results.
    """
    done = table[(table["status"] == "ok") & table["seconds"].notna()]
    if done.empty:
        return Costs()
    images, seconds = done["n_total"].to_numpy(float), done["seconds"].to_numpy(float)
    per_image = 0.0
    if np.ptp(images) > 0:
        per_image = max(0.0, float(np.polyfit(images, seconds, 1)[0]))
    trial = max(float(np.median(seconds - per_image * images)), 0.0)
    expected = estimate.expected(store, plan)
    known = [s for job in plan.of_kind(generator.KIND.name) if (s := expected(job)) is not None]
    return Costs(
        trial=trial or 1e-3, per_image=per_image, generator=median(known) if known else 0.0
    )
