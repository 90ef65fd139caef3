"""Sample images of the report: the first of each class, from a real store, and no more of it than
they need.
"""

import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from equigrid.generators import registry
from equigrid.grid import jobs
from equigrid.grid.datasets import catalogue, shards
from equigrid.grid.planning.pending import pending
from equigrid.grid.planning.resolve import GeneratorChoice
from equigrid.grid.reporting import analysis_bridge, samples
from equigrid.grid.store import documents, layout


@pytest.fixture
def spec(mini):
    mini["blocks"], mini["seeds"] = [{"n_base": [60, 120], "syn": {"edm": [1]}}], [0]
    return mini


def sheets_and_lines(store, the_plan) -> tuple[dict, list[str]]:
    return samples.sheets(store, the_plan, dict.fromkeys(the_plan.pools, "edm"))


def sheets(store, the_plan) -> dict:
    return sheets_and_lines(store, the_plan)[0]


def run(store, the_plan, request_of, *kinds) -> None:
    for job in pending(store, the_plan)[0]:
        if not kinds or job.kind in kinds:
            outcome = jobs.run(store, request_of(store, the_plan, job))
            assert outcome["status"] == "ok", outcome


def test_sets_are_the_first_images_of_each_class(planned, request_of, spec):
    store, the_plan = planned(spec)
    assert [one["generator"] for one in sheets(store, the_plan)["sets"]] == [None]
    run(store, the_plan, request_of, "generator", "shard")
    found = sheets(store, the_plan)
    assert found["classes"] == [str(label) for label in range(10)]
    assert [(one["generator"], one["setting"], one["base"]) for one in found["sets"]] == [
        (None, None, None), ("edm", "closed", 60), ("edm", "closed", 120)]  # fmt: skip
    dataset = the_plan.resolved.dataset
    images = np.concatenate([shards.read(store, ref)[0] for ref in dataset.train])
    labels = catalogue.labels(store, dataset, "train")
    first, second = (shards.read(store, shards.ref(pool.manifest(0), documents.read(store, pool.manifest(0), documents.ShardRecord)))
                     for pool in the_plan.pools.values())  # fmt: skip
    for one, (pixels, truth) in zip(found["sets"], [(images, labels), first, second]):
        for label in range(10):
            shown = one["images"][one["labels"] == label]
            assert np.array_equal(shown, pixels[truth == label][: samples.PER_CLASS])
            assert len(shown) == 8


def test_what_is_not_there_or_spoilt_is_left_out_and_told(planned, request_of, spec):
    store, the_plan = planned(spec)
    run(store, the_plan, request_of, "generator", "shard")
    pool, _ = the_plan.pools.values()
    manifest = store.get_json(pool.manifest(0))
    assert sheets_and_lines(store, the_plan)[1] == []
    store.put(manifest["data"], b"not what was written")
    found, lines = sheets_and_lines(store, the_plan)
    assert [one["base"] for one in found["sets"]] == [None, 120]
    said = "cannot be read; a run that needs them makes them again"
    assert lines == [f"sample images: 1 shard of edm, base 60 {said}"]
    store.put(the_plan.resolved.dataset.train[0].data, b"not what was written")
    assert (
        f"sample images: 1 shard of the real images {said}" in sheets_and_lines(store, the_plan)[1]
    )


@pytest.fixture
def sorted_set(tmp_path):
    """Twenty classes of ten larger pictures, class by class as folders are, in two shards."""
    grey, _ = load_digits(return_X_y=True)
    for i in range(200):
        for split in ("train", "test"):
            path = tmp_path / "set" / split / f"{chr(97 + i // 10)}nt" / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((grey[i].reshape(8, 8) * 15.9).astype(np.uint8)).resize(
                (160, 160), 0
            ).save(path)
    return str(tmp_path / "set")


def test_of_many_classes_some_are_shown_and_large_images_small(planned, spec, sorted_set):
    store, the_plan = planned({**spec, "dataset": {"imagefolder": sorted_set}, "generators": {},
                               "classifiers": ["resnet20"], "blocks": [{"n_base": 40}]})  # fmt: skip
    found = sheets(store, the_plan)
    assert len(found["classes"]) == 12
    assert (found["classes"][0], found["classes"][-1]) == ("ant", "tnt")
    (one,) = found["sets"]
    assert one["images"].shape == (96, 64, 64, 3)
    assert np.bincount(one["labels"]).tolist() == [8] * 12
    last = one["images"][one["labels"] == 11][0].mean()
    assert last == pytest.approx(load_digits().images[190].mean() * 15.9, rel=0.05)  # tnt's first


@pytest.mark.long
def test_shards_are_read_until_there_are_enough(planned, request_of, spec, monkeypatch):
    spec["blocks"] = [{"n_base": 60, "syn": {"edm": ["1100 images"]}}]
    store, the_plan = planned(spec)
    run(store, the_plan, request_of, "generator", "shard")
    (pool,), train = the_plan.pools.values(), the_plan.resolved.dataset.train
    assert store.get_json(pool.manifest(2)) is not None and len(train) == 3
    read = []
    original = shards.read
    monkeypatch.setattr(
        shards, "read", lambda store, ref: read.append(ref.manifest) or original(store, ref)
    )
    sheets(store, the_plan)
    assert read == [train[0].manifest, pool.manifest(0)]


@pytest.mark.long
def test_the_report_shows_all_of_it(planned, request_of, spec, tmp_path):
    spec["quality"] = {"neighbours": 40}
    spec["domain_gap"] = {
        "images": 60,
        "patches": [4],
        "tsne": 20,
        "recipe": {"extends": "digits", "steps": 5},
    }
    spec["blocks"] += [{"n_base": 120, "recipe": {"extends": "digits", "steps": 5}}]
    store, the_plan = planned(spec)
    run(store, the_plan, request_of)
    table, analysis = analysis_bridge.fit(store, the_plan)
    path = analysis_bridge.write_report(store, the_plan, table, analysis, tmp_path / "out")
    html = path.read_text()
    files = {file.name for file in path.parent.iterdir()}
    for name in ("images-0", "domain", "tsne-0", "tsne-1", "quality-feature-distance"):
        assert f'id="{name}"' in html and f"{name}.png" in files, name
    assert "edm (closed set, trained on 60 and on 120 of them)" in html
    assert html.count("each above the training image that it is nearest to.</figcaption>") == 2
    for section in ("recipes", "quality", "domain-gap"):
        assert f'id="{section}"><summary>' in html
    assert "over that base alone with the recipe digits with steps 15." in html
    assert path.stat().st_size < 6_000_000


@pytest.mark.long
def test_generators_that_share_a_training_keep_their_names(planned, request_of, spec, tmp_path):
    """Two samplers of one network: one generator is trained, two pools are made, shown and
    measured.
    """
    quick = {**spec["generators"]["edm"], "sampler": {"steps": 2}}
    spec["generators"]["quick"] = quick
    spec["blocks"] = [{"n_base": 60, "syn": {"edm": 1, "quick": 1}}]
    spec["quality"] = {"neighbours": 0}
    store, the_plan = planned(spec)
    assert len(list(the_plan.of_kind("generator"))) == 1
    run(store, the_plan, request_of)
    table, analysis = analysis_bridge.fit(store, the_plan)
    path = analysis_bridge.write_report(store, the_plan, table, analysis, tmp_path / "out")
    html = path.read_text()
    for i, name in enumerate(("edm", "quick")):
        assert f"beside images of {name} (closed set" in html
        assert (path.parent / f"images-{i}.png").exists()
        assert html.count(f"<td>{name}, base 60</td>") == 1  # in the table of quality
    part = html.split("<h2>Costs: sampling pools</h2>")[1].split("</details>")[0]
    assert "<td>edm</td>" in part and "<td>quick</td>" in part
    assert "medians over a pool&#39;s shards" in part
    part = html.split('id="generators"><summary>')[1].split("</details>")[0]
    assert re.findall(r"<td>(edm|quick)</td>.*?>(\d+)</td>", part, re.DOTALL) == [
        ("edm", "4"),
        ("quick", "2"),
    ]
    first, second = (shards.read(store, shards.ref(pool.manifest(0), documents.read(store, pool.manifest(0), documents.ShardRecord)))[0]
                     for pool in the_plan.pools.values())  # fmt: skip
    assert not np.array_equal(first, second)


def test_a_preset_is_written_out_in_the_generators_table():
    """The paper's Table 7: guidance and prompt; and the filter."""
    rows = [analysis_bridge._generator_row(GeneratorChoice(name, registry.config({"kind": "stable-diffusion", "preset": name}), (0,)))
            for name in ("sd2", "sd3")]  # fmt: skip
    assert [(row["steps"], row["guidance"]) for row in rows] == [(50, 7.5), (28, 2.0)]
    assert (rows[0]["prompt"], rows[0]["filter"]) == ("High-quality photo of {a} {c}.", None)
    assert (
        rows[1]["prompt"]
        == "captions by meta-llama/Llama-2-7b-hf from c; c,bg; c,rel; 5 images each"
    )
    assert (
        rows[1]["filter"]
        == "the 20% of each class that openai/clip-vit-large-patch14 is least sure of are dropped"
    )
    (edm, dit) = (
        analysis_bridge._generator_row(GeneratorChoice(kind, registry.config({"kind": kind}), (0,)))
        for kind in ("edm", "dit")
    )
    assert (edm["steps"], edm["sigma min"], edm["sigma max"]) == (18, 0.002, 80.0)
    assert (dit["steps"], dit["guidance"]) == (250, 4.0)


@pytest.mark.long
def test_zero_shot_trials_reach_the_report(planned, spec, sorted_set, tmp_path):
    """What trials leave in the store becomes means over seeds; the trials themselves are
    test_grid_zero_shot's.
    """
    (tmp_path / "bert").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bert" / name).write_text("{}")
    store, the_plan = planned({
        **spec, "dataset": {"imagefolder": sorted_set}, "classifiers": ["resnet20"], "seeds": [0, 1],
        "generators": {"made": {"kind": "imported", "path": f"{sorted_set}/train"}},
        "zero_shot": {"text_encoder": str(tmp_path / "bert")},
        "blocks": [{"n_base": 40, "syn": {"made": [0.5, 1]}}],
    })  # fmt: skip
    for cell in the_plan.cells:
        accuracy = 20.0 + cell.n_syn + cell.seed
        facts = {
            "among_unseen": accuracy,
            "among_all": accuracy / 2,
            "seen_among_all": None,
            "n_train": 40,
        }
        store.put_json(layout.ZERO_SHOT.manifest(cell.trial_id), facts)
    table, analysis = analysis_bridge.fit(store, the_plan)
    path = analysis_bridge.write_report(store, the_plan, table, analysis, tmp_path / "out")
    part = path.read_text().split('id="zero-shot"><summary>')[1].split("</details>")[0]
    found = [re.findall(r"<td[^>]*>(.*?)</td>", line)[1:6] for line in part.split("<tr>")[2:]]
    assert [line[:4] for line in found] == [
        ["40", "", "0", "0"], ["40", "made", "20", "0.5"], ["40", "made", "40", "1"]]  # fmt: skip
    assert [line[4].split()[0] for line in found] == ["20.50", "40.50", "60.50"]
    assert (path.parent / "zero-shot-0.png").exists()


def test_runs_are_told_in_words():
    run = {
        "jobs": {"generator": 1, "trial": 12, "shard": 0}, "cached": {"trial": 3, "shard": 2},
        "failures": [{}], "retries": 2, "seconds": 75.0, "device_s": 1800.0, "interrupted": True,
        "taken_over": False, "budget_reached": False, "ended_at": "2026-11-29T23:01:02.5+00:00",
    }  # fmt: skip
    assert analysis_bridge._run_row(run) == {
        "ended, UTC": "2026-11-29 23:01", "how": "stopped", "took": "75 s",
        "ran": "1 generator, 12 trials", "done before": 5, "failed": 1, "tried again": 2,
        "device-hours": 0.5,
    }  # fmt: skip
    complete = {**run, "interrupted": False, "jobs": {}}
    assert (analysis_bridge._run_row(complete)["how"], analysis_bridge._run_row(complete)["ran"]) == (
        "complete", "nothing")  # fmt: skip
