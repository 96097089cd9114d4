"""/v1/models/recommendations: what was measured, to whom it may be told, and nothing invented."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from app.api.core import Core
from app.students import latencies
from tdmr import catalog
from tests.app.students.test_latencies import MEASURED, NAMED

URL = "/v1/models/recommendations"
STUDENTS = [entry.name for entry in catalog.entries("student")]


def record(core: Core, owner: str | None = None, **changes: object) -> None:
    with core.database.write() as session:
        assert latencies.record(session, replace(MEASURED, **changes), owner)  # type: ignore[arg-type]  # what is given is meant to vary


def test_without_measurements_it_says_so(client: TestClient) -> None:
    found = client.get(f"{URL}?max_latency_ms=10").json()
    assert (found["machine"], found["machines"]) == (None, [])
    assert sorted(each["model"]["name"] for each in found["data"]) == sorted(STUDENTS)
    assert [each["rank"] for each in found["data"]] == list(range(1, len(STUDENTS) + 1))
    for each in found["data"]:
        assert each["verdict"] == "not_measured"
        assert (each["latency"], each["file_bytes"]) == (None, None)
        (reason,) = each["reasons"]
        assert (reason["found"], reason["fits"]) == (None, None)
        assert reason["detail"] == "Not measured yet."


def test_what_was_measured_comes_first_with_where_and_when(client: TestClient, core: Core) -> None:
    record(core, model="resnet18", input_size=224, p50_ms=20.0, p95_ms=30.0)
    record(core)
    found = client.get(f"{URL}?max_latency_ms=25&role=student").json()
    assert (found["machine"], found["machines"]) == (NAMED, [NAMED])
    first, second, *rest = found["data"]
    assert (first["model"]["name"], first["verdict"]) == ("test_resnet", "fits")
    assert first["latency"].pop("measured_at").endswith("Z")
    assert first["latency"] == {
        "p50_ms": 1.5,
        "p95_ms": 1.75,
        "input_size": 160,
        "machine": NAMED,
        "device": "cpu",
        "runtime": "onnxruntime 1.31.1, 1 thread",
    }
    assert first["file_bytes"] == 1_900_000
    assert (second["model"]["name"], second["verdict"]) == ("resnet18", "does_not_fit")
    assert second["reasons"][0]["found"] == 30.0
    assert {each["verdict"] for each in rest} == {"not_measured"}


def test_a_students_own_measurement_is_its_owners(
    client: TestClient, core: Core, stranger: dict[str, str]
) -> None:
    record(core, owner="ana")
    assert client.get(URL).json()["machines"] == [NAMED]
    assert client.get(URL, headers=stranger).json()["machines"] == []
    response = client.get(f"{URL}?machine={NAMED}", headers=stranger)
    assert response.status_code == 422
    assert NAMED not in str(response.json()["errors"])


def test_another_machine_can_be_asked_for(client: TestClient, core: Core) -> None:
    record(core)
    record(core, model="resnet18", input_size=224)
    record(core, machine="other", p50_ms=7.0)
    found = client.get(URL, params={"machine": "other"}).json()
    assert (found["machine"], found["machines"]) == ("other", [NAMED, "other"])
    assert found["data"][0]["latency"]["p50_ms"] == 7.0
    assert found["data"][1]["verdict"] == "not_measured"


@pytest.mark.parametrize(
    "query",
    [
        "role=foundation",
        "max_params=0",
        "max_params=1.5",
        "max_latency_ms=nan",
        "max_latency_ms=inf",
        "max_latency_ms=-1",
        "max_file_bytes=x",
        "machine=none",
        "max_gmacs=1",
    ],
)
def test_limits_that_cant_be(client: TestClient, query: str) -> None:
    response = client.get(f"{URL}?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == f"/query/{query.partition('=')[0]}"
