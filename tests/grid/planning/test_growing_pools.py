"""A pool's shards in a plan: small needs are cheap, and larger ones touch no shard that is there."""

from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load


def planned(mini: dict, amounts: list, n_base: int = 60):
    mini["blocks"] = [{"n_base": n_base, "syn": {"edm": amounts}}]
    return plan(resolve(load(mini), None))


def shard_jobs(the_plan) -> dict[str, tuple[int, int]]:
    return {
        job.id: (job.payload.start, job.payload.start + job.payload.size)
        for job in the_plan.of_kind("shard")
    }


def test_a_larger_need_makes_more_shards_and_touches_none(mini):
    little, more = (shard_jobs(planned(mini, [amount])) for amount in (1, 30))
    assert list(little.values()) == [(0, 256)]
    assert list(more.values()) == [(0, 256), (256, 512), (512, 1024), (1024, 1536), (1536, 2048)]
    assert little.items() <= more.items(), "the same jobs, with the same images"


def test_each_trial_needs_the_shards_of_its_images_alone(mini):
    the_plan = planned(mini, [1, 5, 30])
    shards = shard_jobs(the_plan)
    for cell in the_plan.cells:
        needs = [need for need in the_plan.jobs[cell.trial_id].needs if need in shards]
        if not cell.n_syn:
            assert not needs
            continue
        spans = sorted(shards[need] for need in needs)
        assert spans[0][0] == 0
        assert spans[-1][0] < cell.n_syn <= spans[-1][1]
        assert all(one[1] == other[0] for one, other in zip(spans, spans[1:]))


def test_large_images_have_shards_as_before(plan_of):
    """64 images of 256 pixels are all that a shard holds: it cannot begin with more."""
    the_plan = plan_of("imagenet10")
    sizes = {job.payload.size for job in the_plan.of_kind("shard")}
    assert sizes == {64}
