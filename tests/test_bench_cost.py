"""The benchmark of costs, at a size that says nothing about speed: that it runs, and its keys."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import cost

TINY = replace(
    cost.FAST,
    foundation="vit_tiny_patch16_224",
    architecture=(("img_size", 64), ("embed_dim", 48), ("depth", 4)),
    student="test_resnet",
    side=64,
    images=16,
    batch=8,
    stored_views=2,
    proxy_steps=3,
    rounds=2,
    steps=2,
    tiny_steps=2,
)
RATIOS = (
    "warm_epoch_over_plain",
    "cold_job_over_online",
    "online_over_plain",
    "online_over_timm",
    "pipeline_over_memory_student",
    "pipeline_over_memory_tiny",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the benchmark stores."""
    measured = cost.measure(TINY, tmp_path_factory.mktemp("cost"), Console(quiet=True))
    stored: dict[str, object] = json.loads(json.dumps(measured))
    return stored


def leaves(value: object) -> list[float]:
    """Every number below `value`."""
    if isinstance(value, dict):
        return [number for each in value.values() for number in leaves(each)]
    assert isinstance(value, int | float)
    return [value]


def test_every_ratio_is_there_with_its_range(found: dict[str, object]) -> None:
    for name in (*RATIOS, "pipeline_over_memory"):
        assert all(math.isfinite(n) and n > 0 for n in leaves(found[name])), name
    ratios = found["ratios"]
    assert isinstance(ratios, dict)
    for name in RATIOS:
        assert 0 < ratios[name]["low"] <= ratios[name]["median"] <= ratios[name]["high"]
        assert found[name] == ratios[name]["median"]


def test_every_method_has_every_figure(found: dict[str, object]) -> None:
    for key in ("seconds_per_epoch", "job_seconds", "images_per_second"):
        figures = found[key]
        assert isinstance(figures, dict)
        assert figures.keys() == cost.LABELS.keys()
        assert all(math.isfinite(n) and n > 0 for n in leaves(figures)), key


def test_the_foundation_forwards_of_a_job_follow_from_those_counted(
    found: dict[str, object],
) -> None:
    assert found["foundation_forwards"] == {
        "scratch": 0,
        "tdmr_cold": TINY.views * TINY.images,
        "tdmr_warm": TINY.views // TINY.stored_views,  # one live check of the views stored here
        "kd_online": TINY.epochs * TINY.images,
        "timm_online": TINY.epochs * TINY.images,
    }


def test_it_is_shown_and_drawn(found: dict[str, object], tmp_path: Path) -> None:
    console = Console(width=120, file=io.StringIO(), record=True)
    cost.show(console, found)
    assert "TDMR, cold cache" in console.export_text()
    cost.draw(found, tmp_path / "cost.svg")
    assert "<svg" in (tmp_path / "cost.svg").read_text()
