"""A job's log as a stream: every entry once, in order, from wherever the reader was."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access import keys
from app.api import streaming
from app.api.core import Core
from app.jobs import ledger, watch
from app.jobs.claims import Claim
from app.models import ApiKey
from benchmarks.served import serving
from tdmr.errors import Failure
from tests.app.service import Service

STREAM = {"Accept": "text/event-stream"}
FAILURE = Failure(code="x", user_error=True, detail="Made up.")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "ROUND_SECONDS", 0.01)


def events(text: str) -> list[dict[str, str]]:
    """The events of a stream, by the standard's rules as far as they are used."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if "data" in fields:
            found.append(fields)
    return found


def read(service: Service, job_id: str, **headers: str) -> str:
    """The whole stream of a job that ends meanwhile."""
    answer = service.client.get(f"/v1/jobs/{job_id}/events", headers={**STREAM, **headers})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.text


def ended(service: Service) -> str:
    claim = service.running()
    for step in range(3):
        service.do(beat, claim, step)
    service.do(ledger.fail, claim, FAILURE)
    return claim.job_id


def beat(session: Any, claim: Claim, step: int) -> None:
    ledger.beat(session, claim, lease_seconds=60, progress={"step": step, "losses": {}})


def test_it_is_the_log_and_then_the_end(service: Service) -> None:
    job_id = ended(service)
    log = service.client.get(f"/v1/jobs/{job_id}/events").json()["data"]
    found = events(read(service, job_id))
    assert [json.loads(each["data"]) for each in found[:-1]] == log
    assert [each["id"] for each in found[:-1]] == [str(row["seq"]) for row in log]
    assert [each["event"] for each in found[:-1]] == [row["type"] for row in log]
    assert found[-1] == {"event": "end", "data": '{"status": "failed"}'}


def test_whoever_was_cut_off_goes_on_behind_the_last_entry_they_saw(service: Service) -> None:
    job_id = ended(service)
    whole = events(read(service, job_id))
    rest = events(read(service, job_id, **{"Last-Event-ID": "2"}))
    assert rest == whole[2:]
    assert events(read(service, job_id, **{"Last-Event-ID": "999"})) == whole[-1:]


def test_a_long_log_comes_whole(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PIECE", 2)
    job_id = ended(service)
    found = events(read(service, job_id))
    assert [each.get("id") for each in found] == ["1", "2", "3", "4", "5", "6", None]


def test_what_is_no_id_is_refused(service: Service) -> None:
    job = service.job()
    for given in ("x", "-1", "1.5", "9" * 13):
        headers = {**STREAM, "Last-Event-ID": given}
        answer = service.client.get(f"/v1/jobs/{job['id']}/events", headers=headers)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/header/Last-Event-ID"


def test_entries_come_as_they_are_written(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each entry is written only once the one before has been waited for."""
    claim = service.running()
    waits = threading.Semaphore(0)
    beyond = watch.Watch.beyond

    async def told(self: watch.Watch, *given: Any) -> bool:
        waits.release()
        return await beyond(self, *given)

    monkeypatch.setattr(watch.Watch, "beyond", told)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(read(service, claim.job_id)))
    reader.start()
    for step in range(3):
        assert waits.acquire(timeout=60)
        service.do(beat, claim, step)
    assert waits.acquire(timeout=60)
    service.do(ledger.fail, claim, FAILURE)
    reader.join()
    types = ["submitted", "started", "progress", "progress", "progress", "failed", "end"]
    assert [each["event"] for each in events(found[0])] == types


def test_a_quiet_job_is_heard_of(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = service.running()
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.01)
    beats = []
    beyond = watch.Watch.beyond

    async def told(self: watch.Watch, *given: Any) -> bool:
        beats.append(given)
        if len(beats) == 3:
            service.do(ledger.fail, claim, FAILURE)
        return await beyond(self, *given)

    monkeypatch.setattr(watch.Watch, "beyond", told)
    assert read(service, claim.job_id).count(": still here\n\n") >= 2


def test_a_stream_ends_with_its_key(
    service: Service, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = service.running()
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.01)
    beyond = watch.Watch.beyond

    async def told(self: watch.Watch, *given: Any) -> bool:
        with core.database.write() as session:
            for key in session.query(ApiKey):
                keys.revoke(session, key.id)
        return await beyond(self, *given)

    monkeypatch.setattr(watch.Watch, "beyond", told)
    assert [each["event"] for each in events(read(service, claim.job_id))] == [
        "submitted",
        "started",
    ]


def test_head_is_answered_without_a_stream(service: Service) -> None:
    claim = service.running()
    answer = service.client.head(f"/v1/jobs/{claim.job_id}/events", headers=STREAM)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Type"].startswith("text/event-stream")


def test_only_so_many_are_open_at_once(service: Service, core: Core) -> None:
    job_id = ended(service)
    core.streams = core.settings.max_streams
    answer = service.client.get(f"/v1/jobs/{job_id}/events", headers=STREAM)
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert "Retry-After" in answer.headers
    core.streams = 0
    for _ in range(3):
        read(service, job_id)
    assert core.streams == 0


@contextmanager
def opened(address: str, key: str, job_id: str) -> Iterator[Iterator[str]]:
    headers = {**STREAM, "Authorization": f"Bearer {key}"}
    with (
        httpx.Client(base_url=address, headers=headers, timeout=60) as client,
        client.stream("GET", f"/v1/jobs/{job_id}/events") as answer,
    ):
        yield answer.iter_lines()


def test_a_server_that_stops_ends_its_streams_in_order(tmp_path: Path) -> None:
    """Else it would wait for them, and break them off: httpx would raise."""
    from benchmarks.server import stock

    with serving(tmp_path, "--no-worker") as server:
        from app.settings import Settings

        jobs = stock.fill(Settings(data_dir=server.data), 3)
        with opened(server.address, server.key, jobs["running"][0]) as lines:
            assert next(lines) == "retry: 2000"
            server.process.send_signal(signal.SIGTERM)
            assert "event: end" not in list(lines)
        assert server.process.wait(60) == 0
