"""When a key was last used is written beside the requests, never by them."""

from __future__ import annotations

from sqlalchemy import event
from sqlalchemy.engine import Engine
from structlog.testing import capture_logs

from app.access import keys
from app.access.scopes import ALL
from app.access.usage import Usage
from app.db import Database, now
from tests.support import wait_until


def make(database: Database, count: int) -> list[str]:
    with database.write() as session:
        made = [keys.create(session, owner="ana", name="k", scopes=ALL)[0] for _ in range(count)]
        return [key.id for key in made]


def used(database: Database) -> set[str]:
    with database.read() as session:
        return {key.id for key in keys.every(session) if key.last_used_at is not None}


def updates(engine: Engine) -> list[str]:
    """What updates of keys the engine will have been asked for."""
    seen: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def _note(_c: object, _u: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE api_keys"):
            seen.append(statement)

    return seen


def test_all_that_were_used_are_written_in_one_statement(any_database: Database) -> None:
    ids = make(any_database, 4)
    usage, statements = Usage(any_database), updates(any_database.engine)
    with any_database.read() as session:
        before = now(session)
    for key_id in ids[:3] * 1000:
        usage.seen(key_id)
    usage.flush()
    usage.flush()
    assert used(any_database) == set(ids[:3])
    assert len(statements) == 1
    with any_database.read() as session:
        moment = keys.known(session, ids[0]).last_used_at
        assert moment is not None
        assert before <= moment <= now(session)


def test_the_thread_writes_and_what_is_left_when_it_ends(any_database: Database) -> None:
    first, second = make(any_database, 2)
    usage = Usage(any_database, interval=0.01)
    usage.seen(first)
    usage.start()
    wait_until(lambda: used(any_database) == {first})
    usage.stop()
    usage = Usage(any_database)
    usage.start()
    usage.seen(second)
    usage.stop()
    assert used(any_database) == {first, second}


def test_what_the_database_refuses_is_written_later(
    any_database: Database,
) -> None:
    (key_id,) = make(any_database, 1)
    usage = Usage(any_database)
    usage.seen(key_id)
    with any_database.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE api_keys RENAME TO hidden")
    with capture_logs() as logged:
        usage.flush()
    assert [entry["event"] for entry in logged] == ["usage_not_written"]
    with any_database.write() as session:
        session.connection().exec_driver_sql("ALTER TABLE hidden RENAME TO api_keys")
    usage.flush()
    assert used(any_database) == {key_id}
