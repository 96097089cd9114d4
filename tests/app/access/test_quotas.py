"""Quotas: what counts, for whom, until when; and that two requests never share the last place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from app.access import quotas
from app.access.quotas import Use
from app.db import Database, new_id, now
from app.errors import QuotaExceededError
from app.jobs import moves
from app.models import Dataset, Job, Student, Upload
from app.settings import Settings
from tests.support import make_dataset, make_model

GIB = 2**30


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(data_dir=folder, **more)


def used(database: Database, folder: Path, owner: str = "ana") -> dict[str, float]:
    with database.read() as session:
        return {use.name: use.used for use in quotas.uses(session, owner, settings(folder))}


def job(database: Database, dataset_id: str, owner: str = "ana", **changed: Any) -> str:
    """A job in any state; `ago` moves its end, in days."""
    days = changed.pop("ago", None)
    with database.write() as session:
        made = moves.submit(
            session,
            owner=owner,
            kind=changed.pop("kind", "distil"),
            dataset_id=dataset_id,
            spec={},
            max_attempts=3,
            ring=False,
        )
        for name, value in changed.items():
            setattr(made, name, value)
        if days is not None:
            made.ended_at = now(session) - timedelta(days=days)
        return made.id


def student(database: Database, dataset_id: str, job_id: str, *sizes: int) -> None:
    with database.write() as session:
        session.add(
            Student(
                id=new_id("stu"),
                owner="ana",
                job_id=job_id,
                dataset_id=dataset_id,
                dataset_version="3" * 64,
                foundation="f",
                architecture="s",
                partial=False,
                metrics={},
                files=[{"name": str(size), "bytes": size} for size in sizes],
                created_at=now(session),
            )
        )


def uploaded(database: Database, size: int) -> str:
    """A dataset of so many bytes."""
    dataset_id = make_dataset(database)
    with database.write() as session:
        session.get_one(Dataset, dataset_id).upload_bytes = size
    return dataset_id


def upload(database: Database, length: int, days: float | None) -> None:
    with database.write() as session:
        expires = None if days is None else now(session) + timedelta(days=days)
        session.add(
            Upload(
                id=new_id("up"),
                owner="ana",
                name="x",
                length_bytes=length,
                received_bytes=0,
                created_at=now(session),
                expires_at=expires,
            )
        )


def test_nobody_has_used_anything_at_first(any_database: Database, tmp_path: Path) -> None:
    found = used(any_database, tmp_path)
    assert found == {"waiting_jobs": 0, "stored_bytes": 0, "own_models": 0, "device_hours": 0}


def test_jobs_that_wait_are_those_queued_and_paused(any_database: Database, tmp_path: Path) -> None:
    dataset_id = make_dataset(any_database)
    for state in ("queued", "queued", "paused", "packaging", "succeeded", "failed"):
        job(any_database, dataset_id, state=state)
    job(any_database, dataset_id, kind="ingest")
    job(any_database, dataset_id, owner="bob")
    assert used(any_database, tmp_path)["waiting_jobs"] == 3
    assert used(any_database, tmp_path, "bob")["waiting_jobs"] == 1


def test_bytes_are_of_datasets_of_what_comes_of_models_and_of_students(
    any_database: Database, tmp_path: Path
) -> None:
    dataset_id = uploaded(any_database, 2 * GIB)
    job_id, other = job(any_database, dataset_id), job(any_database, dataset_id)
    student(any_database, dataset_id, job_id, 3 * GIB, 5)
    student(any_database, dataset_id, other)
    upload(any_database, 70 * GIB, 1.0)
    upload(any_database, 900 * GIB, -1.0)  # expired
    upload(any_database, 900 * GIB, None)  # a dataset by now
    make_model(any_database, size=6 * GIB)
    make_model(any_database, size=900 * GIB, status="invalid")  # the file is gone
    assert used(any_database, tmp_path)["own_models"] == 1
    assert used(any_database, tmp_path)["stored_bytes"] == 81 * GIB + 5
    assert used(any_database, tmp_path, "bob")["stored_bytes"] == 0


def test_hours_count_for_30_days_after_a_jobs_end(any_database: Database, tmp_path: Path) -> None:
    dataset_id = make_dataset(any_database)
    job(any_database, dataset_id, state="succeeded", spent_seconds=7200.0, ago=29)
    job(any_database, dataset_id, state="failed", spent_seconds=1e6, ago=31)
    job(any_database, dataset_id, state="paused", spent_seconds=1800.0)
    assert used(any_database, tmp_path)["device_hours"] == 2.5
    with any_database.read() as session:
        moment = now(session)
    beats = {"claimed_at": moment - timedelta(hours=3), "heartbeat_at": moment}
    job(any_database, dataset_id, state="running", spent_seconds=3600.0, **beats)
    assert used(any_database, tmp_path)["device_hours"] == 6.5
    job(any_database, dataset_id, state="paused", spent_seconds=900.0, devices=4)
    assert used(any_database, tmp_path)["device_hours"] == 7.5


def refusal(database: Database, wanted: int | None, options: Settings) -> QuotaExceededError:
    with database.read() as session:
        if wanted is None:
            with pytest.raises(QuotaExceededError) as caught:
                quotas.admit_job(session, "ana", options)
        else:
            with pytest.raises(QuotaExceededError) as caught:
                quotas.admit_bytes(session, "ana", wanted, options)
    return caught.value


def test_a_refusal_names_the_quota_its_limit_and_what_is_used(
    any_database: Database, tmp_path: Path
) -> None:
    job(any_database, uploaded(any_database, 90))
    error = refusal(any_database, None, settings(tmp_path, quota_waiting_jobs=1))
    (item,) = error.errors
    assert (item.code, item.limit, item.used) == ("waiting_jobs", 1, 1)
    assert error.detail == "You have 1 waiting jobs, and may have 1."
    assert error.headers == {"Retry-After": "60"}
    tight = settings(tmp_path, quota_stored_bytes=100)
    with any_database.read() as session:
        quotas.admit_bytes(session, "ana", 10, tight)
        quotas.admit_bytes(session, "bob", 10, tight)
    (item,) = refusal(any_database, 11, tight).errors
    assert (item.code, item.limit, item.used) == ("stored_bytes", 100, 90)


def test_spent_hours_come_back_when_enough_of_them_are_old(
    any_database: Database, tmp_path: Path
) -> None:
    dataset_id = make_dataset(any_database)
    for days in (29, 20, 10):
        job(any_database, dataset_id, state="succeeded", spent_seconds=3600.0, ago=days)
    with any_database.read() as session:
        quotas.admit_job(session, "ana", settings(tmp_path, quota_device_hours=3.5))
    for limit, days in ((3.0, 1), (2.5, 1), (2.0, 10), (1.0, 20)):
        error = refusal(any_database, None, settings(tmp_path, quota_device_hours=limit))
        assert error.errors[0].code == "device_hours"
        assert float(error.headers["Retry-After"]) == pytest.approx(86_400 * days, abs=600)


def test_without_limits_nothing_is_refused(any_database: Database, tmp_path: Path) -> None:
    dataset_id = make_dataset(any_database)
    job(any_database, dataset_id, spent_seconds=1e9)
    names = ("waiting_jobs", "stored_bytes", "own_models", "device_hours")
    none = settings(tmp_path, **{f"quota_{name}": 0 for name in names})
    with any_database.read() as session:
        quotas.admit_job(session, "ana", none)
        quotas.admit_bytes(session, "ana", 2**50, none)
        assert {use.limit for use in quotas.uses(session, "ana", none)} == {None}
    assert Use("x", None, 1e9).leaves(1e9)


def test_the_last_place_is_taken_once(any_database: Database, tmp_path: Path) -> None:
    dataset_id, barrier = make_dataset(any_database), Barrier(6)
    options = settings(tmp_path, quota_waiting_jobs=2)

    def order(_: int) -> bool:
        barrier.wait()
        try:
            with any_database.write() as session:
                quotas.admit_job(session, "ana", options)
                moves.submit(
                    session,
                    owner="ana",
                    kind="distil",
                    dataset_id=dataset_id,
                    spec={},
                    max_attempts=3,
                    ring=False,
                )
        except QuotaExceededError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(order, range(6))) == 2
    with any_database.read() as session:
        assert session.query(Job).count() == 2
