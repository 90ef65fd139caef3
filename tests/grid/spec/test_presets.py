"""The paper's presets have the paper's cells: counted against its tables, as the analysis holds
them.
"""

import re
from collections import Counter

import pandas as pd
import pytest

from equigrid.analysis.paper import published
from equigrid.grid.spec import presets

TABLES = {
    "cifar10": ("cifar10", (9, 10, 11)),
    "bloodmnist": ("bloodmnist", (12, 13)),
    "imagenet100": ("imagenet100", (14, 15, 16, 17, 18, 19)),
    "imagenet10": ("imagenet10", (20,)),
    "imagenet10-zero-shot": ("imagenet10", (21,)),
    "imagenet100-zero-shot": ("imagenet100", (21,)),
}
RECIPES = {"cifar10": "paper/cifar10", "bloodmnist": "paper/bloodmnist"}
# What each preset's EDM and DiT are made for: kind, side of the images, and the heights in pixels
# at which the EDM's levels attend (16 of 32 as published), or the side of the DiT's latents.
NETWORKS = {
    **dict.fromkeys(
        ("digits", "digits-augmentations", "digits-finetune", "digits-longtail", "digits-quality"),
        {("edm", 8, ())},
    ),
    "pneumoniamnist-2cores": {("edm", 28, ())},
    **dict.fromkeys(
        ("cifar10", "cifar10-augmentations", "cifar10-table6", "bloodmnist"), {("edm", 32, (16,))}
    ),
    "imagenet100": {("dit", 256, 32)},
    "cifar10-2cores": {("edm", 32, ()), ("dit", 32, 8)},
    **dict.fromkeys(
        (f"cifar10-{name}-2cores" for name in ("table6", "table20", "zero-shot")), {("edm", 32, ())}
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_presets_cells_are_the_tables(plan_of, name):
    the_plan = plan_of(name)
    nominal = {"imagenet100": 130_000, "bloodmnist": 12_000}.get(
        name, the_plan.resolved.shape.n_train
    )
    found = Counter(
        _cell(cell, the_plan.resolved.shape.n_train, nominal) for cell in the_plan.cells
    )
    assert set(found.values()) == {3}  # three trials of each
    assert set(found) == _published(*TABLES[name])
    assert {cell.recipe for cell in the_plan.cells} == {RECIPES.get(name, "paper/imagenet")}


def test_the_paper_counts(plan_of):
    """Cells worked out by hand from the tables' rows: base, real, and each generator's."""
    assert len(plan_of("cifar10").cells) == 3 * (4 + 9 + 20 + 17)
    assert len(plan_of("bloodmnist").cells) == 3 * (3 + 5 + 15)
    assert len(plan_of("bloodmnist-sd3").cells) == 3 * (1 + 1)
    assert len(plan_of("imagenet100").cells) == 3 * 2 * (3 + 9 + 13 + 13)
    assert len(plan_of("imagenet10").cells) == 3 * (5 + 5)
    assert len(plan_of("imagenet10-zero-shot").cells) == 3 * (1 + 4 + 4)
    assert len(plan_of("imagenet100-zero-shot").cells) == 3 * (1 + 3)


def test_zero_shot_pools_have_enough_of_the_unseen_classes(plan_of):
    """65,000 synthetic images of five unseen classes are as many of a pool that has no others."""
    the_plan = plan_of("imagenet10-zero-shot")
    pool = next(iter(the_plan.pools.values()))
    read = max(len(job.needs) - 1 for job in the_plan.of_kind("trial"))
    assert read == pool.shards(65_000)
    assert pool.shard(read - 2).stop < 65_000 <= pool.shard(read - 1).stop
    assert {cell.n_base for cell in the_plan.cells} == {6_500}


def test_table_20_fixes_the_synthetic_amount(plan_of):
    cells = plan_of("imagenet10").cells
    assert {cell.n_syn for cell in cells} == {13_000}
    assert sorted({cell.n_base for cell in cells}) == [0, 130, 1_300, 6_500, 13_000]


def test_bloodmnist_adds_what_there_is(plan_of):
    """11,959 training images where the paper says 12,000."""
    cells = plan_of("bloodmnist").cells
    assert {cell.n_real_added for cell in cells if cell.n_base == 6000 and cell.arm == "real"} == {
        3000,
        5959,
    }
    assert {cell.n_nominal for cell in cells if cell.n_base == 11_959} == {12_000}


def test_every_presets_first_lines_say_what_it_is_and_whether_it_ran():
    from equigrid.grid.spec import PRESETS

    for name in presets():
        head = (PRESETS / f"{name}.yaml").read_text().split("name:")[0]
        assert re.match(r"# .+\.\n", head), name  # `equigrid presets` shows the first line alone
        assert re.search(r"not yet run|\b20\d\d-\d\d-\d\d\b", head, re.IGNORECASE), name


def _cell(cell, n_train: int, nominal: int) -> tuple:
    """A cell as the tables name it: sizes as the paper rounds them."""
    everything = cell.n_base + cell.n_real_added == n_train
    base = cell.n_nominal
    real = nominal - base if everything and cell.n_real_added else cell.n_real_added
    return cell.classifier, cell.generator, base, real, cell.n_syn


def _published(dataset: str, tables: tuple[int, ...]) -> set[tuple]:
    rows = pd.read_csv(published.TABLES / "accuracy.csv")
    rows = rows[rows.table.isin(tables) & (rows.dataset == dataset)]
    names = {"vit_b32": "vit-b32"}
    return {
        (names.get(row.classifier, row.classifier), row.generator if isinstance(row.generator, str) else None,
         row.n_base, row.n_real_added, row.n_syn)
        for row in rows.itertuples()
    }  # fmt: skip


def test_table_6_has_its_four_settings(plan_of):
    found = Counter(
        (cell.recipe, cell.arm, cell.n_total) for cell in plan_of("cifar10-table6").cells
    )
    assert found == {
        ("paper/cifar10-plain", "base", 50_000): 3, ("paper/cifar10-plain", "syn", 100_000): 3,
        ("paper/cifar10-flip", "base", 50_000): 3, ("paper/cifar10-crop", "base", 50_000): 3,
    }  # fmt: skip


@pytest.mark.long
def test_presets_for_two_cores_mirror_the_papers(plan_of):
    """Cells by arm, generator and recipe, without the three seeds."""
    seeds = 3

    def cells(name: str, *fields: str) -> Counter:
        return Counter(
            tuple(getattr(cell, field) for field in fields) for cell in plan_of(name).cells
        )

    assert cells("cifar10-smoke", "arm") == {("base",): seeds, ("real",): 2 * seeds}
    assert cells("cifar10-2cores", "arm", "generator") == {
        ("base", None): seeds, ("real", None): 2 * seeds, ("copies", None): 2 * seeds,
        ("syn", "edm"): 2 * seeds, ("syn", "dit"): seeds,
    }  # fmt: skip
    assert cells("cifar10-table6-2cores", "recipe", "arm") == {
        ("smoke/cifar10-plain", "base"): seeds, ("smoke/cifar10-plain", "syn"): seeds,
        ("smoke/cifar10-flip", "base"): seeds, ("smoke/cifar10-crop", "base"): seeds,
    }  # fmt: skip
    table20 = cells("cifar10-table20-2cores", "generator", "setting", "n_base", "n_syn")
    assert table20 == {
        (g, "open", n, 500): seeds for g in ("edm-3", "edm-18") for n in (0, 100, 500)
    }
    assert cells("cifar10-zero-shot-2cores", "n_base", "n_syn") == {
        (500, n): seeds for n in (0, 100, 500)
    }


def test_presets_of_one_store_share_what_is_alike(plan_of):
    """The EDM of cifar10-2cores serves its Table 6, and its real trials are those of
    cifar10-smoke.
    """
    main, table6, smoke = (
        plan_of(f"cifar10-{name}") for name in ("2cores", "table6-2cores", "smoke")
    )
    assert {job.id for job in table6.of_kind("generator")} < {
        job.id for job in main.of_kind("generator")
    }
    assert {cell.trial_id for cell in smoke.cells} < {cell.trial_id for cell in main.cells}


@pytest.mark.long
def test_networks_are_made_for_the_images_of_their_grids(plan_of):
    found = {name: _networks(plan_of(name).resolved) for name in presets()}
    assert {name: networks for name, networks in found.items() if networks} == NETWORKS


def _networks(resolved) -> set[tuple]:
    side, found = resolved.shape.height, set()
    for config in (choice.config for choice in resolved.generators.values()):
        if config.kind == "edm":
            attending = {
                block.name for block in config.layout(side, side).encoder if block.attention
            }
            heights = {int(name.split("x")[0]) * config.network.patch for name in attending}
            found.add(("edm", side, tuple(sorted(heights))))
        elif config.kind == "dit":
            found.add(("dit", side, config.latent_side(side, side)))
    return found
