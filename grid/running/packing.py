"""How many trials one device runs at once, chosen from what their memory and their speed were seen
to be.

A small network leaves most of a large device idle, and another trial beside it may cost the first
one little. How little depends on network, images and device, so it is tried: one trial a device,
then two, four and so on, as long as memory has room and the device as a whole gets faster by a
tenth at least.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from statistics import median

from equigrid.grid import jobs

MOST = 8
WORTH = 1.1  # less is within the noise of one measurement
ENOUGH = 3  # trials of one classifier at one packing, to compare with the last
SPARE = 0.9  # of the device's memory
CONTEXT_BYTES = 700 * 2**20  # what a CUDA process holds besides its tensors


@dataclass
class Packing:
    """How many trials to a device. Tell it of every finished trial and of every out-of-memory."""

    per_device: int = 1  # what to use now
    settled: bool = False  # nothing more is tried
    _peak_bytes: int = 0  # the most that a trial took
    _device_bytes: int = 0
    # Images per second of single trials, by classifier and by how many shared their device.
    _speeds: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    _best: dict[str, float] = field(default_factory=dict)  # of a device as a whole, by classifier

    @property
    def share(self) -> float:
        """The part of a device that a trial has."""
        return 1 / self.per_device

    def learn(self, outcome: dict, share: float) -> None:
        """Takes in the outcome of any job that ran on a slot with such a share of a device."""
        if outcome.get("out_of_memory") and share < 1:
            self.out_of_memory()
        if outcome["status"] == jobs.OK and outcome.get("device_bytes"):
            row = outcome["row"]
            self.finished(
                classifier=row["classifier"],
                per_device=round(1 / share),
                images_per_s=row["images_per_s"],
                peak_bytes=row["peak_device_bytes"],
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
    ) -> None:
        """A trial ended that ran with `per_device` to a device: its own speed and peak, and the
        device's memory.
        """
        self._peak_bytes, self._device_bytes = max(self._peak_bytes, peak_bytes), device_bytes
        if per_device > 1 and not self._fits(self.per_device):
            self.per_device, self.settled = max(1, self._room()), True
        if self.settled or per_device != self.per_device:
            return
        speeds = self._speeds[classifier, per_device]
        speeds.append(images_per_s)
        if len(speeds) >= ENOUGH:
            self._judge(classifier, per_device * median(speeds))

    def out_of_memory(self) -> None:
        """Too many for the device after all."""
        self.per_device, self.settled = max(1, self.per_device // 2), True

    def _judge(self, classifier: str, device_speed: float) -> None:
        """The device's images/s at this packing against the packing before."""
        before = self._best.get(classifier)
        if before is not None and device_speed < WORTH * before:
            self.per_device, self.settled = self.per_device // 2, True
            return
        self._best[classifier] = device_speed
        if 2 * self.per_device <= MOST and self._fits(2 * self.per_device):
            self.per_device *= 2
        else:
            self.settled = True

    def _fits(self, per_device: int) -> bool:
        return per_device <= self._room()

    def _room(self) -> int:
        return int(SPARE * self._device_bytes / (self._peak_bytes + CONTEXT_BYTES))
