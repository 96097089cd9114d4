"""Prefer: wait: an answer that comes when there is something to say."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.api import preferences
from app.jobs import ledger, watch
from app.jobs.watch import Watch
from tdmr.errors import Failure
from tests.app.service import Service


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[threading.Event]:
    """One for each time that somebody begins to wait; set once they do."""
    found = [threading.Event() for _ in range(10)]
    begun = iter(found)
    beyond = Watch.beyond

    async def told(self: Watch, *given: Any) -> bool:
        next(begun).set()
        return await beyond(self, *given)

    monkeypatch.setattr(Watch, "beyond", told)
    monkeypatch.setattr(watch, "ROUND_SECONDS", 0.01)
    return found


@contextmanager
def asked(service: Service, job_id: str, **headers: str) -> Iterator[list[Any]]:
    """A request under way; its answer once the block is left."""
    found: list[Any] = []

    def ask() -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        found.append(service.client.get(f"/v1/jobs/{job_id}", headers=named))

    thread = threading.Thread(target=ask)
    thread.start()
    yield found
    thread.join()


def test_it_comes_as_soon_as_something_has_changed(
    service: Service, waits: list[threading.Event]
) -> None:
    job = service.job()
    seen = service.client.get(f"/v1/jobs/{job['id']}")
    etag = seen.headers["ETag"]
    with asked(service, job["id"], Prefer="wait=60", If_None_Match=etag) as found:
        assert waits[0].wait(60)
        assert found == []
        assert service.claim("distil") is not None
    assert (found[0].status_code, found[0].json()["status"]) == (200, "running")
    assert found[0].headers["ETag"] != etag
    assert found[0].headers["Preference-Applied"] == "wait=60"


def test_without_an_etag_it_comes_with_the_jobs_end(
    service: Service, waits: list[threading.Event]
) -> None:
    claim = service.running()
    with asked(service, claim.job_id, Prefer="respond-async, wait=60") as found:
        assert waits[0].wait(60)
        service.client.post(f"/v1/jobs/{claim.job_id}/pause")
        assert waits[1].wait(60)
        assert found == []
        service.do(ledger.fail, claim, Failure(code="x", user_error=True, detail="Made up."))
    assert found[0].json()["status"] == "failed"
    assert "Retry-After" not in found[0].headers


def test_it_comes_unchanged_when_the_time_is_over(service: Service) -> None:
    job = service.job()
    etag = service.client.get(f"/v1/jobs/{job['id']}").headers["ETag"]
    headers = {"Prefer": "wait=1", "If-None-Match": etag}
    answer = service.client.get(f"/v1/jobs/{job['id']}", headers=headers)
    assert (answer.status_code, answer.headers["ETag"]) == (304, etag)
    assert answer.headers["Retry-After"] == "2"


@pytest.mark.usefixtures("never")
def test_what_has_ended_is_not_waited_for(service: Service) -> None:
    job = service.job()
    service.client.post(f"/v1/jobs/{job['id']}/cancel")
    answer = service.client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=60"})
    assert answer.json()["status"] == "cancelled"


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=-1", "wait=x", "waiting=3", "wait=0"])
def test_other_preferences_are_left(service: Service, prefer: str) -> None:
    job = service.job()
    answer = service.client.get(f"/v1/jobs/{job['id']}", headers={"Prefer": prefer})
    assert answer.status_code == 200
    assert "Preference-Applied" not in answer.headers


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    async def beyond(*_: object) -> bool:
        raise AssertionError("somebody waits")

    monkeypatch.setattr(Watch, "beyond", beyond)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("wait=5", 5), ("Wait = 7", 7), ('wait="9"', 9), ("a;b=1, wait=3; x=1", 3), ("wait=999", 60)],
)
def test_how_long(given: str, seconds: int) -> None:
    request = preferences.Request({"type": "http", "headers": [(b"prefer", given.encode())]})
    assert preferences.wait_seconds(request) == seconds
