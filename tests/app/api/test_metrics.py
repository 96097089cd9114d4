"""/metrics: who may read it, and that it says what is so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text, update

from app import metrics
from app.db import Database, after_commit, now
from app.gauges import Gauges
from app.jobs import ledger, moves
from app.main import create_app
from app.models import Job
from app.settings import Settings
from app.webhooks import events
from app.webhooks.tables import WebhookEndpoint
from tests.app.conftest import MakeKey
from tests.app.datasets import zips
from tests.app.jobs import steps
from tests.app.service import Service
from tests.app.webhooks.nets import nowhere

TOKEN = "operators-alone"

Samples = dict[tuple[str, ...], float]


def samples(said: str) -> Samples:
    """Every sample by its name and the values of its labels, in the order of their names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(said)
        for sample in family.samples
    }


@pytest.fixture
def scraped(settings: Settings, database: Database) -> Iterator[TestClient]:
    """A server with a token, and a client that has it."""
    given = settings.model_copy(
        update={"metrics_token": Settings(metrics_token=TOKEN).metrics_token}
    )
    app = create_app(given, nowhere())
    with TestClient(app, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        yield client


def scrape(client: TestClient) -> Samples:
    response = client.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"].startswith("text/plain; version=1.0.0")
    return samples(response.text)


def test_without_a_token_there_are_no_metrics(client: TestClient) -> None:
    assert client.get("/metrics").status_code == 404
    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404


def test_the_token_opens_them_and_no_key_does(scraped: TestClient, make_key: MakeKey) -> None:
    scrape(scraped)
    for wrong in (f"Bearer {make_key('ana')}", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", ""):
        response = scraped.get("/metrics", headers={"Authorization": wrong})
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized"), wrong
    own = scraped.get("/v1/jobs")  # and it opens nothing else
    assert own.status_code == 401


def test_guesses_of_the_token_are_limited(settings: Settings, database: Database) -> None:
    given = Settings(**{**settings.model_dump(), "metrics_token": TOKEN, "rate_failures": "2/day"})
    with TestClient(create_app(given, nowhere())) as client:
        wrong = {"Authorization": "Bearer wrong"}
        answers = [client.get("/metrics", headers=wrong).status_code for _ in range(3)]
        assert answers == [401, 401, 429]


def test_answers_are_counted_by_template_and_status(scraped: TestClient, make_key: MakeKey) -> None:
    before = scrape(scraped)
    key = {"Authorization": f"Bearer {make_key('ana')}"}
    for job_id in ("job_1", "job_2"):
        assert scraped.get(f"/v1/jobs/{job_id}", headers=key).status_code == 404
    scraped.head("/v1/jobs", headers=key)
    scraped.get("/wp-admin")
    scraped.request("BREW", "/v1/jobs")
    after = scrape(scraped)
    name = "tdmr_http_request_duration_seconds_count"
    counted = {
        labels[1:]: after[labels] - before.get(labels, 0.0) for labels in after if labels[0] == name
    }
    assert {labels: count for labels, count in counted.items() if count} == {
        ("GET", "/v1/jobs/{job_id}", "404"): 2,
        ("GET", "/v1/jobs", "200"): 1,
        ("GET", "other", "404"): 1,
        ("other", "/v1/jobs", "405"): 1,
        ("GET", "/metrics", "200"): 1,
    }


def test_what_a_job_was_asked_to_wait_isnt_its_servers_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []
    monkeypatch.setattr(metrics, "answered", lambda *answer: taken.append(answer[3]))
    job = service.job()["id"]
    path = f"/v1/jobs/{job}"
    etag = service.client.get(path).headers["ETag"]
    asked = {"If-None-Match": etag, "Prefer": "wait=2"}
    began = time.perf_counter()
    assert service.client.get(path, headers=asked).status_code == 304
    assert 0 <= taken[-1] <= time.perf_counter() - began - 2


def test_uploads_and_ends_are_counted(service: Service) -> None:
    uploaded, ended = metrics.UPLOADED, metrics.ENDED
    before = uploaded._value.get()
    content = zips.pack(zips.good_files())
    made = service.upload(content)
    assert uploaded._value.get() - before == len(content)
    service.settle()
    cancelled = ended.labels("distil", "cancelled", "")
    before = cancelled._value.get()
    job = service.job(dataset_id=made["id"])["id"]
    service.client.post(f"/v1/jobs/{job}/cancel", json={})
    assert cancelled._value.get() - before == 1


def test_gauges_say_how_the_ledger_stands(any_database: Database, settings: Settings) -> None:
    ids = steps.submit(any_database, 2)
    steps.submit(any_database, queue_name="gpu", ring=True)
    claim = steps.claim(any_database, queues=["default"])
    with any_database.write() as session:
        moment = now(session)
        hour = {"run_after": moment - timedelta(hours=1)}
        session.execute(update(Job).where(Job.id == ids[1]).values(hour))
        gone = {"heartbeat_at": moment - timedelta(minutes=2), "lease_until": moment}
        session.execute(update(Job).where(Job.id == claim.job_id).values(gone))
        endpoint = WebhookEndpoint(
            id="whe_1", owner="ana", url="", description="", enabled=True, secrets=[]
        )
        endpoint.created_at = moment
        session.add(endpoint)
        session.flush()
        session.add(events.delivery(endpoint, "ping", {}, moment - timedelta(minutes=1)))
    ended = steps.claim(any_database, queues=["gpu"])
    with any_database.write() as session:
        ledger.succeed(session, ended, {})
    made = metrics.registry((), Gauges(any_database, settings))
    found = samples(generate_latest(made).decode())
    assert found["tdmr_database_up",] == 1
    assert found["tdmr_jobs", "distil", "default", "queued"] == 1
    assert found["tdmr_jobs", "distil", "default", "running"] == 1
    assert [labels for labels in found if labels[:3] == ("tdmr_jobs", "distil", "gpu")] == []
    assert 3600 <= found["tdmr_jobs_oldest_seconds", "distil", "default", "queued"] < 3900
    assert found["tdmr_jobs_heartbeat_late",] == found["tdmr_jobs_lease_expired",] == 1
    assert found["tdmr_outbox_rows",] == 1
    assert found["tdmr_webhook_deliveries",] == 2  # the ping, and that of the job that ended
    assert 60 <= found["tdmr_webhook_deliveries_overdue_seconds",] < 300
    assert found["tdmr_disk_size_bytes", "data"] > found["tdmr_disk_free_bytes", "data"] > 0


def test_without_a_database_the_rest_is_still_said(scraped: TestClient, database: Database) -> None:
    with database.write() as session:
        session.execute(text("DROP TABLE outbox"))
    found = scrape(scraped)
    assert found["tdmr_database_up",] == 0
    assert ("tdmr_outbox_rows",) not in found
    assert found["tdmr_disk_free_bytes", "data"] > 0


def _claim_in_vain(database: Database) -> None:
    with database.write() as session:
        assert moves.claim(session, worker="w", lease_seconds=60) is not None
        with session.begin_nested():
            after_commit(session, metrics.CLAIMS.labels("distil").inc)
        session.info["share"] = 1 / 0


def test_what_isnt_committed_isnt_counted(any_database: Database) -> None:
    claims = metrics.CLAIMS.labels("distil")
    before = claims._value.get()
    steps.submit(any_database)
    with pytest.raises(ZeroDivisionError):
        _claim_in_vain(any_database)
    assert claims._value.get() == before
    steps.claim(any_database)
    assert claims._value.get() == before + 1
