"""What a plan is said to take: device-seconds and money by the finished jobs that are like those
left.
"""

from datetime import UTC, datetime

import pytest

from equigrid.grid.jobs import shard
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.reporting import estimate
from equigrid.grid.reporting.devices import DEVICES, device
from equigrid.grid.spec import load
from equigrid.grid.store import layout, results


def line(store, the_plan, kind: str, device: str | None = None) -> estimate.Line:
    chosen = DEVICES[device] if device else None
    return next(line for line in estimate.lines(store, the_plan, chosen) if line.kind == kind)


def trained(
    store, job, seconds: float, *, world_size: int = 1, device: str = "A100", values: int = 10
) -> None:
    facts = {"train_seconds": seconds, "world_size": world_size, "device": device, "values": values}
    store.put_json(layout.GENERATORS.manifest(job.id), facts)


def sampled(
    store,
    pool_id: str,
    index: int,
    seconds: float,
    *,
    device: str = "A100",
    peak: int | None = None,
) -> None:
    facts = {
        "seconds": seconds,
        "seconds_per_image": seconds / 256,
        "peak_device_bytes": peak,
        "device": device,
        "cost": {"sampler_steps": 4},
    }
    store.put_json(layout.POOLS.manifest(layout.POOLS.job_id(pool_id, index)), facts)


def tried(
    store,
    trial_id: str,
    fingerprint: str,
    seconds_per_step: float,
    *,
    device: str = "A100",
    world_size: int = 1,
    classifier: str = "digits-cnn",
) -> None:
    """A row of a trial of 15 steps that is in no plan."""
    labels = dict.fromkeys(("grid", "dataset", "recipe"), "x")
    sizes = dict.fromkeys(
        (
            "n_total",
            "n_base",
            "n_nominal",
            "n_real_added",
            "n_syn",
            "n_copies",
            "subset_seed",
            "seed",
            "rev",
        ),
        1,
    )
    now = datetime.now(UTC)
    results.write_part(store, {
        **labels, **sizes, "trial_id": trial_id, "attempt": "a", "status": "ok", "arm": "base", "fingerprint": fingerprint,
        "classifier": classifier, "steps": 15, "seconds": 15 * seconds_per_step, "device": device, "world_size": world_size,
        "confusion": [1], "started_at": now, "finished_at": now,
    })  # fmt: skip


def unseen(mini: dict, **execution) -> tuple[estimate.Line, estimate.Line]:
    """The lines of generators and trials where nothing is finished and one of each takes 100 s, at
    36 an hour.
    """
    mini |= {
        "expected_seconds": {"generator": 100, "trial": 100},
        "prices": {"default": 36.0},
        "execution": execution,
    }
    the_plan = plan(resolve(load(mini), None))
    return line(None, the_plan, "generator"), line(None, the_plan, "trial")


@pytest.mark.parametrize(
    ("execution", "of_generator", "of_trial"),
    [({"gpus": 0}, 1, 1), ({}, 1, 1), ({"gpus": 0.5}, 0.5, 0.5), ({"workers": {"generator": 4}}, 4, 1),
     ({"gpus": 0.5, "workers": {"generator": 4}}, 4, 0.5)],
)  # fmt: skip
def test_devices_are_counted_once_and_money_as_seconds(mini, execution, of_generator, of_trial):
    """A CPU's slot counts as one device, a worker has one for itself, a slot may have half."""
    generators, trials = unseen(mini, **execution)
    assert (generators.seconds, trials.seconds) == (2 * 100 * of_generator, 18 * 100 * of_trial)
    assert (generators.money, trials.money) == (generators.seconds / 100, trials.seconds / 100)


def test_a_groups_seconds_are_its_devices_seconds(planned, mini):
    """50 s on four devices are 200 s of one, and whoever has two workers waits for 100 s."""
    mini["execution"] = {"workers": {"generator": 2}}
    store, the_plan = planned(mini)
    first, second = the_plan.of_kind("generator")
    trained(store, first, 50, world_size=4)
    assert line(store, the_plan, "generator").seconds == 200
    assert estimate.expected(store, the_plan)(second) == 100


def test_an_imported_set_does_not_make_others_free(planned, mini, tmp_path):
    for label in range(10):
        (tmp_path / "made" / str(label)).mkdir(parents=True)
        (tmp_path / "made" / str(label) / "a.png").write_bytes(b"")
    mini["generators"]["made"] = {"kind": "imported", "path": str(tmp_path / "made")}
    mini["blocks"] = [{"n_base": 60, "syn": {"edm": [1], "made": ["10 images"]}}]
    store, the_plan = planned(mini)
    by_name = {job.payload.name: job for job in the_plan.of_kind("generator")}
    by_pool = {pool.generator: pool.id for pool in the_plan.pools.values()}
    trained(store, by_name["made"], 0.1)
    sampled(store, by_pool["made"], 0, 0.1)
    for kind in ("generator", "shard"):
        found = line(store, the_plan, kind)
        assert (found.todo, found.seconds) == (1, None)  # unknown, not next to nothing
    assert line(store, the_plan, "generator").bytes is None


def test_a_larger_base_is_trained_for_more_steps(planned, mini):
    mini["generators"]["edm"]["training"] = {"total_nimg": 6400, "full_at_images": 120}
    store, the_plan = planned(mini)
    small, large = sorted(the_plan.of_kind("generator"), key=lambda job: job.payload.subset.n)
    trained(store, small, 10, values=7)
    found = line(store, the_plan, "generator")
    assert (found.todo, found.seconds, found.bytes) == (1, 20, 28)
    assert estimate.expected(store, the_plan)(large) == 20


def test_samplers_of_one_network_differ_by_their_evaluations(planned, mini):
    mini["generators"]["quick"] = {**mini["generators"]["edm"], "sampler": {"steps": 2}}
    mini["blocks"] = [{"n_base": 60, "syn": {"edm": 1, "quick": 1}}]
    store, the_plan = planned(mini)
    by_pool = {pool.generator: pool.id for pool in the_plan.pools.values()}
    sampled(store, by_pool["edm"], 0, 7.0)  # 7 evaluations: 4 steps of 2, the last of one
    assert line(store, the_plan, "shard").seconds == 3.0


def test_trials_are_measured_on_the_same_dataset_and_the_usual_device(planned, mini):
    mini["prices"] = {"A100": 2.0, "H200": 4.0}
    store, the_plan = planned(mini)
    mine = the_plan.resolved.fingerprint
    tried(store, "t0", "other", 100.0)
    assert line(store, the_plan, "trial").seconds is None
    tried(store, "t1", mine, 100.0, device="A100")
    tried(store, "t2", mine, 1.0, device="H200")
    tried(store, "t3", mine, 0.25, device="H200", world_size=4)
    tried(store, "t4", mine, 1000.0, classifier="resnet20", device="A100")
    found = line(store, the_plan, "trial")
    assert (found.basis, found.seconds) == (("measured",), 18 * 15 * 1.0)
    assert found.money == pytest.approx(found.seconds / 3600 * 4.0)


def test_confusion_matrices_are_not_read(planned, mini, monkeypatch):
    """At a hundred classes each is 80 kB."""
    store, the_plan = planned(mini)
    tried(store, "t1", the_plan.resolved.fingerprint, 1.0)
    asked = []
    reader = results.Reader.__init__
    monkeypatch.setattr(results.Reader, "__init__", lambda self, store, columns=None, **options: (
        asked.append(columns), reader(self, store, columns, **options))[0])  # fmt: skip
    estimate.lines(store, the_plan)
    assert asked and all(columns and "confusion" not in columns for columns in asked)


def test_a_pool_costs_the_median_over_its_shards(store):
    assert shard.cost(store, "pool-1") is None
    for index, seconds in enumerate((90.0, 10.0, 11.0, 12.0)):  # the first loaded the models
        sampled(store, "pool-1", index, seconds, peak=index)
    sampled(store, "pool-1", 4, 1000.0, device="CPU")
    found = shard.cost(store, "pool-1")
    assert (found["device"], found["shards"], found["seconds"], found["seconds_per_image"]) == (
        "A100",
        4,
        11.5,
        11.5 / 256,
    )
    assert (found["peak_device_bytes"], found["facts"]) == (3, {"sampler_steps": 4})


def test_of_a_long_pool_some_shards_are_read(store, monkeypatch):
    for index in range(7):
        sampled(store, "pool-1", index, float(index))
    monkeypatch.setattr(shard, "MOST_TIMED", 3)
    assert shard.cost(store, "pool-1")["seconds"] == 3.0  # 0, 3 and 6


# Before anything ran ------------------------------------------------------------------------------

FULL_SIZE = (
    "bloodmnist", "bloodmnist-adapted", "bloodmnist-sd3", "cifar10", "cifar10-table6", "imagenet10",
    "imagenet10-zero-shot", "imagenet100", "imagenet100-zero-shot",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("preset", FULL_SIZE)
def test_each_full_size_preset_has_its_costs_before_anything_ran(preset, plan_of):
    """Between an hour and ten years of one A6000, by the size of what is asked; the likely value
    inside its range.
    """
    the_plan = plan_of(preset)
    lines = [
        one for one in estimate.lines(None, the_plan, DEVICES["A6000"]) if one.kind != "ingest"
    ]
    for one in lines:
        assert one.seconds is not None, one.kind
        assert one.seconds_least <= one.seconds <= one.seconds_most
        assert set(one.basis) <= {"published", "estimated"}
        assert one.todo == 0 or one.basis
    total = sum(one.seconds for one in lines)
    assert 3600 < total < 10 * 365 * 86400


def test_an_estimate_is_operations_over_speed_by_hand(plan_of):
    """cifar10-table6: an EDM on 50,000 images, 200.0 million images of three passes of
    42,380,429,824 operations; ResNet-110 at 505,775,360 on 160 epochs.
    """
    the_plan = plan_of("cifar10-table6")
    (generator,) = the_plan.of_kind("generator")
    nimg = generator.payload.mapping["training"]["total_nimg"]
    found = line(None, the_plan, "generator", "A100")
    assert found.seconds == pytest.approx(3 * nimg * 42_380_429_824 / (0.25 * 312e12), rel=1e-4)
    assert found.seconds_most / found.seconds_least == pytest.approx(6)
    trials = [job.payload for job in the_plan.of_kind("trial")]
    passes = sum(3 * 160 * job.n_total + 10_000 for job in trials)
    by_hand = passes * 505_775_360 / (0.03 * 312e12)
    assert line(None, the_plan, "trial", "A100").seconds == pytest.approx(by_hand, rel=0.01)


def test_the_papers_seconds_count_on_its_own_cards_alone(plan_of):
    """Table 8: EDM 0.06 s on an A4500, and Stable Diffusion 3 7 s on an A6000; a fifth of its
    candidates are dropped.
    """
    the_plan = plan_of("cifar10-table6")
    made = sum(job.payload.size for job in the_plan.of_kind("shard"))
    found = line(None, the_plan, "shard", "A4500")
    assert (found.basis, found.seconds) == (("published",), pytest.approx(0.06 * made))
    assert line(None, the_plan, "shard", "A6000").basis == ("estimated",)
    the_plan = plan_of("imagenet100-zero-shot")
    made = sum(job.payload.size for job in the_plan.of_kind("shard"))
    found = line(None, the_plan, "shard", "A6000")
    assert (found.basis, found.seconds) == (("published",), pytest.approx(7.0 * made / 0.8))


def test_a_published_time_beyond_the_cards_peak_is_not_taken(plan_of):
    """Stable Diffusion 2 at 768×768: 2.2e14 operations an image; an A6000 does 1.55e14 a second."""
    the_plan = plan_of("imagenet10")
    sd2 = next(pool.id for pool in the_plan.pools.values() if pool.generator == "sd2")
    jobs = [job for job in the_plan.of_kind("shard") if job.payload.pool == sd2]
    speeds = estimate._Speeds(None, the_plan, DEVICES["A6000"])
    guess = speeds.guess(jobs[-1])
    assert guess.basis == "estimated"
    assert guess.seconds / jobs[-1].payload.size > 2.2e14 / 1.55e14


def test_a_measured_time_takes_the_place_of_an_estimate(planned, mini):
    store, the_plan = planned(mini)
    before = line(store, the_plan, "trial", "A6000")
    assert before.basis == ("estimated",)
    tried(store, "t1", the_plan.resolved.fingerprint, 1.0)
    after = line(store, the_plan, "trial", "A6000")
    assert (after.basis, after.seconds, after.seconds_most) == (("measured",), 270, 270)
    assert estimate.expected(store, the_plan)(next(the_plan.of_kind("generator"))) is None


def test_devices_are_known_by_the_longest_name():
    assert device("NVIDIA A100-SXM4-80GB").name == "A100"
    assert device("nvidia rtx a4500").name == "A4500"
    assert device("NVIDIA GeForce RTX 4090").name == "RTX 4090"
    assert device("Radeon VII") is None
