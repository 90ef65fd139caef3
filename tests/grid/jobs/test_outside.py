"""Images kept apart as other people's data: which jobs see them, and what is refused."""

import numpy as np
import pytest

from equigrid.grid import jobs
from equigrid.grid.datasets import catalogue, shards
from equigrid.grid.errors import UserError
from equigrid.grid.jobs import inputs
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.store import layout

DIT = {
    "kind": "dit",
    "preset": "digits",
    "network": {"depth": 1, "width": 16},
    "vae": {"base_channels": 8, "training": {"steps": 4}},
    "training": {"steps": 4},
    "sampler": {"steps": 2},
}


@pytest.fixture
def apart(mini) -> dict:
    """The small grid, with an EDM of 400 images that are kept apart beside that of each base."""
    mini["outside"] = {"images": 400}
    mini["generators"]["open"] = mini["generators"]["edm"] | {"trained_on": "outside"}
    mini["blocks"][0]["syn"]["open"] = [1, 3]
    return mini


def planned_from(spec: dict):
    return plan(resolve(load(spec), None))


@pytest.mark.parametrize("kind", ["edm", "dit"])
def test_one_generator_of_either_kind_serves_all_bases_and_seeds(apart, kind):
    if kind == "dit":
        apart["generators"]["open"] = DIT | {"trained_on": "outside"}
    apart["subset_seeds"] = [0, 1, 2]
    the_plan = planned_from(apart)
    cells = [cell for cell in the_plan.cells if cell.generator == "open"]
    pools = {
        next(n for n in the_plan.jobs[c.trial_id].needs if n.startswith("pool")) for c in cells
    }
    trained = [job for job in the_plan.of_kind("generator") if job.payload.name == "open"]
    assert len(trained) == len(pools) == 1
    assert len([*the_plan.of_kind("generator")]) == 1 + 2 * 3
    assert {cell.n_base for cell in cells} == {60, 120}
    assert {cell.setting for cell in cells} == {"open"}
    assert trained[0].stage == "generator:digits:outside"
    assert trained[0].payload.n_images == 400
    assert trained[0].payload.mapping["kind"] == kind


def test_what_is_kept_apart_is_seen_by_the_open_generator_and_by_nothing_else(
    planned, request_of, apart
):
    apart["validation"] = {"images": 100, "every_epochs": 1}
    apart["subset_seeds"], apart["domain_gap"] = [0, 1], {"images": 30}
    store, the_plan = planned(apart)
    labels = catalogue.labels(store, the_plan.resolved.dataset, "train")
    kept = None
    seen: list[np.ndarray] = []
    for job in the_plan.jobs.values():
        if job.kind in ("ingest", "shard"):
            continue
        request, payload = request_of(store, the_plan, job), job.payload
        if outside := getattr(payload, "outside", None):
            kept = inputs.outside_indices(request, outside)
        elif real := getattr(payload, "real", None) or payload.subset:
            seen.append(inputs.real_indices(request, real))
            if getattr(payload, "copies", None):
                of = payload.dataset
                n = payload.copies.n
                seen.append(inputs.copies_indices(request, real, n, dataset=of))
    assert kept is not None
    assert len(kept) == 400
    assert np.bincount(labels[kept]).min() >= 38  # in proportion
    every = np.concatenate(seen)
    assert len(np.unique(every)) > 200
    assert not np.isin(every, kept).any()
    held = inputs.held_out_indices(request, 100)
    assert not np.isin(kept, held).any()
    assert not np.isin(every, held).any()


def test_the_generator_learns_from_exactly_those_and_its_pool_is_measured_against_them(
    planned, request_of, apart, monkeypatch
):
    """By their pixels, as the two bodies get them."""
    from equigrid.generators import registry
    from equigrid.generators.quality import measure

    apart["quality"] = {"inception": "off", "vit": "off", "neighbours": 10}
    apart["generators"].pop("edm")
    apart["blocks"] = [{"n_base": [60], "syn": {"open": [1]}}]
    store, the_plan = planned(apart)
    (job,) = the_plan.of_kind("generator")
    request = request_of(store, the_plan, job)
    given, compared = [], []
    train, picture = registry.train, measure.neighbour_picture

    def training(images, labels, *arguments, **options):
        given.append((images.copy(), labels.copy()))
        return train(images, labels, *arguments, **options)

    def pictured(pool, base):
        compared.append(np.concatenate([images for images, _ in base()]))
        return picture(pool, base)

    monkeypatch.setattr(registry, "train", training)
    monkeypatch.setattr(measure, "neighbour_picture", pictured)
    assert jobs.run(store, request)["status"] == "ok"
    dataset = the_plan.resolved.dataset
    pixels = np.concatenate([shards.read(store, ref)[0] for ref in dataset.train])
    labels = catalogue.labels(store, dataset, "train")
    kept = inputs.outside_indices(request, job.payload.outside)
    ((images, classes),) = given
    assert (images == pixels[kept]).all()
    assert (classes == labels[kept]).all()
    manifest = store.get_json(layout.GENERATORS.manifest(job.id))
    assert (manifest["setting"], manifest["n_images"]) == ("open", 400)
    for kind in ("shard", "reference", "quality"):
        for one in the_plan.of_kind(kind):
            assert jobs.run(store, request_of(store, the_plan, one))["status"] == "ok"
    assert (compared[0] == pixels[kept]).all()


def test_ids_change_where_images_are_kept_apart_and_nowhere_else(mini, apart):
    """A spec without `outside` has the ids that it had; the number and the validation matter."""
    plain = planned_from({k: v for k, v in mini.items() if k != "outside"} | {
        "generators": {"edm": mini["generators"]["edm"]},
        "blocks": [mini["blocks"][0] | {"syn": {"edm": [1, 2]}}],
    })  # fmt: skip
    one, more = planned_from(apart), planned_from(apart | {"outside": {"images": 401}})
    trials, generators = ({j.id for j in p.of_kind("trial")} for p in (plain, one)), {}
    assert set.isdisjoint(*trials)
    generators = [{j.id for j in p.of_kind("generator")} for p in (one, more)]
    assert generators[0].isdisjoint(generators[1])
    assert all("kept_apart" not in job.payload.real.identity() for job in plain.of_kind("trial"))
    assert all("outside" not in job.payload.identity() for job in plain.of_kind("generator"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outside": None}, "generators.open.*trained_on: outside: the grid keeps no images apart"),
        ({"outside": {"images": 1200}}, "1,200 of the 1,200 training images of digits; leave some"),
        ({"outside": {"images": 9}}, "outside.images: 9 have no image of class '.'"),
        ({"outside": {"images": 1195}}, "outside.images: 1,195 leave no image of class '.'"),
        (
            {"outside": {"images": 1150}},
            r"n_base: 60 is more than the 50 training images of digits \(1,150 more are kept",
        ),
        (
            {"outside": {"images": 1000}},
            r"1 × 120 = 120 real images.*digits has 80 more \(1,000 more are kept apart\)",
        ),
        ({"outside": {"images": "own"}}, "digits has no validation split of its own"),
        ({"outside": {"images": 0}}, "outside.images"),
        ({"outside": {"images": 700}, "validation": {"images": 500}}, "700 of the 700 training"),
    ],
)
def test_what_would_overlap_or_leave_too_few_is_refused_in_words(apart, changes, message):
    with pytest.raises(UserError, match=message):
        planned_from(apart | changes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setting": "closed"}, "trained_on 'outside' is of other images than the base"),
        ({"weights": "w.safetensors"}, "exclude each other"),
        ({"trained_on": "inside"}, "generators.open: trained_on 'inside'"),
        ({"trained_on": "base", "setting": "open"}, "needs 'weights', or trained_on: outside"),
    ],
)
@pytest.mark.parametrize("kind", ["edm", "dit"])
def test_a_generator_is_trained_on_one_set(apart, kind, options, message):
    own = {"kind": kind, "preset": "digits", "trained_on": "outside"}
    apart["generators"]["open"] = own | options
    with pytest.raises(UserError, match=message):
        planned_from(apart)


def test_kinds_that_are_not_trained_here_know_no_outside(apart, tmp_path):
    apart["generators"]["open"] = {"kind": "imported", "path": "x", "trained_on": "outside"}
    with pytest.raises(UserError, match="unknown key 'trained_on'"):
        planned_from(apart)
