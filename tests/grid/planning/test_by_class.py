"""Amounts by class: what is planned, what is trained on, and what is wrong with them."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from equigrid.grid import jobs
from equigrid.grid.datasets import catalogue, subsets
from equigrid.grid.errors import UserError
from equigrid.grid.jobs import inputs
from equigrid.grid.jobs.trial import training_parts
from equigrid.grid.planning import growth
from equigrid.grid.planning.planner import plan
from equigrid.grid.planning.remarks import remarks
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import ByClass, load

TAIL = {"digits": None, "keep": {"8": 12, "9": 6}}


def planned_without_store(spec: dict):
    return plan(resolve(load(spec), None))


def cells(the_plan, arm: str) -> list:
    return [cell for cell in the_plan.cells if cell.arm == arm and cell.by_class]


@pytest.fixture
def tail(mini) -> dict:
    """A base of 200 of the digits, of which 2 are eights and 1 is a nine; two amounts by class."""
    mini["dataset"] = TAIL
    amounts = [{"8": 3, "9": "25 images", "others": 0}, "to_balance"]
    mini["blocks"] = [{"n_base": 200, "syn": {"edm": [1, *amounts]}, "copies": [1, *amounts]}]
    return mini


def test_multiples_are_of_the_classes_own_images_and_balance_fills_up_to_the_largest(tail):
    the_plan = planned_without_store(tail)
    base = subsets.subset_counts(the_plan.resolved.shape.train_counts, 200)
    assert tuple(base[-2:]) == (2, 1)
    some, level = (0,) * 8 + (6, 25), tuple(int(base.max() - n) for n in base)
    for arm, column in (("syn", "n_syn"), ("copies", "n_copies")):
        found = {cell.by_class: getattr(cell, column) for cell in cells(the_plan, arm)}
        assert found == {some: 31, level: sum(level)}
    assert level[9] > 20


def test_pools_of_a_class_are_shared_and_no_other_is_sampled(tail):
    """9 needs 25 images of one arm and fewer of the other: one pool of it, sampled once."""
    the_plan = planned_without_store(tail)
    of_classes = {pool.label: pool for pool in the_plan.pools.values() if pool.label is not None}
    balance = max(cells(the_plan, "syn"), key=lambda cell: cell.n_syn).by_class
    assert set(of_classes) == {label for label, n in enumerate(balance) if n}
    tail["blocks"][0]["syn"]["edm"] = tail["blocks"][0]["syn"]["edm"][:2]
    fewer = planned_without_store(tail)
    labels = {pool.label for pool in fewer.pools.values()}
    assert labels == {None, 8, 9}
    assert {p.id for p in fewer.pools.values()} < {p.id for p in the_plan.pools.values()}
    for job in fewer.of_kind("shard"):
        label = fewer.pools[job.payload.pool].label
        assert label is None or job.payload.shares == tuple(int(c == label) for c in range(10))


def test_amounts_by_class_leave_all_other_ids_alone(mini, tail):
    with_both = planned_without_store(tail)
    tail["blocks"][0] |= {"syn": {"edm": 1}, "copies": 1}
    before = planned_without_store(tail)
    assert before.jobs.keys() < with_both.jobs.keys()
    assert [cell for cell in with_both.cells if not cell.by_class] == before.cells


def test_pools_of_one_class_are_not_measured(tail):
    """FID of nines against all digits would say that they are bad."""
    tail["quality"] = {"inception": "off", "vit": "off"}
    the_plan = planned_without_store(tail)
    measured = {job.payload.syn.pool for job in the_plan.of_kind("quality")}
    assert measured == {pool.id for pool in the_plan.pools.values() if pool.label is None}
    assert measured


def test_what_is_made_and_not_trained_on_counts_the_classes_pools(tail):
    tail["blocks"] = [{"n_base": 200, "syn": {"edm": {"9": "2000 images"}}}]
    assert not any("made and" in line for line in remarks(planned_without_store(tail)))


def test_a_mix_balances_what_its_real_images_leave(tail):
    amount = {"real": "100 images", "syn": {"edm": "to_balance"}}
    tail["blocks"] = [{"n_base": 200, "mixes": [amount]}]
    (cell, *_) = cells(the_plan := planned_without_store(tail), "mix")
    real = subsets.subset_counts(the_plan.resolved.shape.train_counts, 300)
    assert cell.by_class == tuple(int(real.max() - n) for n in real)
    assert cell.n_syn == sum(cell.by_class) and cell.n_real_added == 100


def test_a_spec_comes_back_as_it_was(tail):
    spec = load(tail)
    assert load(spec.model_dump(mode="json")) == spec
    first, second = spec.blocks[0].syn["edm"][1:]
    assert isinstance(first, ByClass) and second == ByClass((), "to_balance")
    assert first.as_written() == {"8": 3.0, "9": "25 images", "others": 0}


def test_a_question_grows_none_of_these_places(tail):
    """Two amounts by class may have one total, which is also that of balanced amounts."""
    tail["blocks"][0]["syn"]["edm"].append("31 images")
    the_plan = planned_without_store(tail)
    place = growth.Place(200, 0, 31, 0, "edm", 0, 0, 7)
    grown = growth.with_places(the_plan.resolved.spec, the_plan.cells, [place])
    (amount,) = grown.blocks[-1].syn["edm"]
    assert amount.images == 31


@pytest.mark.parametrize("arm", ["syn", "copies", "mix"])
def test_a_trial_sees_these_images_and_no_others(planned, request_of, tail, arm):
    """By the bodies of the jobs: labels are counted of what a training gets."""
    tail["blocks"][0]["mixes"] = [{"real": "50 images", "syn": {"edm": {"9": 3, "7": 1}}}]
    tail["generators"]["edm"] |= {"training": {"total_nimg": 64}, "sampler": {"steps": 2}}
    store, the_plan = planned(tail)
    train = catalogue.labels(store, the_plan.resolved.dataset, "train")
    assert (np.bincount(train)[-2:] == (12, 6)).all()
    cell = min(cells(the_plan, arm), key=lambda cell: cell.n_total)
    job = the_plan.jobs[cell.trial_id]
    if arm != "copies":
        for need in (the_plan.jobs[need] for need in job.needs[1:]):
            for before in (the_plan.jobs[need.payload.generator], need):
                outcome = jobs.run(store, request_of(store, the_plan, before))
                assert outcome["status"] == "ok", outcome
    request = request_of(store, the_plan, job)
    rows = np.concatenate([h["labels"][row] for h, row in training_parts(request)])
    real = np.bincount(train[inputs.real_indices(request, job.payload.real)], minlength=10)
    assert tuple(np.bincount(rows, minlength=10) - real) == cell.by_class
    assert len(rows) == cell.n_total == job.payload.n_total


def test_copies_of_a_class_are_those_that_a_smaller_amount_has(mini):
    labels = np.repeat([0, 1, 2], [30, 5, 2])
    take = partial(subsets.copies_by_class, labels, np.arange(37), seed=1)
    few, many = take(counts=(0, 7, 3)), take(counts=(0, 12, 3))
    assert (many[:7] == few[:7]).all() and (np.bincount(labels[many]) == (0, 12, 3)).all()
    assert (np.bincount(few)[30:35] > 0).all()  # none is used twice before all were once


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        ({"nine": 5}, r"syn.edm: 'nine' is no class of the dataset; it has 0, 1, 2, 3, 4, …"),
        ({"9": 5, 9: 4}, r"syn.edm.*class '9' is there twice; name each once"),
        ({"9": 0, "others": 0}, r"syn.edm.*adds nothing; give a class an amount above 0"),
        ({"9": -2}, r"syn.edm.*class 9: -2 is no amount to add.*0 adds nothing of a class"),
        ({"9": "all"}, r"syn.edm.*class 9: all means the real images.*to_balance fills"),
        ({"9": True}, r"syn.edm.*class 9: True is no amount"),
        ({"9": float("nan")}, r"syn.edm.*class 9: nan is no amount"),
        ({"9": 0.1}, r"syn.edm: 0.1 times the 1 images of class '9' is no whole image"),
        ({"9": 5000}, r"syn.edm.*class 9: 5,000 times the base.*'5,000 images'"),
        ({"9": "99999999 images", "8": "99999999 images"}, r"syn.edm: 199,999,998 images; 100,"),
        ({}, r"syn.edm.*adds nothing"),
        ([{"9": 5}, {"9": 5}], r"syn.edm.*9: 5, others: 0 is there twice"),
        ("balance", r"syn.edm.*'balance' is no amount"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(tail, amount, message):
    tail["blocks"] = [{"n_base": 200, "syn": {"edm": amount}}]
    with pytest.raises(UserError, match=message) as caught:
        planned_without_store(tail)
    assert "\n" not in str(caught.value)


def test_the_nearest_class_is_named(tail):
    tail["dataset"] = {"digits": None, "class_names": [f"digit {word}" for word in "abcdefghij"]}
    tail["blocks"] = [{"n_base": 200, "copies": {"digit-c": 5}}]
    with pytest.raises(UserError, match=r"copies: 'digit-c' .*did you mean 'digit c'\?"):
        planned_without_store(tail)


def test_a_balanced_base_has_nothing_to_fill(tail):
    tail["dataset"] = {"digits": None, "keep": {str(digit): 100 for digit in range(10)}}
    tail["blocks"] = [{"n_base": 200, "syn": {"edm": "to_balance"}}]
    with pytest.raises(UserError, match=r"to_balance adds nothing: each class has the 20 images"):
        planned_without_store(tail)


def test_a_base_without_a_class_is_refused_before_its_generator_is_asked_for_it(tail):
    tail["blocks"] = [{"n_base": 50, "syn": {"edm": {"9": "20 images"}}}]
    with pytest.raises(UserError, match="50 leaves class '[89]' of digits without an image"):
        planned_without_store(tail)


def test_without_a_base_there_are_no_multiples_and_nothing_to_balance(tail):
    for amount in ("to_balance", {"9": 5}):
        tail["blocks"] = [{"n_base": 0, "syn": {"edm": amount}}]
        with pytest.raises(UserError, match="n_base 0 has no multiples"):
            planned_without_store(tail)
    tail["blocks"] = [{"n_base": 0, "syn": {"edm": {"9": "20 images"}}}]
    with pytest.raises(UserError, match="n_base 0 leaves a closed-set generator nothing"):
        planned_without_store(tail)


def test_others_is_no_class(tail):
    names = [*"abcdefghi", "others"]
    tail["dataset"] = {"digits": None, "class_names": names}
    tail["blocks"] = [{"n_base": 200, "syn": {"edm": {"a": 5}}}]
    with pytest.raises(UserError, match="'others' means all classes that are not named, and is"):
        planned_without_store(tail)


def test_real_images_have_no_amounts_by_class(tail):
    tail["blocks"] = [{"n_base": 200, "real": {"9": 5}}]
    with pytest.raises(UserError, match="real.*is no amount"):
        planned_without_store(tail)


@pytest.fixture
def made(tmp_path):
    """Imported images: 40 nines, 10 of each other digit, each of one grey that says which it is."""
    for digit in range(10):
        folder = tmp_path / "made" / str(digit)
        folder.mkdir(parents=True)
        for i in range(40 if digit == 9 else 10):
            Image.fromarray(np.full((8, 8), 5 * i + digit, np.uint8)).save(folder / f"{i}.png")
    return {"kind": "imported", "path": str(tmp_path / "made")}


def test_an_imported_set_has_so_many_of_a_class(tail, made):
    tail["generators"] = {"made": made}
    tail["blocks"] = [{"n_base": 200, "syn": {"made": {"9": "41 images"}}}]
    with pytest.raises(UserError, match="41 images; made has 10 of class '9', .*balance: as_data"):
        planned_without_store(tail)
    made["balance"] = "as_data"
    with pytest.raises(UserError, match="41 images; made has 40 of class '9'"):
        planned_without_store(tail)


@pytest.mark.parametrize(("balance", "n"), [("equal", 10), ("as_data", 40)])
def test_an_imported_pool_of_one_class_has_each_of_its_images_once(
    planned, request_of, tail, made, balance, n
):
    tail["generators"] = {"made": made | {"balance": balance}}
    tail["blocks"] = [{"n_base": 200, "syn": {"made": {"9": f"{n} images", "3": "5 images"}}}]
    store, the_plan = planned(tail)
    for kind in ("generator", "shard"):
        for job in the_plan.of_kind(kind):
            outcome = jobs.run(store, request_of(store, the_plan, job))
            assert outcome["status"] == "ok", outcome
    cell = cells(the_plan, "syn")[0]
    request = request_of(store, the_plan, the_plan.jobs[cell.trial_id])
    greys: dict[int, list[int]] = {3: [], 9: []}
    for handle, rows in inputs.of_classes(request, request.payload.syn_by_class):
        (label,) = set(handle["labels"][rows].tolist())
        greys[label] += handle["images"][rows][:, 0, 0, 0].tolist()
    assert [len(set(found)) for found in greys.values()] == [5, n]
    assert [{grey % 5 for grey in found} for found in greys.values()] == [{3}, {9 % 5}]


def test_the_plan_says_how_many_images_these_are(tail):
    lines = remarks(planned_without_store(tail))
    assert "200 real + edm by class: 6 of 8, 25 of 9, 31 together" in lines
    assert sum("by class" in line for line in lines) == 4  # two amounts, of edm and of copies
