"""Packages: the job that makes a student of what another has trained, or of its checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from app.db import Database
from app.errors import ConflictError
from app.jobs import ledger
from app.jobs.claims import Claim
from app.models import Job
from tdmr.errors import Failure
from tests.app.jobs import steps
from tests.app.jobs.steps import BROKEN, FINAL, PASSING

FILES = {"trained": [{"name": "weights", "key": "trained/x"}]}


def trained(database: Database, **given: Any) -> Claim:
    """A job that is trained; its package waits."""
    held = steps.claimed(database, **given)
    steps.save(database, held, steps.student())
    with database.write() as session:
        ledger.trained(session, held, FILES, ring=given.get("ring", False))
    return held


def claim(database: Database) -> Claim:
    return steps.claim(database, "w2", kinds=["package"])


def succeed(database: Database, held: Claim, *, partial: bool) -> dict[str, Any]:
    data = {"student_id": "stu_1", "partial": partial}
    steps.do(database, ledger.succeed, held, data)
    return data


def rescue(database: Database, job_id: str) -> dict[str, Any] | None:
    package = steps.package_of(database, job_id)
    return None if package is None else package.spec


def test_what_was_trained_is_packaged_by_a_job_of_its_own(any_database: Database) -> None:
    held = trained(any_database, owner="ben", queue_name="big", ring=True)
    parent = steps.job(any_database, held.job_id)
    assert (parent.state, parent.ended_at, parent.lease_owner) == ("packaging", None, None)
    assert steps.log(any_database, held.job_id)[-1] == "trained"
    package = steps.package_of(any_database, held.job_id)
    assert package is not None
    assert (package.kind, package.state, package.spec) == ("package", "queued", FILES)
    assert (package.owner, package.dataset_id) == ("ben", parent.dataset_id)
    assert (package.queue, package.max_attempts) == ("big", parent.max_attempts)
    assert steps.bells(any_database)[-1] == ("tdmr.big.package", package.id)
    found = claim(any_database)
    assert (found.job_id, found.parent_id, found.spec) == (package.id, held.job_id, FILES)


def test_the_packages_end_is_its_parents(any_database: Database) -> None:
    held = trained(any_database)
    found = claim(any_database)
    data = succeed(any_database, found, partial=False)
    for job_id in (held.job_id, found.job_id):
        row, last = steps.job(any_database, job_id), steps.events(any_database, job_id)[-1]
        assert (row.state, last.type, last.data) == ("succeeded", "succeeded", data)
        assert row.ended_at is not None
        assert row.checkpoint is None
    assert steps.claim_or_none(any_database) is None


def test_a_package_that_fails_is_tried_again_while_its_parent_waits(
    any_database: Database,
) -> None:
    held = trained(any_database)
    found = claim(any_database)
    assert steps.do(any_database, ledger.fail, found, PASSING) == "queued"
    assert steps.job(any_database, held.job_id).state == "packaging"
    steps.make_due(any_database, found.job_id)
    succeed(any_database, claim(any_database), partial=False)
    assert steps.job(any_database, held.job_id).state == "succeeded"


@pytest.mark.parametrize("failure", [FINAL, BROKEN])
def test_a_package_that_fails_for_good_fails_its_parent(
    any_database: Database, failure: Failure
) -> None:
    held = trained(any_database)
    found = claim(any_database)
    assert steps.do(any_database, ledger.fail, found, failure) == "failed"
    told = failure.model_dump(mode="json")
    for job_id in (held.job_id, found.job_id):
        row = steps.job(any_database, job_id)
        assert (row.state, row.failure) == ("failed", told)
        assert row.ended_at is not None
        assert steps.events(any_database, job_id)[-1].data == {"failure": told}
    parent = steps.job(any_database, held.job_id)
    assert parent.checkpoint == steps.student().model_dump(mode="json")
    assert rescue(any_database, held.job_id) == FILES  # there is no second one


def test_a_package_whose_worker_always_dies_fails_its_parent(any_database: Database) -> None:
    held = trained(any_database, max_attempts=2)
    states = [steps.die(any_database, claim(any_database)).state for _ in range(2)]
    assert states == ["queued", "failed"]
    parent = steps.job(any_database, held.job_id)
    assert parent.state == "failed"
    assert parent.failure is not None
    assert parent.failure["code"] == "worker_lost"


def test_a_cancelled_job_leaves_the_student_so_far(any_database: Database) -> None:
    held = steps.claimed(any_database)
    steps.save(any_database, held, steps.student())
    steps.ask(any_database, ledger.request_cancel, held.job_id)
    assert rescue(any_database, held.job_id) is None  # it still runs
    with any_database.write() as session:
        assert ledger.cancelled(session, held, ring=True) == "cancelled"
    assert rescue(any_database, held.job_id) == {"rescue": True}
    assert [topic for topic, _ in steps.bells(any_database)] == ["tdmr.default.package"]


@pytest.mark.parametrize(
    ("failure", "state", "expected"),
    [
        (BROKEN, steps.student(), {"rescue": True}),
        (BROKEN, steps.checkpoint(5), None),  # stage 2 had not begun
        (BROKEN, None, None),
        (FINAL, steps.student(), None),  # the user's own error
    ],
)
def test_a_failed_job_leaves_its_student_unless_the_user_was_wrong(
    any_database: Database, failure: Failure, state: Any, expected: Any
) -> None:
    held = steps.claimed(any_database)
    if state is not None:
        steps.save(any_database, held, state)
    assert steps.do(any_database, ledger.fail, held, failure) == "failed"
    assert rescue(any_database, held.job_id) == expected


def test_a_job_that_lost_its_last_worker_leaves_its_student(any_database: Database) -> None:
    held = steps.claimed(any_database, max_attempts=1)
    steps.save(any_database, held, steps.student())
    assert steps.die(any_database, held).state == "failed"
    assert rescue(any_database, held.job_id) == {"rescue": True}


@pytest.mark.parametrize("partial", [True, False])
def test_a_rescued_student_changes_nothing_of_how_its_job_ended(
    any_database: Database, partial: bool
) -> None:
    held = steps.claimed(any_database)
    steps.save(any_database, held, steps.student())
    steps.do(any_database, ledger.fail, held, BROKEN)
    before = {k: v for k, v in vars(steps.job(any_database, held.job_id)).items() if k[0] != "_"}
    data = succeed(any_database, claim(any_database), partial=partial)
    after = {k: v for k, v in vars(steps.job(any_database, held.job_id)).items() if k[0] != "_"}
    assert after == before
    last = steps.events(any_database, held.job_id)[-1]
    assert (last.type, last.data) == ("student_ready", data)


def test_a_rescue_that_fails_changes_nothing_of_how_its_job_ended(any_database: Database) -> None:
    held = steps.claimed(any_database)
    steps.save(any_database, held, steps.student())
    steps.do(any_database, ledger.cancelled, held)
    steps.do(any_database, ledger.fail, claim(any_database), BROKEN)
    row = steps.job(any_database, held.job_id)
    assert (row.state, row.failure) == ("cancelled", None)
    assert steps.log(any_database, held.job_id)[-1] == "cancelled"


def test_a_partial_student_keeps_the_checkpoint_to_go_on_from(any_database: Database) -> None:
    held = steps.claimed(any_database, max_seconds=9.0)
    steps.save(any_database, held, steps.student())
    steps.do(any_database, ledger.budget_spent, held)
    succeed(any_database, claim(any_database), partial=True)
    row = steps.job(any_database, held.job_id)
    assert row.state == "succeeded"
    assert row.checkpoint == steps.student().model_dump(mode="json")


def test_a_job_has_one_package_at_most(any_database: Database) -> None:
    held = trained(any_database)
    with pytest.raises(IntegrityError):
        steps.submit(any_database, kind="package", parent_id=held.job_id)
    with any_database.read() as session:
        found = session.scalars(select(Job.id).where(Job.parent_id == held.job_id)).all()
    assert len(found) == 1


def test_a_package_is_stopped_by_nobody(any_database: Database) -> None:
    """Its parent would wait for ever."""
    held = trained(any_database)
    package = steps.package_of(any_database, held.job_id)
    assert package is not None
    for _ in range(2):
        before = steps.everything(any_database)
        for call in (ledger.request_cancel, ledger.request_pause):
            with pytest.raises(ConflictError, match="packaging"):
                steps.ask(any_database, call, package.id)
            with pytest.raises(ConflictError, match="packaging"):
                steps.ask(any_database, call, held.job_id)
        assert steps.everything(any_database) == before
        steps.claim_or_none(any_database)
