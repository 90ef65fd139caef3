"""How many trials one device runs at once, chosen from what their memory and their speed were seen
to be.

A small network leaves most of a large device idle, and another trial beside it may cost the first
one little. There are two ways to put one there: trials of one mix as branches of one request, which
share the images and a CUDA graph, and other processes. How little each costs depends on network,
images and device, so it is tried: first one branch, then two, four and so on up to what most mixes
have; then one process, two, four of so many branches; each as long as memory has room and the
device as a whole gets faster by a tenth at least.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from equigrid.grid import jobs

MOST = 8  # branches of a process, and processes of a device
WORTH = 1.1  # less is within the noise of one measurement
ENOUGH = 3  # requests of one classifier at one packing, to compare with the last
SPARE = 0.9  # of the device's memory
CONTEXT_BYTES = 700 * 2**20  # what a CUDA process holds besides its tensors


@dataclass
class Packing:
    """How many trials to a device. Tell it of every finished trial and of every out-of-memory.

    most_branches: that are tried. shares: whether several processes may share a device.
    """

    most_branches: int = 1
    shares: bool = True
    per_device: int = 1  # processes: what to use now
    branches: int = 1  # trials of a process: what to use now
    settled: bool = False  # nothing more is tried
    exact: bool = False  # so many branches were asked for: no fewer where devices idle
    _before: int = 0  # branches, before they were tried as now; 0 once they are settled
    _peak_bytes: int = 0  # the most that a trial took
    _device_bytes: int = 0
    # Images per second of single requests, by classifier, branches and processes of the device.
    _speeds: dict[tuple[str, int, int], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _best: dict[str, float] = field(default_factory=dict)  # of a device as a whole, by classifier

    def __post_init__(self) -> None:
        self._before = self.branches if self.branches < self.most_branches else 0

    @classmethod
    def of(
        cls,
        together: int | Literal["auto"],
        *,
        on_gpus: bool,
        shares: bool,
        mixes: Iterable[Hashable | None],
    ) -> "Packing":
        """By what a spec asks for. mixes: of each trial that is to run, what it has in common with
        those that it may share a request with.
        """
        if together != "auto":
            return cls(branches=together, shares=shares, settled=not shares, exact=True)
        most = min(MOST, usual_number(mixes)) if on_gpus else 1
        return cls(most_branches=most, shares=shares, settled=not shares and most == 1)

    @property
    def share(self) -> float:
        """The part of a device that a process has."""
        return 1 / self.per_device

    def learn(self, outcome: dict, share: float) -> None:
        """Takes in the outcome of any job that ran on a slot with such a share of a device."""
        together = outcome.get("together", 1)
        if outcome.get("out_of_memory"):
            self.out_of_memory(branches=together, per_device=round(1 / share) if share else 1)
        if outcome["status"] == jobs.OK and outcome.get("device_bytes"):
            row = outcome["row"]
            self.finished(
                classifier=row["classifier"],
                per_device=round(1 / share),
                branches=together,
                images_per_s=row["images_per_s"],
                peak_bytes=outcome["reserved_bytes"],
                device_bytes=outcome["device_bytes"],
            )

    def finished(
        self,
        *,
        classifier: str,
        per_device: int,
        images_per_s: float,
        peak_bytes: int,
        device_bytes: int,
        branches: int = 1,
    ) -> None:
        """A trial ended that ran as one of so many `branches`, with `per_device` processes to a
        device: the speed of all branches, the peak of what their process reserved, and the device's
        memory.
        """
        # The images lie there once, so this is too much for a branch of many: on the safe side.
        self._peak_bytes = max(self._peak_bytes, peak_bytes // branches)
        self._device_bytes = device_bytes
        if per_device > 1 and not self._fits(self.branches, self.per_device):
            self.per_device, self.settled = max(1, self._room(self.branches)), True
        if self.settled or (branches, per_device) != (self.branches, self.per_device):
            return
        speeds = self._speeds[classifier, branches, per_device]
        speeds.append(images_per_s)
        if len(speeds) >= ENOUGH * branches:
            self._judge(classifier, per_device * median(speeds))

    def out_of_memory(self, *, branches: int, per_device: int) -> None:
        """Too many for the device after all. (Each of the branches says so.)"""
        if branches > 1:
            self.branches, self._before = min(self.branches, branches // 2), 0
        elif per_device > 1:
            self.per_device, self.settled = max(1, self.per_device // 2), True

    def _judge(self, classifier: str, device_speed: float) -> None:
        """The device's images/s at this packing against the packing before."""
        best = self._best.get(classifier)
        if best is None or device_speed >= WORTH * best:
            self._best[classifier] = device_speed
            self._more()
        elif self._before:
            self.branches, self._before = self._before, 0
            self._more()
        else:
            self.per_device, self.settled = max(1, self.per_device // 2), True

    def _more(self) -> None:
        """Another branch or process, where there is one to try; nothing is left else."""
        branches = min(2 * self.branches, self.most_branches)
        if self._before and branches > self.branches and self._fits(branches, 1):
            self._before, self.branches = self.branches, branches
            return
        self._before = 0
        processes = 2 * self.per_device
        if self.shares and processes <= MOST and self._fits(self.branches, processes):
            self.per_device = processes
        else:
            self.settled = True

    def _fits(self, branches: int, per_device: int) -> bool:
        return per_device <= self._room(branches)

    def _room(self, branches: int) -> int:
        """The processes of so many branches that the device has memory for."""
        one = branches * self._peak_bytes + CONTEXT_BYTES
        return int(SPARE * self._device_bytes / one)


def usual_number(mixes: Iterable[Hashable | None]) -> int:
    """How many trials share the mix of a typical trial, itself among them; 1 if there is none."""
    every = list(mixes)
    counts = Counter(mix for mix in every if mix is not None)
    return int(median([counts.get(mix, 1) for mix in every] or [1]))
