"""What a plan would do and take, as plain values: for the terminal, for JSON, for a notebook."""

import os
from collections.abc import Iterable
from typing import Any

from equigrid.grid.jobs.kinds import on_slots
from equigrid.grid.planning.graph import Plan
from equigrid.grid.planning.remarks import remarks
from equigrid.grid.reporting import devices, estimate
from equigrid.grid.spec import GridSpec
from equigrid.grid.store import Store


def outline(
    store: Store, the_plan: Plan, device: devices.Device | None = None
) -> tuple[dict[str, Any], list[estimate.Line]]:
    """What `equigrid plan --json` prints, and its lines, one for each kind of job.

    device: on which what never ran is estimated; None: the paper's card, or a core where the spec
    says that there is no GPU. Seconds and money are None where nothing is known; `wall_seconds` are
    on this machine's slots, None where a part is estimated for another device.
    """
    spec = the_plan.resolved.spec
    if device is None:
        device = devices.DEVICES[devices.PAPERS if spec.execution.gpus else devices.CPU]
    lines = estimate.lines(store, the_plan, device)
    timed = [line for line in lines if line.kind in on_slots()]
    slots, gpus = _slots_here(spec)
    content: dict[str, Any] = {
        "grid": spec.name, "dataset": the_plan.resolved.source.name,
        "fingerprint": the_plan.resolved.fingerprint, "cells": len(the_plan.cells), "slots": slots,
        "gpus": spec.execution.gpus, "kinds": [line.__dict__ for line in lines],
        "device_seconds": _sum(line.seconds for line in timed),
        "device_seconds_least": _sum(line.seconds_least for line in timed),
        "device_seconds_most": _sum(line.seconds_most for line in timed),
        "device": device.name,
        "bytes": _sum(line.bytes for line in lines), "currency": spec.currency,
        "money": _sum(line.money for line in timed),
        "remarks": remarks(the_plan), "cell_list": [cell._asdict() for cell in the_plan.cells],
    }  # fmt: skip
    seconds = content["device_seconds"]
    here = not {estimate.PUBLISHED, estimate.ESTIMATED} & {b for line in timed for b in line.basis}
    content["wall_seconds"] = seconds / (slots * (gpus or 1)) if seconds and here else None
    content["gpu_hours"] = seconds and seconds / 3600 * bool(gpus)
    return content, lines


def _slots_here(spec: GridSpec) -> tuple[int, float]:
    """Slots of a local run on this machine (or the spec's own number), and GPUs per slot if they
    were GPUs.
    """
    execution = spec.execution
    slots = execution.slots or max(1, int((os.cpu_count() or 1) / execution.cpus))
    return slots, estimate.gpus_of_a_slot(execution)


def _sum(values: Iterable[float | None]) -> float | None:
    """None where there are none, or where one of them is not known."""
    known = list(values)
    return sum(v for v in known if v is not None) if known and None not in known else None
