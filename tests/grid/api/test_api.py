"""equigrid from Python, short of running: what is exported and imported, plans, fits, answers."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import equigrid as eg
from equigrid.analysis import schema
from equigrid.analysis.conclusions.equivalence import analyse
from equigrid.grid.cli import entry
from equigrid.grid.datasets import shards
from equigrid.grid.reporting import notebook
from equigrid.grid.spec import load
from equigrid.grid.store import Store

HEAVY = {"numpy", "pandas", "pyarrow", "pydantic", "scipy", "torch", "ray", "rich", "matplotlib"}


def loaded_by(code: str) -> set[str]:
    """Of HEAVY, what a new process has imported after `code`."""
    told = f"{code}\nimport sys; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def table(*, generators: dict[str, float], bases=(100, 400), seeds: int = 5) -> pd.DataFrame:
    """A logarithmic law in which a synthetic image of a generator is so many real ones."""
    rng, rows = np.random.default_rng(0), []

    def add(n_base: int, generator: str | None, worth: float, real: int, syn: int, copies: int):
        for seed in range(seeds):
            top1 = 40 + 8 * np.log((n_base + real + worth * syn) / 10) + rng.normal(0, 0.3)
            rows.append(
                {"n_base": n_base, "n_real_added": real, "n_syn": syn, "n_copies": copies,
                 "generator": generator, "seed": seed, "accuracy": top1}
            )  # fmt: skip

    for n in bases:
        for ratio in (0, 0.5, 1, 2):
            add(n, None, 0, int(ratio * n), 0, 0)
        for ratio in (1, 4, 10):
            add(n, None, 0, 0, 0, ratio * n)
            for name, worth in generators.items():
                add(n, name, worth, 0, ratio * n, 0)
    return pd.DataFrame(rows)


# What is exported ---------------------------------------------------------------------------------


def test_importing_equigrid_imports_nothing_heavy():
    assert loaded_by("import equigrid") == set()
    assert loaded_by("from equigrid import UserError, __version__") == set()


def test_planning_and_fitting_import_neither_ray_nor_torch(tmp_path):
    path = tmp_path / "results.csv"
    table(generators={"edm": 0.3}, bases=(100,)).to_csv(path)
    plans = f"eg.plan(eg.load('digits'), store={str(tmp_path / 'none')!r})._repr_html_()"
    fits = f"eg.fit({str(path)!r}).answer(n_base=100, n_real=100)"
    found = loaded_by(f"import equigrid as eg\n{plans}\n{fits}")
    assert "pandas" in found
    assert not found & {"ray", "torch"}


def test_every_exported_name_is_there_and_documented():
    assert set(eg.__all__) <= set(dir(eg))
    for name in eg.__all__:
        found = getattr(eg, name)
        if callable(found):
            assert found.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        eg.runn  # noqa: B018


def test_type_checkers_see_every_name_at_its_place():
    """The names that are imported at their first use are those imported for types."""
    import ast

    tree = ast.parse(Path(eg.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        for alias in node.names
    }
    assert seen == eg._LAZY
    assert set(eg.__all__) == {*seen, "__version__"}


def test_columns_are_those_of_the_schema():
    assert list(eg.COLUMNS) == schema.SCHEMA.names


# Plans --------------------------------------------------------------------------------------------


def test_a_plan_is_the_one_that_the_command_prints(mini, write_spec, tmp_path, capsys):
    path, store = write_spec(mini), str(tmp_path / "store")
    plan = eg.plan(path, store=store)
    assert entry.outcome(["plan", str(path), "--store", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(plan.outline))
    assert len(plan.cells) == 20
    assert plan.todo["trial"] == 18
    assert plan.grid.name == "mini"
    assert not (tmp_path / "store").exists()  # looking writes nothing


def test_a_plan_shows_itself(mini, tmp_path):
    plan = eg.plan(mini, store=tmp_path / "store")
    for text in (str(plan), plan._repr_html_()):
        assert "mini: 20 cells on digits" in text
        assert all(word in text for word in ("generator", "trial", "18"))
    assert "trial 18 0 18" in str(plan)


def test_tables_of_a_notebook_are_text():
    html = notebook.table(("<a>",), [("<b>", 1)], "<c>") + notebook.listed(["<d>"])
    assert not any(tag in html for tag in ("<a>", "<b></td>", "<c>", "<d>"))
    assert html.count("&lt;") == 4


def test_a_store_can_be_named_by_the_environment(mini, tmp_path, monkeypatch):
    monkeypatch.setenv("EQUIGRID_STORE", str(tmp_path / "named"))
    with pytest.raises(eg.UserError, match="named: holds no grid yet"):
        eg.open_run("mini")


def test_a_spec_is_taken_as_it_is():
    grid = eg.load("digits")
    assert eg.load(grid) is grid
    assert grid == load("digits")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slots": 0}, "run: slots: "),
        ({"gpus": -1}, "run: gpus: "),
        ({"max_gpu_hours": float("nan")}, "run: max_gpu_hours is nan"),
    ],
)
def test_options_of_a_run_are_checked_before_anything_is_written(mini, tmp_path, options, message):
    with pytest.raises(eg.UserError, match=message):
        eg.run(mini, tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


# Fits and answers ---------------------------------------------------------------------------------


def test_an_answer_has_the_worth_that_was_planted():
    answer = eg.fit(table(generators={"edm": 0.3})).answer(n_base=400, n_real=400)
    assert answer.kind == "matched"
    assert answer.low < 400 / 0.3 < answer.high
    assert answer.high < 3 * answer.low  # it would be easy to say "anything"
    assert str(answer) == answer.amount.text
    assert answer.generator == "edm"


def test_of_several_generators_one_is_chosen_or_all_are_told():
    fit = eg.fit(table(generators={"edm": 0.5, "sd": 0.05}))
    with pytest.raises(eg.UserError, match="2 curves fit; choose by generator='edm' or 'sd'"):
        fit.answer(n_base=400, n_real=200)
    edm = fit.answer(n_base=400, n_real=200, generator="edm")
    assert edm.low < 400 < edm.high
    answers = fit.answers(n_base=400, n_real=200)
    assert [one.generator for one in answers] == ["edm", "sd"]
    assert answers[0] == edm
    assert answers[1].low > edm.high
    with pytest.raises(eg.UserError, match=r"no curve has generator='x'; there are: .*edm"):
        fit.answer(n_base=400, n_real=200, generator="x")


def test_equiv_takes_a_table_its_file_or_a_fit(tmp_path):
    frame = table(generators={"edm": 0.3}, bases=(100,))
    fit = eg.fit(frame)
    frame.to_csv(tmp_path / "results.csv", index=False)
    answers = {
        source: eg.equiv(given, n_base=100, n_real=100).to_json()
        for source, given in [("frame", frame), ("file", tmp_path / "results.csv"),
                              ("words", str(tmp_path / "results.csv")), ("fit", fit)]
    }  # fmt: skip
    assert answers["frame"] == fit.answer(n_base=100, n_real=100).to_json()
    assert answers["frame"] == answers["words"] == answers["fit"] == answers["file"]


def test_a_fit_is_the_analysis_of_the_table():
    frame = eg.fit(table(generators={"edm": 0.3}, bases=(100,))).table
    assert list(frame.columns) == list(eg.COLUMNS)
    again = eg.fit(frame, dataset_size=5_000)
    settings = eg.Settings(dataset_sizes={"dataset": 5_000})
    assert again.to_json() == analyse(frame, settings=settings).to_json()
    assert again.curves[0].tau == 10 / 5_000


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: eg.fit(pd.DataFrame({"accuracy": [1.0]})), "fit: no column n_base"),
        (lambda: eg.fit("nowhere.csv"), "fit: nowhere.csv: cannot be read"),
        (lambda: eg.fit(table(generators={}), metric="f2"), "fit: "),
        (lambda: eg.fit(table(generators={})).answer(100, 100), "no usable training with synth"),
        (lambda: eg.fit(table(generators={"a": 1})).answer(150, 9), "base 150 was not measured"),
        (lambda: eg.fit(table(generators={"a": 1})).answer(100, 0), "n_real 0; write numbers"),
    ],
)
def test_bad_input_is_told_in_one_line(ask, message):
    with pytest.raises(eg.UserError, match=message) as told:
        ask()
    assert "\n" not in str(told.value)


def test_fits_and_answers_show_themselves():
    frame = table(generators={"<i>x</i>": 0.3}, bases=(100,))
    fit = eg.fit(frame)
    answer = fit.answer(n_base=100, n_real=100)
    for html in (fit._repr_html_(), answer._repr_html_()):
        assert "<i>" not in html
        assert "&lt;i&gt;" in html
    assert "images" in answer._repr_html_()
    assert "accuracy %" in str(fit)
    assert json.loads(json.dumps(answer.to_json(), allow_nan=False))["text"] == answer.text


@pytest.mark.long
def test_a_fit_writes_a_report(tmp_path):
    path = eg.fit(table(generators={"edm": 0.3}, bases=(100,))).report(tmp_path / "out")
    assert "edm" in path.read_text()
    (tmp_path / "file").write_text("")
    with pytest.raises(eg.UserError, match="out: .* cannot be written"):
        eg.fit(table(generators={"edm": 0.3}, bases=(100,))).report(tmp_path / "file" / "x")


# Pools --------------------------------------------------------------------------------------------

SHARD = 90


@pytest.fixture
def sampled(planned, mini):
    """A run whose pools hold two shards of noise each; and the images of each pool, by base."""
    store, the_plan = planned(mini)
    store.put_json("grids/mini/spec.json", load(mini).model_dump(mode="json"))
    made = {}
    for number, pool in enumerate(the_plan.pools.values()):
        draw = np.random.default_rng(number)
        images = draw.integers(0, 256, (2 * SHARD, 8, 8, 1), np.uint8)
        labels = np.arange(2 * SHARD) % 10
        for index in range(2):
            rows = slice(index * SHARD, (index + 1) * SHARD)
            shards.write(store, pool.manifest(index), images[rows], labels[rows])
        made[the_plan.jobs[pool.generator_id].payload.subset.n] = images, labels
    return eg.open_run("mini", store.uri), made


def test_a_pool_is_a_dataset(sampled):
    run, made = sampled
    for n_base, (images, labels) in made.items():
        pool = run.pool("edm", n_base=n_base)
        assert len(pool) == 2 * SHARD
        assert pool.classes == tuple("0123456789")
        one = list(pool)
        assert np.array_equal([image for image, _ in one], images)
        assert [label for _, label in one] == labels.tolist()
        assert np.array_equal(pool[-1][0], images[-1])
        parts = list(pool.batches(50))
        assert [len(part) for _, part in parts] == [50, 50, 50, 30]
        assert np.array_equal(np.concatenate([part for part, _ in parts]), images)
        every, classes = pool.arrays()
        assert np.array_equal(every, images)
        assert np.array_equal(classes, labels)
        assert classes.dtype == np.int64


def test_a_pool_may_be_cut(sampled):
    run, made = sampled
    images, _ = made[60]
    for n in (1, SHARD, SHARD + 7):
        pool = run.pool("edm", n=n, n_base=60)
        assert len(list(pool)) == len(pool) == n
        assert np.array_equal(pool.arrays()[0], images[:n])
        with pytest.raises(IndexError):
            pool[n]


def test_pytorch_reads_a_pool_with_workers(sampled):
    import torch

    run, made = sampled
    loader = torch.utils.data.DataLoader(run.pool("edm", n_base=120), batch_size=64, num_workers=1)
    read = [batch for batch, _ in loader]
    assert np.array_equal(torch.cat(read).numpy(), made[120][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "^pool: 2 pools fit of edm; choose by n_base= 60 or 120$"),
        ({"n_base": 60, "n": 181}, "^pool: n= 181; edm of mini has 180 images$"),
    ],
)
def test_which_pool_is_meant_is_asked_in_the_words_of_python(sampled, options, message):
    with pytest.raises(eg.UserError, match=message):
        sampled[0].pool("edm", **options)
    with pytest.raises(eg.UserError, match="'edn' is no generator of the grid; it has edm"):
        sampled[0].pool("edn")
    with pytest.raises(eg.UserError, match="size is 0"):
        sampled[0].pool("edm", n_base=60).batches(0)


def test_a_broken_shard_is_told(sampled):
    run, _ = sampled
    pool = run.pool("edm", n_base=60)
    content = run.store.get_json(pool._refs[1].manifest)
    run.store.put(content["data"], b"broken")
    pool[0]
    with pytest.raises(eg.StoreError, match="the next run of the grid makes it again"):
        pool[SHARD]


def test_a_run_without_results_says_so(sampled):
    run, _ = sampled
    assert run.results().empty
    assert not run.complete
    assert "0 of 20 cells have a result" in run._repr_html_()
    with pytest.raises(eg.UserError, match="no usable training"):
        run.answer(n_base=60, n_real=60)


# Progress in a notebook ---------------------------------------------------------------------------


def test_progress_in_a_notebook_is_one_output_that_changes():
    pytest.importorskip("IPython", reason="where there is no IPython there is no notebook")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from rich.console import Console

    from equigrid.grid.reporting.progress import Progress, Stage

    InteractiveShell.instance()
    now = [0.0]
    stage = Stage(total=10)
    console = Console(force_jupyter=True, file=io.StringIO())
    with (
        capture_output() as shown,
        Progress({"trial": stage}, console, clock=lambda: now[0]) as progress,
    ):
        for _ in range(10):
            stage.done += 1
            now[0] += 0.4
            progress.update()
    first, *later = shown.outputs
    ids = {output.transient["display_id"] for output in shown.outputs}
    assert len(ids) == 1
    assert not first.update
    assert all(output.update for output in later)
    assert 3 <= len(later) <= 6  # once a second, and the last
    assert "10/10" in shown.outputs[-1].data["text/html"]


def test_a_store_of_a_run_is_a_store(sampled):
    assert isinstance(sampled[0].store, Store)


# Questions and costs ------------------------------------------------------------------------------


def test_costs_are_the_commands():
    fit = eg.fit(table(generators={"edm": 0.3}, bases=(100,)))
    prices = {"cost_real": 0.05, "cost_syn": 0.0004, "cost_generator": 2.0}
    answer = fit.answer(n_base=100, n_real=100, **prices)
    from equigrid.analysis.answer.practical import equiv

    (curve,) = equiv(fit.analysis, 100, 100, **prices).curves
    assert answer.costs == curve.costs
    assert answer.costs.real == 5
    assert answer.costs.syn_low == pytest.approx(2 + 0.0004 * answer.low)
    assert answer.to_json()["costs"]["cheaper"] == answer.costs.cheaper == "synthetic is cheaper"
    assert str(answer).splitlines()[1].startswith("cost: real 5.00; synthetic ")
    assert "synthetic is cheaper" in answer._repr_html_()
    assert fit.answer(n_base=100, n_real=100).costs is None
    with pytest.raises(eg.UserError, match="cost_syn is missing"):
        fit.answer(n_base=100, n_real=100, cost_real=1.0)
    with pytest.raises(eg.UserError, match="cost_real is -1"):
        eg.equiv(fit, n_base=100, n_real=100, cost_real=-1, cost_syn=1)


def test_a_question_is_checked_before_anything_runs(mini, tmp_path):
    with pytest.raises(eg.UserError, match="n_base 61 is no base size of the grid"):
        eg.run(mini, tmp_path / "store", until=eg.Question(n_base=61, n_real=60, within=2))
    with pytest.raises(eg.UserError, match="within=FACTOR is missing"):
        eg.run(mini, tmp_path / "store", until=eg.Question(n_base=60, n_real=60))
    with pytest.raises(eg.UserError, match="holds no grid yet"):
        eg.next_steps(mini, eg.Question(n_base=60, n_real=60), tmp_path / "store")


def test_next_steps_show_themselves(sampled, monkeypatch):
    run, _ = sampled
    with pytest.raises(eg.UserError, match="nothing has run yet"):
        eg.next_steps("mini", eg.Question(n_base=60, n_real=60), run.store.uri)
    from equigrid.analysis.answer.asking import Suggested, Training
    from equigrid.grid.api.plans import NextSteps

    amount = eg.fit(table(generators={"edm": 0.3})).answer(n_base=400, n_real=400).amount
    step = Suggested((Training(100, 0, 50, 0, "edm", 1, 0, 2),), "one <more>", 2.0, 1.5, 90.0)
    found = NextSteps(amount, (step,))
    assert found.frame.to_dict("records") == [{"step": 0, **step.trainings[0]._asdict()}]
    assert str(found).splitlines() == [amount.text, "one <more> ×2 → ×1.5 2 min"]
    assert "one &lt;more&gt;" in found._repr_html_()
