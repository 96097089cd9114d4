"""A job at a glance: the same as at a long look, and never older than its row."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any

import pytest
from sqlalchemy import func, select

from app.access import keys
from app.access.scopes import Scope
from app.api import glance
from app.api.glance import Glances, Said
from app.api.jobs import rendered
from app.db import Database, now
from app.errors import GoneError, NotFoundError, UnauthorizedError
from app.jobs import boards, ledger, service
from app.jobs.boards import Boards
from app.jobs.queue import Standing
from app.models import ApiKey, Job
from app.settings import Settings
from tdmr.config import JobSpec
from tdmr.errors import Failure
from tests.app.jobs import steps
from tests.support import wait_until

SPEC = JobSpec(foundation="letters_vit", student="test_resnet").model_dump(mode="json")


class Viewer:
    """Ana, who looks at her jobs."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database, self.settings = database, settings
        self.boards = Boards(database, settings.worker_patience)
        self.glances = Glances(database, self.boards, rendered)
        self.key, self.token = self.make_key()

    def make_key(self, owner: str = "ana", scope: Scope = Scope.JOBS_READ) -> tuple[str, str]:
        with self.database.write() as session:
            key, token = keys.create(session, owner=owner, name="test", scopes=[scope])
            return key.id, token

    def submit(self, count: int = 1) -> list[str]:
        return steps.submit(self.database, count, owner="ana", spec=SPEC)

    def look(self, job_id: str, token: str | None = None) -> Said:
        return self.glances.say(self.glances.find(keys.digest(token or self.token), job_id))

    def long_look(self, job_id: str) -> bytes:
        with self.database.read() as session:
            return rendered(service.get(session, "ana", job_id, self.settings))


@pytest.fixture
def viewer(any_database: Database, settings: Settings) -> Iterator[Viewer]:
    found = Viewer(any_database, settings)
    yield found
    found.glances.close()


def test_whoever_is_let_go_has_a_place_at_once(viewer: Viewer) -> None:
    (first,) = viewer.submit()
    given = {"owner": "ana", "spec": SPEC, "sweep_id": "swp_1", "waits_for": first}
    (second,) = steps.submit(viewer.database, **given)
    with viewer.database.write() as session:
        session.get_one(Job, first).sweep_id = "swp_1"
    assert b'"waiting_reason":"sweep"' in viewer.look(second).body
    steps.ask(viewer.database, ledger.request_cancel, first)
    assert viewer.look(second).body == viewer.long_look(second)
    assert b'"queue_position":1' in viewer.look(second).body


def test_it_says_what_a_long_look_says(viewer: Viewer) -> None:
    database = viewer.database
    running, failed, queued = viewer.submit(3)
    first, second = steps.claim(database), steps.claim(database)
    progress = {"event": "progress", "step": 7, "steps": 9, "losses": {"loss": 0.5}}
    with database.write() as session:
        ledger.beat(session, first, lease_seconds=60, progress=progress)
        ledger.fail(session, second, Failure(code="x", user_error=True, detail="Made up."))
    for job_id, goes_on in ((running, True), (failed, False), (queued, True)):
        for _ in range(2):
            said = viewer.look(job_id)
            assert said.body == viewer.long_look(job_id)
            assert said.open is goes_on


def test_what_changed_is_seen_at_once(viewer: Viewer) -> None:
    (job_id,) = viewer.submit()
    claim = steps.claim(viewer.database)
    seen = [viewer.look(job_id)]
    for step in range(3):
        with viewer.database.write() as session:
            ledger.beat(session, claim, lease_seconds=60, progress={"step": step, "losses": {}})
        seen.append(viewer.look(job_id))
        assert f'"step":{step},'.encode() in seen[-1].body
    assert len({said.etag for said in seen}) == 4
    assert viewer.look(job_id) is seen[-1]  # said again, not made again


def test_a_key_opens_nothing_from_the_moment_it_is_revoked(viewer: Viewer) -> None:
    (job_id,) = viewer.submit()
    viewer.look(job_id)
    with viewer.database.write() as session:
        keys.revoke(session, viewer.key)
    with pytest.raises(UnauthorizedError):
        viewer.look(job_id)
    key, token = viewer.make_key()
    viewer.look(job_id, token)
    with viewer.database.write() as session:
        session.get_one(ApiKey, key).expires_at = now(session) - timedelta(seconds=1)
    with pytest.raises(UnauthorizedError):
        viewer.look(job_id, token)


def test_who_may_not_look_sees_nothing(viewer: Viewer) -> None:
    (job_id,) = viewer.submit()
    viewer.look(job_id)
    with pytest.raises(NotFoundError):
        viewer.look(job_id, viewer.make_key("bob")[1])
    with pytest.raises(UnauthorizedError):
        viewer.look(job_id, "tdmr_" + "A" * 43)
    with pytest.raises(NotFoundError):
        viewer.look("job_none")


def test_who_waits_has_a_place_from_the_first_look(viewer: Viewer) -> None:
    """Also when the places of all were looked up a moment before the job came."""
    (one,) = viewer.submit()
    assert b'"queue_position":1,' in viewer.look(one).body
    (two,) = viewer.submit()
    assert b'"queue_position":2,' in viewer.look(two).body


def test_many_who_wait_are_looked_up_together(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SECONDS", "OLDEST_SECONDS"):
        monkeypatch.setattr(boards, name, 600.0)
    ids = viewer.submit(20)
    asked = []
    standing = boards.queue.standing
    monkeypatch.setattr(
        boards.queue, "standing", lambda *given: asked.append(1) or standing(*given)
    )
    for job_id in ids:
        viewer.look(job_id)
    assert len(asked) == 1


def test_nobody_waits_for_the_next_look_at_the_places_of_all(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = viewer.submit(2)
    assert b'"queue_position":2,' in viewer.look(two).body
    for name, seconds in (("SECONDS", 0.0), ("OLDEST_SECONDS", 600.0)):
        monkeypatch.setattr(boards, name, seconds)
    asked, gate, standing = [], Event(), boards.queue.standing

    def slow(*given: Any) -> Standing:
        asked.append(1)
        assert gate.wait(90)
        return standing(*given)

    monkeypatch.setattr(boards.queue, "standing", slow)
    steps.ask(viewer.database, ledger.request_cancel, one)
    for _ in range(3):
        assert b'"queue_position":2,' in viewer.look(two).body
    gate.set()
    wait_until(lambda: b'"queue_position":1,' in viewer.look(two).body)
    viewer.boards.close()
    assert asked


def test_what_is_kept_has_an_end(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "KEPT", 2)
    ids = viewer.submit(3)
    first = viewer.look(ids[0])
    for job_id in ids[1:]:
        viewer.look(job_id)
    again = viewer.look(ids[0])
    assert again == first
    assert again is not first


def test_threads_can_look_at_once(viewer: Viewer) -> None:
    ids = viewer.submit(5)
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(viewer.look, ids * 20))
    assert {each.body for each in said} == {viewer.long_look(job_id) for job_id in ids}


def test_a_database_that_was_restarted_is_found_again(viewer: Viewer) -> None:
    if viewer.database.engine.dialect.name == "sqlite":
        return  # there is nothing to restart
    (job_id,) = viewer.submit()
    said = viewer.look(job_id)
    (ours,) = viewer.glances._statement._open
    with viewer.database.engine.connect() as connection:
        connection.execute(select(func.pg_terminate_backend(ours.info.backend_pid)))
    assert viewer.look(job_id) == said


def test_a_deleted_job_is_gone_until_it_is_restored(viewer: Viewer, settings: Settings) -> None:
    (job_id,) = viewer.submit()
    steps.ask(viewer.database, ledger.request_cancel, job_id)
    before = viewer.look(job_id)
    with viewer.database.write() as session:
        service.delete(session, "ana", job_id, settings, permanently=False)
    with pytest.raises(GoneError, match="can be restored until 2"):
        viewer.look(job_id)
    with viewer.database.write() as session:
        service.restore(session, "ana", job_id, settings)
    assert viewer.look(job_id) == before
