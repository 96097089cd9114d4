"""`tdmr-worker measure`: real processes, one for each model, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from app.db import Database
from app.models import Latency
from app.settings import Settings
from app.students import latencies
from tdmr import catalog
from tdmr.export.machine import machine
from tests.worker.scenes import environment
from worker import measure
from worker.measure import MeasureError, Plan

ENTRIES = {entry.name: entry for entry in catalog.entries("student")}


def command(settings: Settings, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker", "measure", *options],
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )


def rows(database: Database) -> list[Latency]:
    with database.read() as session:
        return latencies.known(session, None)


def test_each_model_is_measured_once(settings: Settings, database: Database) -> None:
    options = ("--models", "test_resnet", "--runs", "20")
    first = command(settings, *options)
    assert first.returncode == 0, first.stderr
    (row,) = rows(database)
    assert (row.owner, row.model, row.input_size) == (None, "test_resnet", 160)
    assert 0 < row.p50_ms <= row.p95_ms
    assert row.machine == latencies.name_of(machine())
    assert row.runtime.endswith(", 1 thread")
    assert 0 < row.params < ENTRIES["test_resnet"].params  # ten classes instead of a thousand
    assert row.file_bytes == pytest.approx(4 * row.params, rel=0.1)
    assert first.stdout == (
        f"1/1 test_resnet: {row.p50_ms:.2f} ms, 95 % at most {row.p95_ms:.2f} ms\n"
    )
    again = command(settings, *options)
    assert (again.returncode, again.stdout) == (0, "1/1 test_resnet: measured before\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--models", "letters_vit"), "--models takes test_resnet"),
        (("--device", "cuda:0"), "--device takes cpu"),
        (("--runs", "19"), "20"),
    ],
)
def test_what_it_cant_do(settings: Settings, options: tuple[str, ...], said: str) -> None:
    ran = command(settings, *options)
    assert ran.returncode == 2
    assert said in " ".join(ran.stderr.replace("│", " ").split())


def test_a_model_that_fails_stops_none_of_the_others(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {
        "model": "resnet18",
        "input_size": 224,
        "params": 11_000_000,
        "bytes": 44_000_000,
        "latency": {"p50_ms": 1.0, "p95_ms": 2.0, "threads": 1},
        "machine": machine(),
    }

    def run(entry: catalog.CatalogEntry, runs: int) -> dict[str, Any]:
        if entry.name == "test_resnet":
            raise MeasureError("it has no luck")
        return found

    monkeypatch.setattr(measure, "run", run)
    told: list[str] = []
    plan = Plan([ENTRIES["test_resnet"], ENTRIES["resnet18"]])
    assert measure.measure(database, plan, told.append) == 1
    assert told == [
        "1/2 test_resnet: it has no luck",
        "2/2 resnet18: 1.00 ms, 95 % at most 2.00 ms",
    ]
    found["latency"]["p50_ms"] = 0.5
    assert measure.measure(database, replace(plan, again=True), told.append) == 1
    assert [row.p50_ms for row in rows(database)] == [0.5]


def test_the_last_words_of_a_process_that_failed() -> None:
    nothing = ENTRIES["test_resnet"].model_copy(update={"name": "nothing"})
    with pytest.raises(MeasureError, match="'nothing' isn't a timm model"):
        measure.run(nothing, 20)


def test_one_that_takes_too_long_is_ended() -> None:
    with pytest.raises(MeasureError, match=r"more than 0\.5 seconds"):
        measure.run(ENTRIES["test_resnet"], 20, patience=0.5)
