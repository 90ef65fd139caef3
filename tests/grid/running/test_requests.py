"""What a request gives a job to see, without Ray: never more than its kind may ask for."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from equigrid.grid.datasets.shards import ShardRef
from equigrid.grid.jobs import generator
from equigrid.grid.running.requests import Requests


class Cache:
    """Names in the place of Ray's references."""

    def labels(self, dataset, node: str | None) -> str:
        return f"labels of {dataset.name}"

    def handle(self, ref: ShardRef, name: str, node: str | None) -> str:
        return ref.manifest


@pytest.fixture
def made(planned, mini):
    """Makes the request of a plan's first job of a kind that is chosen."""
    spec = mini | {"quality": {"images": 30}, "domain_gap": {"images": 30, "tsne": 5}}
    _, the_plan = planned(spec)
    outputs = SimpleNamespace(
        dataset=the_plan.resolved.dataset,
        shards_for=lambda job: [
            ShardRef(f"pools/{need}.json", "data", f"checksum of {need}", 512)
            for need in job.needs
            if the_plan.jobs[need].kind == "shard"
        ],
    )
    requests = Requests(the_plan, outputs, Cache())

    def make(kind: str, which=lambda job: True):
        job = next(job for job in the_plan.of_kind(kind) if which(job))
        return requests.make(job, workers=1, gpus=0, node=None)

    return make


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("generator", {"train"}),
        ("shard", set()),
        ("reference", {"train"}),
        ("trial", {"train", "syn", "test"}),
        ("quality", {"train", "syn"}),
        ("domain", {"train", "syn"}),
    ],
)
def test_a_job_is_given_what_its_kind_may_ask_for(made, kind, seen):
    request = made(kind, lambda job: kind != "trial" or job.payload.syn)
    images = {name: getattr(request, name).handles for name in ("train", "val", "test", "syn")}
    assert {name for name, handles in images.items() if handles} == seen
    assert (request.labels is not None) == ("train" in seen)
    assert all(name.startswith("pools/") for name in images["syn"])
    assert all("/train-" in name for name in images["train"])
    assert all("/test-" in name for name in images["test"])


def test_a_trials_row_says_where_it_belongs_and_what_it_consumed(made):
    request = made("trial", lambda job: job.payload.syn)
    assert (request.row["arm"], request.row["grid"]) == ("syn", "mini")
    assert request.row["n_total"] == request.payload.n_total
    assert "trial_id" not in request.row
    of_pools = [text for text in request.hashes if text.startswith("checksum of pool-")]
    assert len(of_pools) == len(request.syn.handles) == 1
    handles = (*request.train.handles, *request.syn.handles, *request.test.handles)
    assert len(request.hashes) == len(handles)
    assert made("quality").row is None


def test_an_open_set_generator_sees_no_image(made):
    payload = made("generator").payload
    assert generator.KIND.reads(payload) == {"train"}
    assert generator.KIND.reads(replace(payload, subset=None)) == set()
