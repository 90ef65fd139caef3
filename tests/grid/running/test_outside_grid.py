"""A grid with images kept apart, through the driver: stopped, resumed, grown, and read."""

import pytest

from equigrid.grid.reporting import analysis_bridge
from equigrid.grid.running import driver
from equigrid.grid.spec import load
from equigrid.grid.store import Store, layout, results

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("ray_here")]


@pytest.fixture
def spec(mini) -> dict:
    edm = mini["generators"].pop("edm")
    mini["outside"] = {"images": 400}
    mini["generators"] = {"open": edm | {"trained_on": "outside"}, "closed": edm}
    mini["blocks"] = [
        {"n_base": [60, 120], "real": [1, 2], "syn": {"open": [1, 3], "closed": [1]}, "copies": [1]}
    ]
    return mini


def trained(store: Store) -> dict[str, str]:
    """When each generator in the store was trained, by its name and images."""
    manifests = (store.get_json(name) for name in store.list(layout.GENERATORS.root)
                 if layout.GENERATORS.is_manifest(name))  # fmt: skip
    return {f"{m['name']} {m['n_images']} {m['values']}": m["started_at"] for m in manifests}


@pytest.mark.slow
def test_stopped_resumed_and_grown(spec, tmp_path, quiet, outcomes):
    whole, cut = (Store(tmp_path / name, create=True) for name in ("whole", "cut"))
    undisturbed, _ = driver.run(load(spec), whole, console=quiet)
    assert not undisturbed.failures
    assert undisturbed.jobs["generator"] == 3  # of images kept apart, and of the two bases

    first, _ = driver.run(load(spec), cut, console=quiet, max_trials=5)
    before = trained(cut)
    assert first.jobs["trial"] < undisturbed.jobs["trial"]
    second, the_plan = driver.run(load(spec), cut, console=quiet)
    assert not second.failures
    for kind, n in undisturbed.jobs.items():
        assert first.jobs.get(kind, 0) + second.jobs.get(kind, 0) == n, kind
    assert before.items() <= trained(cut).items()  # none was trained again
    assert outcomes(cut) == outcomes(whole)

    spec["subset_seeds"] = [0, 1]
    spec["blocks"][0]["n_base"] = [60, 90, 120]
    grown, the_plan = driver.run(load(spec), cut, console=quiet)
    assert not grown.failures
    # The base of 90, and all three of the other subset seed; that of other images serves them too.
    assert grown.jobs["generator"] == 4
    assert {name for name in trained(cut) if name.startswith("open")} == {
        name for name in before if name.startswith("open")
    }
    rows = results.read(cut).to_pandas()
    by_arm = rows[rows["arm"] == "syn"].groupby("generator")["setting"].unique()
    assert {name: list(found) for name, found in by_arm.items()} == {
        "open": ["open"], "closed": ["closed"],
    }  # fmt: skip
    assert sorted(rows[rows["generator"] == "open"]["n_base"].unique()) == [60, 90, 120]

    table, analysis = analysis_bridge.fit(cut, the_plan)
    assert {curve.setting for curve in analysis.curves} == {"open", "closed"}
    report = analysis_bridge.write_report(cut, the_plan, table, analysis, tmp_path / "out")
    text = report.read_text()
    assert "images kept apart" in text
    assert "open (open set)" in text
