"""Latencies: whose they are, written once; and the ranking that they make."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from threading import Barrier
from typing import Any

import pytest

from app.db import Database
from app.models import Latency
from app.students import latencies, recommend
from app.students.latencies import Measured
from tdmr.catalog import CatalogEntry

MACHINE = {"cpu": "Chip 9", "cores": 1, "system": "Linux x86_64", "onnxruntime": "1.31.1"}
NAMED = "Chip 9, 1 core, Linux x86_64"
ROW = {
    "published": True,
    "bytes": 1_900_000,
    "latency": {"p50_ms": 1.5, "p95_ms": 1.75, "batch": 1, "threads": 1},
}
METRICS: dict[str, Any] = {
    "student": {"architecture": "test_resnet", "params": 470_000, "input_size": 160},
    "exports": {"machine": MACHINE, "formats": {"onnx": ROW}},
}
MEASURED = Measured(
    machine=NAMED,
    device="cpu",
    model="test_resnet",
    input_size=160,
    p50_ms=1.5,
    p95_ms=1.75,
    file_bytes=1_900_000,
    params=470_000,
    runtime="onnxruntime 1.31.1, 1 thread",
)


def test_a_packaged_student_tells_how_fast_it_is() -> None:
    assert latencies.of_student(METRICS) == MEASURED


@pytest.mark.parametrize(
    "row", [{}, {**ROW, "published": False}, {**ROW, "latency": None}, {"published": True}]
)
def test_one_without_a_measured_file_tells_nothing(row: dict[str, Any]) -> None:
    exports = {"machine": MACHINE, "formats": {"onnx": row}}
    assert latencies.of_student({**METRICS, "exports": exports}) is None
    assert latencies.of_student({**METRICS, "exports": {"formats": {}}}) is None
    assert latencies.of_student({"accuracy": 1.0}) is None


def test_the_command_tells_the_same() -> None:
    found = {"model": "test_resnet", "input_size": 160, "params": 470_000, **ROW}
    assert latencies.of_command({**found, "machine": MACHINE}) == MEASURED
    named = latencies.name_of({**MACHINE, "cores": 16})
    assert named == "Chip 9, 16 cores, Linux x86_64"


def test_the_first_measurement_stays(any_database: Database) -> None:
    with any_database.write() as session:
        assert latencies.record(session, MEASURED, None)
        assert not latencies.record(session, replace(MEASURED, p50_ms=9.0), None)
        assert latencies.record(session, replace(MEASURED, input_size=96), None)
        assert latencies.record(session, replace(MEASURED, p50_ms=9.0), "ana")
    with any_database.read() as session:
        rows = latencies.known(session, "bob")
        assert [(row.p50_ms, row.input_size, row.owner) for row in rows] == [
            (1.5, 160, None),
            (1.5, 96, None),
        ]
        assert {row.owner for row in latencies.known(session, "ana")} == {None, "ana"}
        assert len(latencies.known(session, None)) == 2
    with any_database.write() as session:
        latencies.forget(session, MEASURED, None)
        assert latencies.record(session, replace(MEASURED, p50_ms=2.0), None)
    with any_database.read() as session:
        assert sorted(row.p50_ms for row in latencies.known(session, "bob")) == [1.5, 2.0]


def test_of_many_who_measured_one_writes_and_nobody_fails(any_database: Database) -> None:
    barrier = Barrier(8)

    def write(place: int) -> bool:
        barrier.wait()
        with any_database.write() as session:
            return latencies.record(session, replace(MEASURED, p50_ms=place), None)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1


def entry(name: str, params: int) -> CatalogEntry:
    return CatalogEntry(
        name=name,
        roles=["student"],
        family="cnn",
        params=params,
        gmacs=1.0,
        input_size=224,
        licence=None,
        offline=True,
        recommended=True,
        tags=[],
    )


def row(model: str, p50: float, **changes: Any) -> Latency:
    fields: dict[str, Any] = {
        **vars(MEASURED),
        "model": model,
        "input_size": 224,
        "p50_ms": p50,
        "p95_ms": p50 + 1,
        "measured_at": datetime(2026, 11, 21, 12, tzinfo=UTC),
        **changes,
    }
    return Latency(id=f"{model}{fields}"[:64], **fields)


ENTRIES = [entry("slow", 3), entry("new", 2), entry("quick", 4), entry("huge", 10**6)]
ROWS = [row("slow", 8.0, params=3), row("quick", 2.0, params=4), row("new", 1.0, machine="other")]


def ranked(limits: recommend.Limits, rows: list[Latency] = ROWS) -> list[tuple[str, str]]:
    found = recommend.rank(ENTRIES, rows, NAMED, limits)
    return [(each.entry.name, each.verdict) for each in found]


def test_the_measured_come_first_by_their_speed() -> None:
    expected = [("quick", "fits"), ("slow", "fits")]
    assert ranked({}) == [*expected, ("new", "not_measured"), ("huge", "not_measured")]


def test_what_doesnt_fit_stands_behind_what_does_and_before_what_isnt_known() -> None:
    assert ranked({"max_params": 3}) == [
        ("slow", "fits"),
        ("quick", "does_not_fit"),
        ("new", "not_measured"),
        ("huge", "does_not_fit"),  # whatever its speed
    ]


def test_the_limit_of_latency_holds_for_95_percent() -> None:
    assert ranked({"max_latency_ms": 3.0})[0] == ("quick", "fits")
    assert ranked({"max_latency_ms": 2.99})[0] == ("quick", "does_not_fit")


def test_sizes_other_than_the_catalogs_count_for_nothing() -> None:
    assert ranked({}, [row("slow", 1.0, input_size=96)])[0][1] == "not_measured"


def test_the_catalogs_measurement_comes_before_ones_own() -> None:
    own, shared = row("slow", 5.0, owner="ana"), row("slow", 8.0)
    for rows in ([own, shared], [shared, own]):
        (first, *_) = recommend.rank(ENTRIES, rows, NAMED, {})
        assert first.latency is shared
    assert recommend.rank(ENTRIES, [own], NAMED, {})[0].latency is own


def test_every_limit_has_a_reason() -> None:
    limits = {"max_params": 3, "max_latency_ms": 5.5, "max_file_bytes": 2e6}
    found = {each.entry.name: each for each in recommend.rank(ENTRIES, ROWS, NAMED, limits)}
    told = [(each.limit, each.found, each.fits) for each in found["quick"].reasons]
    assert told == [
        ("max_params", 4, False),
        ("max_latency_ms", 3.0, True),
        ("max_file_bytes", 1_900_000, True),
    ]
    assert [each.detail for each in found["quick"].reasons] == [
        "4 parameters as measured: more than 3.",
        f"95 % of single images take at most 3 ms, measured on {NAMED} on 2026-11-21: within 5.5.",
        "Its ONNX file has 1,900,000 bytes: within 2,000,000.",
    ]
    assert [(each.found, each.fits, each.detail) for each in found["new"].reasons] == [
        (2, True, "2 parameters with the catalog's head: within 3."),
        (None, None, "Not measured yet."),
        (None, None, "Not measured yet."),
    ]


def test_the_machine_with_the_most_models_is_the_first() -> None:
    assert recommend.machines(ROWS) == [NAMED, "other"]
    assert recommend.machines([]) == []
