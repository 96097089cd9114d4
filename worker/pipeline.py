"""One job from its claim to its end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog
from sqlalchemy import exc
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from app import logs
from app.db import Database
from app.errors import AppError, StorageUnavailableError
from app.jobs import ledger, moves
from app.jobs.claims import Claim, LeaseLostError
from app.jobs.states import ENDED, State
from app.settings import Settings
from app.storage import Storage
from tdmr import failpoint, lines, spans
from tdmr.errors import Failure
from tdmr.jobdir import JobDir
from worker.heart import Heart, Words
from worker.kinds import make
from worker.launch import GIVEN, Child
from worker.site import Kind, Site
from worker.watch import End, Outcome, asked_to_stop, watch

RETRY_SECONDS = 0.5
# The database can't be reached, or not just now.
AWAY = (OperationalError, InterfaceError, exc.TimeoutError)
CANCELLED = Failure(
    code="cancelled",
    user_error=True,
    detail="It was cancelled before it was done.",
    suggestion="Upload it again.",
)

ENDINGS = {
    End.STOPPED: ledger.hand_back,
    End.AWAY: ledger.put_off,
    End.CANCELLED: ledger.cancelled,
    End.PAUSED: ledger.paused,
    End.BUDGET_SPENT: ledger.budget_spent,
}

Launch = Callable[[list[str], JobDir], Child]
log = structlog.get_logger(__name__)


def never() -> bool:
    """For a caller that is never told to stop."""
    return False


def run_next(
    database: Database,
    storage: Storage,
    settings: Settings,
    *,
    worker: str,
    device: str,
    devices: int = 1,
    queues: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    launch: Launch = Child,
    stopping: Callable[[], bool] = never,
) -> bool:
    """Claim the next due job and see it to its end; False when there is none.

    `worker` must be a name that no other process uses: it's part of the fence. `queues` and
    `kinds` name what to take, of trainings those on at most so many `devices`. Once `stopping` says
    so, the job is handed back.
    """
    with database.read() as session:
        if not moves.is_any(session, queues, kinds, devices):
            return False  # asked first, so that idle workers don't keep others from writing
    asked_at = time.monotonic()
    with database.write() as session:
        session.connection()  # which may wait for its turn; the lease begins behind that
        claimed_at = time.monotonic()
        claim = moves.claim(
            session,
            worker=worker,
            lease_seconds=settings.lease_seconds,
            queues=queues,
            kinds=kinds,
            devices=devices,
        )
    if claim is None:
        return False
    failpoint.reached("claim.committed")
    fields = {"job_id": claim.job_id, "kind": claim.kind, "attempt": claim.attempt}
    named = {f"tdmr.{name}": value for name, value in fields.items()}
    with (
        logs.under(claim.request_id),
        structlog.contextvars.bound_contextvars(**fields),
        spans.under(claim.traceparent),
    ):
        log.info("claimed")
        with spans.span("claim", named, seconds=time.monotonic() - asked_at):
            pass
        site = Site(database, storage, settings, claim)
        with (
            spans.span(f"attempt {claim.kind}", named),
            Heart(database, claim, settings, claimed_at) as heart,
        ):
            kind = make(site)
            with _job_dir(settings, claim) as job:
                outcome = _attempt(site, kind, job, heart, device, launch, stopping)
                state = _settle(site, kind, heart, outcome)
        log.info("left", state=state)
    return True


@contextmanager
def _job_dir(settings: Settings, claim: Claim) -> Iterator[JobDir]:
    path = job_dirs(settings) / f"{claim.job_id}-{claim.attempt}"
    path.mkdir(parents=True)
    try:
        yield JobDir(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def job_dirs(settings: Settings) -> Path:
    """Where the job directories are, each named by its job and its attempt."""
    return settings.work_dir / "jobs"


def _attempt(
    site: Site,
    kind: Kind,
    job: JobDir,
    heart: Heart,
    device: str,
    launch: Launch,
    stopping: Callable[[], bool],
) -> Outcome:
    """Run the job's process and store what it made."""
    try:
        kind.prepare(job)
        failpoint.reached("job.prepared")
        GIVEN.set(_given(site))
        child = launch(kind.command(job, device), job)
        failpoint.reached("child.started")
        try:
            grace = site.settings.grace_seconds
            outcome = watch(child, job, heart, kind.keep, stopping=stopping, grace=grace)
        except BaseException:  # whatever it was, no process stays behind
            child.kill()
            raise
        if outcome.end is End.DONE:
            with spans.span("store"):
                outcome = _store(kind, job, heart, stopping)
            failpoint.reached("result.stored")
    except StorageUnavailableError as error:  # no fault of the job's
        log.warning("storage_unreachable", error=str(error))
        return Outcome(End.AWAY)
    except Exception as error:  # an attempt that breaks is a failed one, and the job goes on
        log.exception("attempt_broke")
        return Outcome(End.FAILED, failure=_broken(error))
    return outcome


def _store(kind: Kind, job: JobDir, heart: Heart, stopping: Callable[[], bool]) -> Outcome:
    """Store the result; while the store of files is away and the lease lasts, try again."""
    while True:
        try:
            kind.store(job)
        except StorageUnavailableError as error:
            log.warning("storage_unreachable", error=str(error))
        else:
            return Outcome(End.DONE)
        if heart.lost or heart.expiring:
            return Outcome(End.LOST)
        if end := asked_to_stop(heart, stopping):
            return Outcome(end)
        time.sleep(RETRY_SECONDS)


def _given(site: Site) -> dict[str, str]:
    """What the process is told of whom its lines and its spans are about."""
    claim, endpoint = site.claim, site.settings.otlp_endpoint
    ids = {"job_id": claim.job_id, "attempt": claim.attempt, "request_id": claim.request_id}
    if not spans.are_sent():
        return lines.environment(**ids)
    told = lines.environment(**ids, traceparent=spans.PARENT.get())
    return told if endpoint is None else {**told, spans.ENDPOINT: endpoint}


def _broken(error: Exception) -> Failure:
    """What a job says when the worker itself failed it: no path and no secret of the server."""
    if isinstance(error, AppError):
        return Failure(
            code=error.code,
            user_error=False,
            detail=error.detail,
            retryable=True,
            suggestion="Submit it again; if it happens again, the worker's log says more.",
        )
    return Failure(
        code="worker_error",
        user_error=False,
        detail=f"The worker couldn't see the job through ({type(error).__name__}).",
        retryable=True,
        suggestion="Submit it again; if it happens again, the worker's log says more.",
    )


def _settle(site: Site, kind: Kind, heart: Heart, outcome: Outcome) -> State | None:
    """Write down how the attempt ended; None when it wasn't its to say."""
    words = heart.last_words()

    def write(end: Outcome) -> State:
        return _persist(site.database, heart, lambda s: _finish(s, site, kind, words, end))

    state = None
    if outcome.end is not End.LOST:
        try:
            try:
                state = write(outcome)
            except (LeaseLostError, *AWAY):
                raise
            except Exception as error:  # told as the job's failure instead
                log.exception("result_not_publishable")
                state = write(Outcome(End.FAILED, failure=_broken(error)))
            failpoint.reached("finish.committed")
        except LeaseLostError:
            log.warning("lease_lost")
        except AWAY:
            log.exception("end_not_written")  # the lease runs out, and the job is tried again
    try:
        kind.tidy()
    except (SQLAlchemyError, OSError, StorageUnavailableError):
        log.exception("not_tidied")
    return state


def _persist(database: Database, heart: Heart, write: Callable[[Session], State]) -> State:
    """Commit `write`; while the database is away and the lease lasts, try again.

    A commit whose answer was lost is found out by the fence: the next try raises LeaseLostError.
    """
    while True:
        try:
            with database.write() as session:
                return write(session)
        except AWAY as error:
            if heart.lost or heart.expiring:
                raise
            log.warning("database_unreachable", error=str(error))
            time.sleep(RETRY_SECONDS)


def _finish(session: Session, site: Site, kind: Kind, words: Words, outcome: Outcome) -> State:
    """What the one transaction that ends an attempt does; the fence comes first of all."""
    words.pass_on(session, site.claim, site.settings.lease_seconds)
    if outcome.end is End.DONE:
        state = kind.publish(session)
    elif outcome.end is End.FAILED:
        assert outcome.failure is not None
        state = ledger.fail(session, site.claim, outcome.failure, ring=site.ring)
    else:
        state = ENDINGS[outcome.end](session, site.claim, ring=site.ring)
    if state in ENDED and outcome.end is not End.DONE:
        kind.give_up(session, outcome.failure or CANCELLED)
    failpoint.reached("finish.written")
    return state
