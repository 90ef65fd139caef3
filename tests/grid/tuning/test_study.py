import json

import pytest
import timm
from safetensors.torch import save_file

from equigrid.classifiers.recipes import resolve as resolved_recipe
from equigrid.grid.errors import UserError
from equigrid.grid.planning import planner
from equigrid.grid.planning.resolve import resolve
from equigrid.grid.spec import load
from equigrid.grid.spec.tuning import Tune
from equigrid.grid.tuning import study


def studies(spec: dict, **wish) -> list[study.Study]:
    grid = load(spec)
    resolved = resolve(grid, None)
    the_plan = planner.plan(resolved)
    tune = Tune.model_validate({**(spec.get("tune") or {}), **wish})
    return study.studies_of(grid, tune, the_plan, planner.facts(resolved).n_train)


@pytest.fixture
def searched(mini) -> dict:
    return mini | {"validation": {"images": 200}}


def test_a_candidate_goes_through_the_bases_the_smallest_first(searched):
    (one,) = studies(searched)
    assert [training.cell.n_base for training in one.trainings] == [60, 120]
    assert {training.cell.arm for training in one.trainings} == {"base"}
    assert {training.payload.seed for training in one.trainings} == {0}


def test_per_arm_there_is_a_search_for_each_of_as_many_trials_and_of_the_amount_next_to_the_base(
    searched,
):
    found = studies(searched, per_arm=True, trials=7)
    assert [one.arm for one in found] == ["base", "real", "syn", "copies"]
    assert {one.wish.trials for one in found} == {7}
    (syn,) = (one for one in found if one.arm == "syn")
    assert [(t.cell.n_base, t.cell.n_syn) for t in syn.trainings] == [(60, 60), (120, 120)]
    assert len({one.id for one in found}) == 4


def test_the_id_is_of_what_determines_the_search_not_of_how_long_it_goes_on(searched):
    (one,) = studies(searched)
    assert studies(searched, trials=99, confirm=7)[0].id == one.id
    for other in ({"metric": "auc"}, {"seed": 1}, {"looks": 2}, {"space": {"lr": [0.1, 0.2]}}):
        assert studies(searched, **other)[0].id != one.id
    assert studies(searched | {"recipe": "digits"})[0].id != one.id
    assert studies(searched | {"seeds": [0, 1, 2]})[0].id == one.id


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"validation": None},
            r"holds no validation images out; write validation: \{images: 150\}",
        ),
        ({"validation": {"images": 1200}}, "1,200 of the 1,200 training images.*leave some"),
        (
            {"validation": {"images": 1100}},
            r"digits has 40 more \(1,100 more are held out for validation\)",
        ),
        (
            {"blocks": [{"n_base": 60, "base": False, "real": [1]}]},
            "no block trains digits-cnn on the base",
        ),
        ({"execution": {"workers": {"trial": 2}}}, "one device"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_words(searched, change, told):
    with pytest.raises(UserError, match=told):
        studies(searched | change)


def test_a_metric_of_two_classes_and_a_foreign_classifier_are_refused(searched):
    with pytest.raises(UserError, match="sensitivity is of two classes, not 10"):
        studies(searched, metric="sensitivity")
    with pytest.raises(UserError, match="'resnet20' is none of the grid's"):
        studies(searched, classifier="resnet20")


def test_a_handful_of_validation_images_is_refused(searched):
    resolved = resolve(load(searched | {"validation": {"images": 15}}), None)
    with pytest.raises(UserError, match="15 images cannot tell recipes of 10 classes apart"):
        study.check_validation(planner.plan(resolved), 10)


def test_what_must_run_before_is_what_the_trainings_read_and_no_trial(searched):
    grid = load(searched)
    the_plan = planner.plan(resolve(grid, None))
    base, syn = studies(searched), studies(searched, per_arm=True)
    assert {job.kind for job in study.needed(the_plan, base[0].needs).values()} == {"ingest"}
    needs = [need for one in syn for need in one.needs]
    kinds = {job.kind for job in study.needed(the_plan, needs).values()}
    assert kinds == {"ingest", "generator", "shard"}


ARGS = {"img_size": 8, "patch_size": 2, "depth": 1, "embed_dim": 24, "num_heads": 2}


@pytest.fixture
def finetuned(searched, tmp_path) -> dict:
    """With a classifier that starts from weights of a file."""
    network = timm.create_model("vit_tiny_patch16_224", num_classes=10, in_chans=1, **ARGS)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_args": ARGS}))
    own = {"timm": "vit_tiny_patch16_224", "pretrained": str(tmp_path), "train": "head"}
    return searched | {"classifiers": [own], "recipe": {"extends": "finetune", "steps": 8}}


@pytest.mark.parametrize(
    ("wish", "names"),
    [({}, "lr and weight_decay"), ({"space": {"lr": [0.1, 0.2], "batch": [8, 16]}}, "lr")],
)
def test_what_a_pretrained_classifier_sets_by_itself_is_not_searched(finetuned, wish, names):
    """In the default space too, and with what to do."""
    finetuned["classifiers"][0]["recipe"] = {"lr": 0.01, "weight_decay": 0.1}
    told = (
        rf"^tune.space: vit_tiny\S* \(pretrained .*\) sets {names} by itself, which no search "
        rf"changes; leave {names} out of its own recipe \(classifiers: recipe\), or write a "
        rf"tune.space without {names}$"
    )
    with pytest.raises(UserError, match=told):
        studies(finetuned, **wish)


def test_what_it_leaves_to_the_recipe_is_searched(finetuned):
    finetuned["classifiers"][0]["recipe"] = {"lr": 0.01}
    (one,) = studies(finetuned, space={"weight_decay": [0.0, 0.1], "head_lr": [0.1, 0.2]})
    (training, *_) = one.trainings
    recipe = one.recipe_with({"weight_decay": 0.1, "head_lr": 0.2})
    settled = training.classifier.settled(
        resolved_recipe(
            recipe, n_base=60, n_total=60, n_dataset=1200, classifier=training.payload.classifier
        )
    )
    assert (settled.lr, settled.head_lr, settled.weight_decay) == (0.01, 0.2, 0.1)
