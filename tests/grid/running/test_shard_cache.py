"""Shards in Ray's object store."""

from dataclasses import replace

import ray

from equigrid.grid.running.shard_cache import LANES, ShardCache, lanes_of


def test_shards_are_loaded_once_and_mapped_without_a_copy(finished_mini):
    store, _, the_plan = finished_mini
    cache = ShardCache(store)
    ref = the_plan.resolved.dataset.train[0]
    handles = [cache.handle(ref, "digits") for _ in range(5)]
    assert len(set(handles)) == 1
    assert (cache.loads, cache.hits) == (1, 4)
    first, second = (ray.get(handles[0])["images"] for _ in range(2))
    assert not first.flags.writeable
    assert not first.flags.owndata
    address = [array.__array_interface__["data"][0] for array in (first, second)]
    assert address[0] == address[1]  # the same bytes of shared memory
    cache.drop(ref.manifest)
    assert cache.handle(ref, "digits") != handles[0]


def test_few_images_are_loaded_one_shard_after_the_other(finished_mini):
    the_plan = finished_mini[2]
    assert lanes_of(the_plan) == 1
    shape = replace(the_plan.resolved.shape, height=256, width=256, channels=3)  # 353 MB
    large = replace(the_plan, resolved=replace(the_plan.resolved, shape=shape))
    assert lanes_of(large) == LANES
