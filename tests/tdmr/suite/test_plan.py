"""Which cells are measured, with which options, and the estimate of their cost."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError
from torchvision import datasets
from typer.testing import CliRunner

from tdmr import catalog
from tdmr.cli import app
from tdmr.errors import OptionsError, UnknownModelError
from tdmr.suite import plan, sources
from tdmr.suite.cost import Cost, costs
from tdmr.suite.plan import Cell, cells, options_for, parse_shots

SMALL = Cell(dataset="pets", foundation="letters_vit", student="test_resnet", shots=10, seed=3)


def test_the_sources_are_whole() -> None:
    assert list(plan.RECIPES) == list(sources.SOURCES)
    for source in sources.SOURCES.values():
        assert source.terms
        assert all(re.fullmatch(r"[0-9a-f]{32}", archive.md5) for archive in source.archives)
        assert all(archive.url.startswith("http") for archive in source.archives)
    totals = {s.name: s.train + s.val + s.test for s in sources.SOURCES.values()}
    assert totals == {
        "cifar-100": 60_000,
        "flowers-102": 8_189,
        "pets": 7_349,
        "cub-200": 11_788,
        "food-101": 101_000,
    }


def test_checksums_are_those_that_torchvision_publishes() -> None:
    flowers, pets = datasets.Flowers102, datasets.OxfordIIITPet
    published = {md5 for _, md5 in flowers._file_dict.values()}
    published |= {md5 for _, md5 in pets._RESOURCES} | {datasets.Food101._MD5}
    ours = {
        archive.md5
        for source in sources.SOURCES.values()
        for archive in source.archives
        if archive.checked_by == "torchvision"
    }
    assert ours == published


def test_the_standard_models_are_in_the_catalog() -> None:
    for name in plan.FOUNDATIONS:
        assert catalog.require(name, "foundation") == name
    for name in plan.STUDENTS:
        assert catalog.require(name, "student") == name


def test_every_combination_once_in_the_order_that_shares_features() -> None:
    found = cells(["pets", "cub-200"], ["letters_vit"], ["resnet18", "test_resnet"], [1, "all"], 2)
    assert len(found) == len(set(found)) == 2 * 2 * 2 * 2
    features = [(cell.dataset, cell.shots, cell.seed, cell.foundation) for cell in found]
    assert features[::2] == features[1::2]
    assert len(set(features)) == 8


def test_shots_that_take_everything_are_left_out_beside_all() -> None:
    def shots(*wanted: plan.Shots) -> set[plan.Shots]:
        found = cells(["flowers-102"], ["letters_vit"], ["resnet18"], wanted, 1)
        return {cell.shots for cell in found}

    assert shots(5, 10, "all") == {5, "all"}
    assert shots(5, 10) == {5, 10}


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownModelError, match="resnet18"):
        cells(["pets"], ["letters_vit"], ["resnet81"], [1], 1)
    with pytest.raises(OptionsError, match="at least one seed"):
        cells(["pets"], ["letters_vit"], ["resnet18"], [1], 0)
    with pytest.raises(OptionsError, match=r"no dataset of this suite.*pets"):
        sources.require("pet")
    for text in ("0", "-1", "some"):
        with pytest.raises(OptionsError, match="can't be drawn"):
            parse_shots([text])
    assert parse_shots(["1,5", "all"]) == [1, 5, "all"]


def test_options_are_the_recipe_then_overrides_then_the_seed() -> None:
    options = options_for(SMALL, {"views": {"count": 2}, "training": {"steps": 7}})
    assert (options.image_size, options.foundation_size, options.seed) == (224, 224, 3)
    assert (options.views.count, options.views.flip) == (2, 0.5)
    assert (options.training.steps, options.training.batch_size) == (7, plan.FEW.batch_size)
    whole = options_for(SMALL.model_copy(update={"shots": "all"}), {})
    assert whole.training.steps == plan.RECIPES["pets"].full.steps
    with pytest.raises(ValidationError, match="sed"):
        options_for(SMALL, {"sed": 1})


def test_forwards_are_images_times_views_once_per_foundation_and_draw() -> None:
    planned = cells(["pets"], ["letters_vit"], ["test_resnet", "resnet18"], [10], 2)
    found = [cost for _, cost in costs(planned, {})]
    made, shared = 10 * 37 * 20 + 3_669, 3_669
    assert [cost.forwards for cost in found] == [made, shared, made, shared]
    assert all(cost.steps == 3 * 2_000 for cost in found)
    # Pixels: the test images once, the drawn ones per seed; features of the drawn ones per seed.
    pixels, features = 3 * 224 * 224, 10 * 37 * 20 * 6_144
    drawn = 370 * pixels + features
    assert [cost.bytes for cost in found] == [drawn + 3_669 * pixels, 0, drawn, 0]


def test_an_unknown_size_costs_no_forward_time() -> None:
    cell = SMALL.model_copy(update={"foundation": "local-dir:/somewhere"})
    ((_, cost),) = costs([cell], {})
    assert cost.hours == pytest.approx((6_000 * 0.02 + (370 + 3_669) / 300) / 3600, rel=0.02)


def test_the_help_states_what_the_estimate_says() -> None:
    words = " ".join(CliRunner().invoke(app, ["bench", "--help"]).stdout.split())
    planned = cells(list(plan.RECIPES), plan.FOUNDATIONS, plan.STUDENTS, plan.SHOTS, plan.SEEDS)
    whole = sum((cost for _, cost in costs(planned, {})), Cost())
    assert f"{len(planned):,} cells" in words
    assert f"about {whole.forwards / 1e6:.0f} million foundation forwards" in words
    assert f"{whole.steps / 1e6:.0f} million student steps" in words
    assert f"{round(whole.bytes / 1e9, -1):.0f} GB" in words
    assert "estimated and not measured" in words
    assert f"{whole.hours:.0f} hours" in words
    few = cells(["pets"], plan.FOUNDATIONS, plan.STUDENTS, [10], plan.SEEDS)
    hours = sum(cost.hours for _, cost in costs(few, {}))
    assert f"{len(few)} cells, about {hours:.0f} hours" in words
