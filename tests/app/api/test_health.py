"""/healthz and /readyz."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.api.core import Core
from app.db import now
from app.models import Job
from app.storage import local
from tests.app.service import Service


def wrong(client: TestClient) -> list[str]:
    """What isn't ready."""
    response = client.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response.headers["Retry-After"] == "5"
    return [each["pointer"] for each in response.json()["errors"]]


def test_a_fresh_service_is_well_and_ready(anonymous: TestClient) -> None:
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    assert anonymous.get("/readyz").json() == {
        "status": "ready",
        "checks": {"database": "ok", "storage": "ok", "worker": "ok"},
    }


def test_without_its_tables_it_isnt_ready_but_well(anonymous: TestClient, core: Core) -> None:
    with core.database.write() as session:
        for table in ("students", "events", "jobs"):
            session.execute(text(f"DROP TABLE {table}"))
    assert wrong(anonymous) == ["/checks/database"]
    assert anonymous.get("/healthz").status_code == 200


def test_without_room_it_isnt_ready(anonymous: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MIN_FREE_BYTES", 2**60)
    assert wrong(anonymous) == ["/checks/storage"]


def test_work_that_nobody_takes_up_means_no_worker(service: Service) -> None:
    service.upload()
    assert service.client.get("/readyz").status_code == 200
    with service.core.database.write() as session:
        patience = timedelta(seconds=service.core.settings.lease_seconds + 1)
        session.query(Job).update({"run_after": now(session) - patience})
    assert wrong(service.client) == ["/checks/worker"]
    assert "path" not in service.client.get("/readyz").text
    service.upload()
    service.claim("ingest")  # a heart beats again
    assert service.client.get("/readyz").status_code == 200
