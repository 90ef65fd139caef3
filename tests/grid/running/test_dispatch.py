"""What is sent off next and where to, with slots and attempts that are only counted."""

from collections import Counter

import pytest

from equigrid.grid.running.budget import Budget, Cost
from equigrid.grid.running.dispatch import Dispatcher, queue_of
from equigrid.grid.running.packing import Packing


class Pool:
    """Slots that are up at once, as many as are asked for and fit."""

    def __init__(self, capacity: int = 2, gpus: float = 1.0) -> None:
        self.capacity, self.gpus, self.limit = capacity, gpus, None
        self.slots: dict[int, list[str]] = {}  # kinds of the jobs that each has

    def resize(self, wanted: int) -> None:
        most = self.capacity if self.limit is None else min(self.limit, self.capacity)
        idle = [slot for slot, kinds in self.slots.items() if not kinds]
        for slot in idle[: max(0, len(self.slots) - most)]:
            del self.slots[slot]
        while len(self.slots) < min(wanted, most):
            self.slots[max(self.slots, default=0) + 1] = []


class Attempts:
    """What was sent, and ends when the test says so."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.of_group = None
        self.sent: list[tuple[str, float]] = []  # kind, GPUs of a worker
        self.requests: list[list] = []  # payloads of the jobs that share one
        self.alone: set[str] = set()

    @property
    def on_slots(self) -> int:
        return sum(map(len, self.pool.slots.values()))

    def free_slot(self, depth: int) -> int | None:
        fit = {s: len(k) for s, k in self.pool.slots.items() if set(k) <= {"trial"}}
        slot = min(fit, key=fit.get, default=None)
        return slot if slot is not None and fit[slot] < depth else None

    def send_to_slot(self, alike, slot: int, *, gpus: float) -> None:
        self.pool.slots[slot].append(alike[0].kind)
        self.sent.append((alike[0].kind, gpus))
        self.requests.append([job.payload for job in alike])

    def send_to_group(self, job, *, workers: int, gpus: float) -> None:
        self.of_group = job
        self.sent.append((f"{job.kind} × {workers}", gpus))

    def end(self) -> None:
        """All that runs has ended."""
        self.of_group = None
        for kinds in self.pool.slots.values():
            kinds.clear()


class Outputs:
    """Everything is there, but for what is `gone`."""

    def __init__(self) -> None:
        self.gone: str | None = None
        self.remade: list[str] = []

    def absent(self, job) -> str | None:
        return self.gone if self.gone in job.needs else None

    def remake(self, job_id: str) -> None:
        self.queue.remake(job_id)
        self.remade.append(job_id)
        self.gone = None


class Setting:
    """A dispatcher of a plan, nothing of which is done, and what it works with."""

    def __init__(self, the_plan, pool: Pool, packing=None, limit_s: float | None = None) -> None:
        todo = [job for job in the_plan.jobs.values() if job.kind != "ingest"]
        self.pool, self.attempts, self.outputs = pool, Attempts(pool), Outputs()
        self.queue = self.outputs.queue = queue_of(the_plan, todo)
        self.budget = Budget(limit_s, clock=lambda: 0.0)
        self.dispatcher = Dispatcher(
            the_plan, self.queue, self.budget, self.outputs, self.attempts,
            packing or Packing(shares=False),
        )  # fmt: skip
        self.running: list = []

    def send(self) -> Counter[str]:
        """How many of each kind were sent now."""
        sent = list(self.dispatcher.send())
        self.running += sent
        return Counter(job.kind for job in sent)

    def finish(self) -> None:
        for job in self.running:
            self.queue.finish(job.id)
            self.budget.end(job.id)
        self.attempts.end()
        self.running = []

    def round(self) -> Counter[str]:
        sent = self.send()
        self.finish()
        return sent


@pytest.fixture
def plan_of(mini, planned):
    """A plan of the small grid with some changes."""

    def make(execution=None, **changes):
        mini.update(changes)
        mini["execution"] = {"gpus": 0, **(execution or {})}
        return planned(mini)[1]

    return make


def test_what_comes_first_goes_first_and_trials_fill_the_second_place_of_each_slot(plan_of):
    setting = Setting(plan_of(), Pool(capacity=3))
    assert setting.send() == {"generator": 2, "trial": 2}  # a third slot: two trials behind another
    assert sorted(map(len, setting.pool.slots.values())) == [1, 1, 2]
    setting.finish()
    assert setting.send() == {"shard": 2, "trial": 2}


def test_at_the_end_trials_spread_over_the_slots(plan_of):
    """A trial behind another would wait while a slot idles."""
    setting = Setting(plan_of(blocks=[{"n_base": [60], "real": [1]}], seeds=[0, 1]), Pool(4))
    assert setting.send() == {"trial": 4}
    assert sorted(map(len, setting.pool.slots.values())) == [1, 1, 1, 1]


def test_a_worker_group_waits_for_its_slots_to_go_and_runs_alone_of_its_kind(plan_of):
    the_plan = plan_of(execution={"workers": {"generator": 2}})
    setting = Setting(the_plan, Pool(capacity=3))
    setting.pool.resize(3)
    setting.attempts.send_to_slot([next(the_plan.of_kind("trial"))], 1, gpus=0)
    setting.attempts.send_to_slot([next(the_plan.of_kind("trial"))], 2, gpus=0)
    setting.send()
    assert setting.attempts.of_group is None
    assert setting.pool.limit == 1
    setting.attempts.end()
    setting.send()  # the slots go in this round …
    assert setting.send()["generator"] == 1  # … and leave room in the next
    assert setting.attempts.of_group.kind == "generator"
    assert setting.send()["generator"] == 0
    setting.finish()
    assert setting.send()["generator"] == 1
    setting.finish()
    setting.send()
    assert setting.pool.limit is None


def test_each_worker_of_a_group_has_a_device_for_itself(plan_of):
    setting = Setting(
        plan_of(execution={"gpus": 0.5, "workers": {"generator": 2}}), Pool(capacity=4, gpus=0.5)
    )
    setting.send()
    assert setting.attempts.sent[0] == ("generator × 2", 1)
    assert {gpus for kind, gpus in setting.attempts.sent[1:]} == {0.5}


def test_trials_share_devices_once_they_are_alone_and_what_follows_has_a_whole_one(plan_of):
    the_plan = plan_of(
        execution={"gpus": "auto"},
        quality={"inception": "off", "vit": "off", "neighbours": False},
        blocks=[{"n_base": [60], "syn": {"edm": [1]}}],
        seeds=list(range(6)),
    )
    packing = Packing(per_device=4, settled=True)
    setting = Setting(the_plan, Pool(capacity=2), packing)
    while not setting.queue.is_over:
        setting.round()
    shares: dict[str, set[float]] = {}
    for kind, gpus in setting.attempts.sent:
        shares.setdefault(kind, set()).add(gpus)
    assert shares == {
        "generator": {1.0}, "shard": {1.0}, "reference": {1.0}, "trial": {0.25, 1.0}, "quality": {1.0},
    }  # fmt: skip
    kinds = [kind for kind, _ in setting.attempts.sent]
    assert kinds.index("quality") > max(i for i, kind in enumerate(kinds) if kind == "trial")


def test_what_cannot_be_afforded_is_not_sent(plan_of):
    setting = Setting(plan_of(), Pool(capacity=2), limit_s=25)
    setting.dispatcher.expected_s = lambda job: 20.0 if job.kind == "generator" else 1.0
    assert setting.dispatcher.next_cost().seconds == 20
    assert setting.send() == {"generator": 1}
    assert setting.send() == {}
    setting.finish()
    assert setting.send() == {"generator": 1, "shard": 1}  # 21 of 25 seconds


def test_a_job_whose_input_is_gone_waits_until_that_is_made_again(plan_of):
    the_plan = plan_of(blocks=[{"n_base": [60], "base": False, "syn": {"edm": [1]}}], seeds=[0])
    setting = Setting(the_plan, Pool())
    assert setting.round() == {"generator": 1}
    assert setting.round() == {"shard": 1}
    (shard,) = the_plan.of_kind("shard")
    setting.outputs.gone = shard.id
    assert setting.round() == {"shard": 1}
    assert setting.outputs.remade == [shard.id]
    assert setting.round()["trial"] >= 1


def seeds_of(requests: list[list]) -> list[list[int]]:
    return [[payload.seed for payload in request] for request in requests]


@pytest.fixture
def trials_of_two_mixes(plan_of):
    """Base 60 and 60 + 60 real images, five seeds each; nothing comes before them."""
    return plan_of(blocks=[{"n_base": [60], "real": [1]}], seeds=[0, 1, 2, 3, 4])


def test_trials_of_one_mix_share_a_request_and_others_do_not(trials_of_two_mixes):
    setting = Setting(trials_of_two_mixes, Pool(1), Packing(branches=3, shares=False, exact=True))
    while not setting.queue.is_over:
        setting.round()
    assert sorted(seeds_of(setting.attempts.requests)) == [[0, 1, 2], [0, 1, 2], [3, 4], [3, 4]]
    for request in setting.attempts.requests:
        assert len({payload.real.n for payload in request}) == 1


def test_a_measured_number_is_only_as_large_as_leaves_every_slot_some(trials_of_two_mixes):
    packing = Packing(branches=4, shares=False, settled=True)
    setting = Setting(trials_of_two_mixes, Pool(4, gpus=1.0), packing)
    assert setting.send() == {"trial": 6}
    # Two by two as long as each of four slots may have two, then one by one.
    assert [len(request) for request in setting.attempts.requests] == [2, 2, 1, 1]
    alone = Setting(trials_of_two_mixes, Pool(10, gpus=1.0), packing)
    assert alone.send() == {"trial": 10}
    assert {len(request) for request in alone.attempts.requests} == {1}


def test_what_was_lost_together_goes_on_alone(trials_of_two_mixes):
    setting = Setting(trials_of_two_mixes, Pool(1), Packing(branches=5, shares=False, exact=True))
    ids = [job.id for job in trials_of_two_mixes.of_kind("trial") if job.payload.real.n == 60]
    setting.attempts.alone.update(ids[:2])
    while not setting.queue.is_over:
        setting.round()
    assert sorted(map(len, setting.attempts.requests)) == [1, 1, 3, 5]


def test_the_budget_counts_a_shared_request_as_its_trials_one_after_another(trials_of_two_mixes):
    """A trial's expected seconds are its share of a request's: three of 10 s hold the slot 30 s."""
    setting = Setting(
        trials_of_two_mixes, Pool(1), Packing(branches=5, shares=False, exact=True), limit_s=35
    )
    setting.dispatcher.expected_s = lambda job: 10.0
    assert setting.send() == {"trial": 3}  # five would take 50 s
    assert not setting.budget.affords(Cost(1, 5.1))
    assert setting.budget.affords(Cost(1, 4.9))
    setting.finish()
    assert setting.budget.affords(Cost(1, 35))
