"""The queue by worked examples, and over random graphs and events against a second, naive account.

`Account` works every state out anew, by its definition, from what is done, failed and runs; the
queue keeps them up to date step by step. They must agree after every event.
"""

import time
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from equigrid.grid.running.budget import Budget, Cost
from equigrid.grid.running.queue import JobQueue, QueuedJob, State

# A busy machine is no reason to fail.
PATIENT = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
KINDS = ("generator", "shard", "trial", "quality")  # in the order of their ranks


def job(name: str, *needs: str, group: bool = False) -> QueuedJob:
    """`t3` is a trial, `s0` a shard, and so on; whatever needs a shard reads it."""
    rank = next(i for i, kind in enumerate(KINDS) if kind[0] == name[0])
    shards = tuple(need for need in needs if need[0] == "s")
    return QueuedJob(name, KINDS[rank], rank, needs, shards, group)


def queue_of(*jobs: QueuedJob, done: Iterable[str] = (), retries: int = 2) -> JobQueue:
    todo = [job.id for job in jobs if job.id not in done]
    return JobQueue(jobs, todo, retries)


def states(queue: JobQueue, names: str) -> str:
    """The states of some jobs: `done waiting`."""
    return " ".join(queue.state(name).value for name in names.split())


def drain(queue: JobQueue, running: Iterable[str] = ()) -> list[str]:
    """Finishes what runs, then all that is left, one at a time; names these in their order."""
    ran = []
    for name in running:
        queue.finish(name)
    while following := queue.next_for_slot() or queue.next_for_group():
        queue.start(following)
        queue.finish(following)
        ran.append(following)
    return ran


def begin(queue: JobQueue, names: str) -> None:
    for name in names.split():
        queue.start(name)


PIPELINE = (
    job("g0"), job("g1"), job("s0", "g0"), job("s1", "g0"), job("s2", "g1"),
    job("t0"), job("t1", "s0"), job("t2", "s0", "s1"), job("t3", "s2"), job("q0", "s0"),
)  # fmt: skip


def test_jobs_go_by_rank_and_then_in_the_order_of_the_plan():
    queue = queue_of(*PIPELINE)
    assert queue.ready_for_slots == 3
    assert drain(queue) == ["g0", "g1", "s0", "s1", "s2", "t0", "t1", "t2", "t3", "q0"]
    assert queue.is_over


def test_only_what_is_to_be_done_is_done():
    """A shard that is there needs no generator, even where that is not there any more."""
    queue = queue_of(*PIPELINE, done=("g0", "s0", "t0", "t1"))
    assert drain(queue) == ["g1", "s1", "s2", "t2", "t3", "q0"]


def test_a_job_waits_for_all_that_it_needs():
    queue = queue_of(*PIPELINE)
    begin(queue, "g0 g1")
    queue.finish("g0")
    assert states(queue, "s0 s1 s2 t0 t1 t2") == "ready ready waiting ready waiting waiting"
    begin(queue, "s0 s1")
    queue.finish("s0")
    assert states(queue, "t1 t2 q0") == "ready waiting ready"
    queue.finish("s1")
    assert states(queue, "t1 t2 t3") == "ready ready waiting"


def test_worker_groups_have_a_line_of_their_own_in_which_they_come_as_they_got_ready():
    generators = [job(name, group=True) for name in ("g0", "g1", "g2")]
    queue = queue_of(*generators, job("s0", "g0"), job("t0", group=True))
    assert queue.next_for_slot() is None
    begin(queue, "g0")
    queue.lose("g0")  # behind the others now
    for name in ("g1", "g2", "t0", "g0"):
        assert queue.next_for_group() == name
        begin(queue, name)
    assert not queue.is_over
    queue.finish("g0")
    assert queue.next_for_slot() == "s0"
    assert queue.next_for_group() is None


def test_a_failure_blocks_what_needs_it_and_nothing_else():
    queue = queue_of(*PIPELINE)
    begin(queue, "g0")
    queue.fail("g0")
    assert states(queue, "g0 s0 s1 t1 t2 q0") == "failed blocked blocked blocked blocked blocked"
    assert queue.blocked_by("g0") == ["s0", "t1", "t2", "q0", "s1"]
    assert queue.failed() == ["g0"]
    assert (queue.count("trial", State.BLOCKED), queue.left("trial")) == (2, 2)
    assert drain(queue) == ["g1", "s2", "t0", "t3"]
    assert queue.is_over


def test_what_two_failures_block_is_free_only_without_both():
    queue = queue_of(job("s0"), job("s1"), job("t0", "s0", "s1"))
    begin(queue, "s0 s1")
    queue.fail("s1")
    queue.fail("s0")
    assert queue.failed() == ["s1", "s0"]
    queue.remake("s0")
    assert states(queue, "s0 t0") == "ready blocked"
    queue.remake("s1")
    assert queue.failed() == []
    assert drain(queue) == ["s0", "s1", "t0"]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_job_is_tried_again_as_often_as_it_may_be(retries):
    queue = queue_of(job("t0"), retries=retries)
    for _ in range(retries):
        begin(queue, "t0")
        queue.retry("t0")
        assert queue.state("t0") is State.READY
    begin(queue, "t0")
    queue.retry("t0")
    assert queue.state("t0") is State.FAILED


def test_a_lost_machine_and_a_slot_that_went_use_up_no_try():
    queue = queue_of(job("t0"), retries=0)
    for _ in range(5):
        begin(queue, "t0")
        queue.lose("t0")
        begin(queue, "t0")
        queue.give_back("t0")
    begin(queue, "t0")
    queue.retry("t0")
    assert queue.state("t0") is State.FAILED


def test_a_loss_is_charged_once_its_machine_turns_out_to_live_on():
    """What runs by then goes on; the next loss is one too many."""
    queue = queue_of(job("t0"), retries=0)
    begin(queue, "t0")
    queue.lose("t0")
    begin(queue, "t0")
    queue.charge("t0")
    assert queue.state("t0") is State.RUNNING
    queue.give_back("t0")
    assert queue.state("t0") is State.READY
    begin(queue, "t0")
    queue.lose("t0")
    assert queue.state("t0") is State.FAILED


def test_a_shard_that_is_wrong_is_made_again_and_what_reads_it_waits():
    queue = queue_of(*PIPELINE, done=("g0", "g1", "s0", "s1", "s2"))
    begin(queue, "t1 t0")
    queue.remake("s0")
    queue.retry("t1")
    assert states(queue, "s0 t0 t1 t2 t3 q0") == "ready running waiting waiting ready waiting"
    assert drain(queue, ["t0"]) == ["s0", "t1", "t2", "t3", "q0"]


def test_what_is_not_there_either_is_made_first():
    """The generator of a shard that has to be made again was removed, when nothing needed it."""
    queue = queue_of(*PIPELINE, done=("g0", "g1", "s0", "s1", "s2"))
    begin(queue, "t1")
    queue.remake("s0")
    queue.remake("g0")
    queue.retry("t1")
    assert states(queue, "g0 s0 s1 t1 t2 t3") == "ready waiting done waiting waiting ready"
    assert drain(queue) == ["g0", "s0", "t0", "t1", "t2", "t3", "q0"]


def test_what_was_no_work_comes_last_of_its_kind_once_it_is():
    queue = queue_of(*PIPELINE, done=("g0", "s0"))
    queue.remake("s0")
    assert drain(queue)[:4] == ["g1", "s1", "s2", "s0"]


def test_a_job_whose_input_is_made_again_goes_on_and_its_output_counts():
    queue = queue_of(job("s0"), job("t0", "s0"), done=("s0",))
    begin(queue, "t0")
    queue.remake("s0")
    queue.finish("t0")
    assert drain(queue) == ["s0"]
    assert states(queue, "s0 t0") == "done done"


def test_several_that_find_the_same_shard_wrong_have_it_made_once():
    queue = queue_of(job("s0"), *(job(f"t{i}", "s0") for i in range(3)), done=("s0",))
    begin(queue, "t0 t1 t2")
    assert not queue.is_old_news("t0", "s0")
    queue.remake("s0")
    queue.retry("t0")
    assert not queue.is_old_news("t1", "s0")  # it is still to be made: nothing to do
    queue.remake("s0")
    queue.retry("t1")
    begin(queue, "s0")
    queue.finish("s0")
    assert queue.is_old_news("t2", "s0")
    queue.retry("t2")
    assert states(queue, "s0 t0 t1 t2") == "done ready ready ready"
    begin(queue, "t2")
    assert not queue.is_old_news("t2", "s0")  # wrong again: it saw the new one


def test_a_shard_that_cannot_be_made_again_blocks_those_that_come_back_later_too():
    queue = queue_of(job("s0"), job("t0", "s0"), job("t1", "s0"), job("t2"), done=("s0",))
    begin(queue, "t0 t1")
    queue.remake("s0")
    queue.retry("t0")
    begin(queue, "s0")
    queue.fail("s0")
    assert queue.blocked_by("s0") == ["t0"]
    queue.lose("t1")
    assert queue.blocked_by("s0") == ["t0", "t1"]
    assert drain(queue) == ["t2"]


def test_a_shards_readers_are_counted_until_the_last_is_through():
    queue = queue_of(*PIPELINE, done=("g0", "g1", "s0", "s1"))
    assert [queue.readers_left(f"s{i}") for i in range(3)] == [3, 1, 1]
    begin(queue, "t1 t2")
    queue.finish("t1")
    queue.lose("t2")
    assert queue.readers_left("s0") == 2
    begin(queue, "t2 q0")
    queue.fail("t2")
    assert [queue.readers_left(f"s{i}") for i in range(3)] == [1, 0, 1]
    queue.finish("q0")
    assert queue.readers_left("s0") == 0


def test_what_is_blocked_reads_no_shard_until_it_is_free_again():
    queue = queue_of(job("s0"), job("s1"), job("t0", "s0", "s1"), done=("s0",))
    begin(queue, "s1")
    queue.fail("s1")
    assert queue.readers_left("s0") == 0
    queue.remake("s1")
    assert queue.readers_left("s0") == 1


def test_events_that_cannot_be_are_refused():
    queue = queue_of(job("s0"), job("t0", "s0"))
    for event in (queue.finish, queue.fail, queue.retry, queue.lose, queue.give_back):
        with pytest.raises(AssertionError, match="job s0 is ready, not running"):
            event("s0")
    with pytest.raises(AssertionError, match="job t0 is waiting, not ready"):
        queue.start("t0")
    with pytest.raises(KeyError):
        queue.start("t1")


def test_a_graph_that_is_none_is_refused():
    with pytest.raises(ValueError, match="t0 needs s0, which does not come before it"):
        queue_of(job("t0", "s0"), job("s0"))
    with pytest.raises(ValueError, match="t0 needs t0"):
        queue_of(job("t0", "t0"))
    with pytest.raises(ValueError, match="s0 is there twice"):
        queue_of(job("s0"), job("s0"))


def test_a_need_that_is_named_twice_is_one():
    queue = queue_of(job("s0"), job("t0", "s0", "s0"))
    assert drain(queue) == ["s0", "t0"]


def test_ten_thousand_trials_of_one_shard_take_no_time():
    """One event makes all of them ready, or waiting: no more work than going through them."""
    trials = [job(f"t{i}", "s0") for i in range(10_000)]
    began_s = time.process_time()  # whatever else the machine does
    queue = queue_of(job("s0"), *trials)
    for _ in range(3):
        begin(queue, "s0")
        queue.finish("s0")
        assert queue.ready_for_slots == 10_000
        queue.remake("s0")
        assert queue.ready_for_slots == 1
    assert len(drain(queue)) == 10_001
    assert time.process_time() - began_s < 5  # 0.3 s


# Random graphs, random events ---------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn, most: int = 12) -> tuple[list[QueuedJob], list[str]]:
    """Jobs, each of which needs some of those before it, and which of them are to be done."""
    jobs: list[QueuedJob] = []
    for i in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(KINDS))
        before = [job.id for job in jobs]
        needs = draw(st.lists(st.sampled_from(before), max_size=3)) if before else []
        jobs.append(job(f"{kind[0]}{i}", *needs, group=draw(st.sampled_from([False, False, True]))))
    done = draw(st.sets(st.sampled_from([job.id for job in jobs]), max_size=most // 2))
    return jobs, [job.id for job in jobs if job.id not in done]


class Account:
    """What every state is, by definition, from the few facts that the events are."""

    def __init__(self, jobs: list[QueuedJob], todo: list[str], retries: int) -> None:
        self.jobs = {job.id: job for job in jobs}
        self.retries = retries
        self.done = {job.id for job in jobs} - set(todo)
        self.failed: list[str] = []
        self.running: set[str] = set()
        self.tries = dict.fromkeys(self.jobs, 0)
        self.places = {job_id: i for i, job_id in enumerate(todo)}

    def is_blocked(self, job_id: str) -> bool:
        return self._is_idle(job_id) and any(
            need in self.failed or self.is_blocked(need) for need in self.jobs[job_id].needs
        )

    def _is_idle(self, job_id: str) -> bool:
        return job_id not in self.done | self.running | set(self.failed)

    def state(self, job_id: str) -> State:
        if not self._is_idle(job_id):
            known = {State.DONE: self.done, State.RUNNING: self.running}
            return next((state for state, ids in known.items() if job_id in ids), State.FAILED)
        if self.is_blocked(job_id):
            return State.BLOCKED
        needs = set(self.jobs[job_id].needs)
        return State.READY if needs <= self.done else State.WAITING

    def in_state(self, *wanted: State) -> list[str]:
        return [job_id for job_id in self.jobs if self.state(job_id) in wanted]

    def come_back(self, job_id: str) -> None:
        self.running.remove(job_id)
        if self.tries[job_id] > self.retries:
            self.failed.append(job_id)


class Events(RuleBasedStateMachine):
    """Any order of the events that are possible; queue and account must agree after each."""

    @initialize(graph=graphs(), retries=st.integers(0, 2))
    def build(self, graph: tuple[list[QueuedJob], list[str]], retries: int) -> None:
        self.queue = JobQueue(*graph, retries)
        self.account = Account(*graph, retries)
        self.waves: list[set[str]] = []  # ready groups, those of one event together

    def running(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.account.running)))

    def is_any_running(self) -> bool:
        return bool(self.account.running)

    @precondition(lambda self: self.queue.next_for_slot())
    @rule()
    def start_on_a_slot(self) -> None:
        job_id = self.queue.next_for_slot()
        self.queue.start(job_id)
        self.account.running.add(job_id)

    @precondition(lambda self: self.queue.next_for_group())
    @rule()
    def start_a_group(self) -> None:
        job_id = self.queue.next_for_group()
        self.queue.start(job_id)
        self.account.running.add(job_id)

    @precondition(is_any_running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        job_id = self.running(data)
        self.queue.finish(job_id)
        self.account.running.remove(job_id)
        self.account.done.add(job_id)

    @precondition(is_any_running)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        job_id = self.running(data)
        self.queue.fail(job_id)
        self.account.running.remove(job_id)
        self.account.failed.append(job_id)

    @precondition(is_any_running)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job_id = self.running(data)
        self.queue.retry(job_id)
        self.account.tries[job_id] += 1
        self.account.come_back(job_id)

    @precondition(is_any_running)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        job_id = self.running(data)
        self.queue.lose(job_id)
        self.account.come_back(job_id)

    @precondition(is_any_running)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        job_id = self.running(data)
        self.queue.give_back(job_id)
        self.account.running.remove(job_id)

    @rule(data=st.data())
    def remake(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.account.jobs)))
        self.queue.remake(job_id)
        if job_id in self.account.done | set(self.account.failed):
            self.account.places.setdefault(job_id, len(self.account.places))
        self.account.done.discard(job_id)
        self.account.failed = [other for other in self.account.failed if other != job_id]

    @rule(data=st.data())
    def charge(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.account.jobs)))
        self.queue.charge(job_id)
        self.account.tries[job_id] += 1

    @invariant()
    def every_state_is_what_it_is_by_definition(self) -> None:
        for job_id in self.account.jobs:
            assert self.queue.state(job_id) is self.account.state(job_id), job_id

    @invariant()
    def the_counts_are_those_of_the_states(self) -> None:
        for kind in KINDS:
            of_kind = [
                self.queue.state(i) for i, job in self.account.jobs.items() if job.kind == kind
            ]
            for state in State:
                assert self.queue.count(kind, state) == of_kind.count(state)
        assert self.queue.failed() == self.account.failed

    @invariant()
    def the_next_is_the_first_of_those_that_are_ready(self) -> None:
        jobs, places = self.account.jobs, self.account.places
        ready = [i for i in self.account.in_state(State.READY) if not jobs[i].group]
        first = min(ready, key=lambda i: (jobs[i].rank, places[i]), default=None)
        assert self.queue.next_for_slot() == first
        assert self.queue.ready_for_slots == len(ready)

    @invariant()
    def groups_come_as_they_got_ready(self) -> None:
        ready = {i for i in self.account.in_state(State.READY) if self.account.jobs[i].group}
        known = [wave & ready for wave in self.waves]
        self.waves = [wave for wave in (*known, ready.difference(*known)) if wave]
        following = self.queue.next_for_group()
        assert following in self.waves[0] if self.waves else following is None

    @invariant()
    def readers_are_those_that_may_yet_read(self) -> None:
        left = self.account.in_state(State.WAITING, State.READY, State.RUNNING)
        for shard_id in self.account.jobs:
            readers = [i for i in left if shard_id in self.account.jobs[i].shards]
            assert self.queue.readers_left(shard_id) == len(readers)

    @invariant()
    def blocked_is_what_a_failure_reaches(self) -> None:
        reached = {i for job_id in self.account.failed for i in self.queue.blocked_by(job_id)}
        assert reached == set(self.account.in_state(State.BLOCKED))

    @invariant()
    def it_is_over_only_with_nothing_left(self) -> None:
        left = self.account.in_state(State.WAITING, State.READY, State.RUNNING)
        assert self.queue.is_over == (not left)

    def teardown(self) -> None:
        """Whatever happened before: undisturbed, what is left is done, and the run ends."""
        if not hasattr(self, "queue"):
            return
        hopeless = set(self.account.in_state(State.FAILED, State.BLOCKED))
        running = sorted(self.account.running)
        after = drain(self.queue, running)
        assert len(after) == len(set(after))
        for job_id in self.account.jobs:
            state = self.queue.state(job_id)
            assert state in (State.DONE, State.FAILED, State.BLOCKED)
            assert state is State.DONE or job_id in hopeless
        assert self.queue.is_over


def test_any_order_of_events_leaves_each_job_where_it_belongs():
    run_state_machine_as_test(
        Events, settings=settings(max_examples=150, stateful_step_count=40, **PATIENT)
    )


# A driver in small --------------------------------------------------------------------------------

ROUND_S = 0.25
MISHAPS = ("fail", "retry", "lose", "give_back", "remake")


class Driver:
    """The driver's loop without Ray: some slots, one group at a time, a clock that only it moves.

    mishaps: what becomes of the jobs that end, in that order; once they are used up, all succeed.
    """

    def __init__(
        self, queue: JobQueue, jobs: list[QueuedJob], slots: int, limit_s: float, mishaps: list[str]
    ) -> None:
        self.queue, self.slots, self.mishaps = queue, slots, list(mishaps)
        self.jobs = {job.id: job for job in jobs}
        self.now = 0.0
        self.budget = Budget(limit_s, clock=lambda: self.now)
        self.ends_s: dict[str, float] = {}  # of what runs
        self.sent: list[str] = []
        self.finished: list[str] = []
        self.asked_again: list[str] = []

    def run(self) -> None:
        while not self.queue.is_over and not self._must_end():
            self._send()
            self.now += ROUND_S
            self._settle()

    def _must_end(self) -> bool:
        self.budget.count(self.slots)
        following = self.queue.next_for_slot() or self.queue.next_for_group()
        return self.budget.is_reached(following and self.cost(following), ROUND_S)

    def cost(self, job_id: str) -> Cost:
        return Cost(1, 1 + len(job_id) % 3 / 2)

    def _send(self) -> None:
        groups = [job_id for job_id in self.ends_s if self.jobs[job_id].group]
        if not groups:
            self._send_one(self.queue.next_for_group())
        while len(self.ends_s) < self.slots and self._send_one(self.queue.next_for_slot()):
            pass

    def _send_one(self, job_id: str | None) -> bool:
        if job_id is None or not self.budget.affords(cost := self.cost(job_id)):
            return False
        self.queue.start(job_id)
        assert job_id not in self.ends_s, f"{job_id} runs twice at once"
        self.budget.begin(job_id, cost)
        self.ends_s[job_id] = self.now + (cost.seconds or 0)
        self.sent.append(job_id)
        return True

    def _settle(self) -> None:
        for job_id in [job_id for job_id, end_s in self.ends_s.items() if end_s <= self.now]:
            del self.ends_s[job_id]
            self.budget.end(job_id)
            self._end(job_id, self.mishaps.pop(0) if self.mishaps else "finish")

    def _end(self, job_id: str, how: str) -> None:
        shards = self.jobs[job_id].shards
        if how == "remake" and shards:
            if not self.queue.is_old_news(job_id, shards[0]):
                self.queue.remake(shards[0])
                self.asked_again.append(shards[0])
            self.queue.retry(job_id)
        elif how in ("remake", "finish"):
            self.queue.finish(job_id)
            self.finished.append(job_id)
        else:
            getattr(self.queue, how)(job_id)


@given(
    graph=graphs(most=20),
    slots=st.integers(1, 4),
    retries=st.integers(0, 2),
    limit_s=st.floats(0, 60),
    mishaps=st.lists(st.sampled_from(MISHAPS), max_size=15),
)
@settings(max_examples=200, **PATIENT)
def test_a_run_ends_with_all_done_that_could_be_done_and_afforded(
    graph, slots, retries, limit_s, mishaps
):
    jobs, todo = graph
    queue = JobQueue(jobs, todo, retries)
    driver = Driver(queue, jobs, slots, limit_s, mishaps)
    driver.run()
    assert driver.budget.used_s <= limit_s
    made = Counter(driver.finished)
    for job_id, times in made.items():
        assert times <= (job_id in todo) + driver.asked_again.count(job_id)
    assert set(driver.sent) <= {*todo, *driver.asked_again}
    if queue.is_over:  # nothing is lost: what is not done has a failure to show for it
        failed = queue.failed()
        explained = {*failed, *(i for job_id in failed for i in queue.blocked_by(job_id))}
        assert {i for i in driver.jobs if queue.state(i) is not State.DONE} == explained
        assert {*todo, *driver.asked_again} <= made.keys() | explained
    else:  # what is left could not have been done
        following = queue.next_for_slot() or queue.next_for_group()
        starved = following and not driver.budget.affords(driver.cost(following))
        assert starved or driver.budget.used_s + slots * ROUND_S >= limit_s


@given(graph=graphs(most=20), slots=st.integers(1, 4))
@settings(max_examples=50, **PATIENT)
def test_an_undisturbed_run_does_each_job_once(graph, slots):
    jobs, todo = graph
    driver = Driver(JobQueue(jobs, todo, retries=0), jobs, slots, 1e9, [])
    driver.run()
    assert sorted(driver.finished) == sorted(todo)
