"""What each kind of job needs: its folder filled, a command to run, its result published."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy.orm import Session

from app import metrics
from app.datasets import service as datasets
from app.db import after_commit
from app.jobs import ledger
from app.jobs.claims import Checkpoint
from app.jobs.states import ENDED, State
from app.models import Job, Student
from app.plans import estimates
from app.students import latencies
from app.students import service as students
from tdmr.errors import Failure
from tdmr.jobdir import AUDIT, JobDir, ProgressLine
from tdmr.trained import RECORD
from worker.checks import Ingest, ModelCheck
from worker.keeper import Keeper, fetch
from worker.keeper import prefix as checkpoints_of
from worker.site import Kind, Site, tdmr_command

log = structlog.get_logger(__name__)


class Distil:
    """The training of a student, up to its weights and figures; `Package` does the rest."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._keeper = Keeper(site.database, site.storage, site.claim)
        self._folder = trained_prefix(site.claim.job_id, site.claim.attempt)
        self._files: list[dict[str, Any]] = []
        self._audit: dict[str, Any] | None = None
        self._metrics: dict[str, Any] = {}

    def prepare(self, job: JobDir) -> None:
        """The options as they were submitted, the dataset's images, the last checkpoint."""
        job.config.write_text(json.dumps(self._site.claim.spec), encoding="utf-8")
        self._site.unpack_dataset(job)
        self._site.bring_foundation(job, self._site.claim.spec)
        self._keeper.restore(job)

    def command(self, job: JobDir, device: str) -> list[str]:
        """The library's own command."""
        seconds = str(self._site.settings.checkpoint_seconds)
        options = ["--device", device, "--cache", str(self._site.cache), "--no-package"]
        return tdmr_command("run", job, *options, "--checkpoint-seconds", seconds)

    def keep(self, job: JobDir, line: ProgressLine) -> None:
        """The next attempt goes on from it."""
        self._keeper.keep(job, line)

    def store(self, job: JobDir) -> None:
        """What was trained, for the job that packages it."""
        audit = job.out / AUDIT
        if audit.exists():
            self._audit = json.loads(audit.read_bytes())
        record = job.out / RECORD
        if record.exists():
            self._metrics = json.loads(record.read_bytes())["metrics"]
        self._files = []
        for path in sorted(job.out.iterdir()):
            stored = self._site.storage.put(f"{self._folder}/{path.name}", path)
            self._files.append({"name": path.name, **vars(stored)})

    def publish(self, session: Session) -> State:
        """The order to package it, what it took, and what the foundation says of the dataset."""
        site, claim = self._site, self._site.claim
        if self._audit is not None:
            foundation = claim.spec["foundation"]
            datasets.note_audit(session, site.dataset_id, claim.job_id, foundation, self._audit)
        ledger.trained(session, claim, {"trained": self._files}, ring=site.ring)
        after_commit(session, self._count_forwards)
        self._note_speed(session)
        return State.PACKAGING

    def _count_forwards(self) -> None:
        """What the foundation did, and what the cache has spared it."""
        if not self._metrics:
            return
        cache, images = self._metrics["cache"], self._metrics["dataset"]["train_images"]
        metrics.FORWARDS.inc(self._metrics["foundation"]["forwards"])
        if cache["reused"]:
            metrics.SAVED.inc(cache["views_per_image"] * images)

    def _note_speed(self, session: Session) -> None:
        """What its stages took, for later estimates."""
        if not self._metrics:
            return
        try:
            with session.begin_nested():
                job = session.get_one(Job, self._site.claim.job_id)
                estimates.record(session, job, self._metrics)
        except Exception:  # a training isn't failed for what is learnt of its speed
            log.exception("speed_not_noted", job=self._site.claim.job_id)

    def give_up(self, session: Session, failure: Failure) -> None:
        """Nothing but the job's own row speaks of a distillation that failed."""

    def tidy(self) -> None:
        """Delete what was stored unless a job is to package it, as after a commit unheard of."""
        with self._site.database.read() as session:
            job = session.get_one(Job, self._site.claim.job_id)
        if job.attempt != self._site.claim.attempt or job.state != State.PACKAGING:
            self._site.storage.delete(self._folder)


class Package:
    """A bundle made of what a distillation has trained, or of its checkpoint: the student."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._student_id = student_id(site.claim.job_id, site.claim.attempt)
        self._files: list[dict[str, Any]] = []
        self._metrics: dict[str, Any] = {}

    def prepare(self, job: JobDir) -> None:
        """The dataset and what was trained on it; or the job as it stood, to rescue from."""
        site = self._site
        site.unpack_dataset(job)
        if "trained" in site.claim.spec:
            job.trained.mkdir()
            for file in site.claim.spec["trained"]:
                site.storage.fetch(file["key"], job.trained / file["name"], file["sha256"])
            return
        parent = self._parent()
        job.config.write_text(json.dumps(parent.spec), encoding="utf-8")
        site.bring_foundation(job, parent.spec)
        if not fetch(site.storage, Checkpoint.model_validate(parent.checkpoint), job):
            raise LookupError(f"the checkpoint of {parent.id} is damaged")

    def command(self, job: JobDir, device: str) -> list[str]:
        """To package costs no device; a rescued student is measured first."""
        cache = ["--cache", str(self._site.cache)]
        if "trained" in self._site.claim.spec:
            return tdmr_command("package", job, *cache)
        return tdmr_command("rescue", job, "--device", device, *cache)

    def keep(self, job: JobDir, line: ProgressLine) -> None:
        """It begins again: it writes no checkpoints."""

    def store(self, job: JobDir) -> None:
        """The bundle's files, each checked against the bundle's manifest."""
        self._metrics = json.loads((job.out / "metrics.json").read_bytes())
        self._files = students.store(self._site.storage, self._student_id, job.out)

    def publish(self, session: Session) -> State:
        """The student's row; the distillation it is of ends with it."""
        claim, parent = self._site.claim, self._parent()
        students.publish(
            session,
            student_id=self._student_id,
            job_id=parent.id,
            owner=claim.owner,
            dataset_id=self._site.dataset_id,
            spec=parent.spec,
            files=self._files,
            metrics=self._metrics,
        )
        measured = latencies.of_student(self._metrics)
        if measured is not None:
            latencies.record(session, measured, claim.owner)
        partial = self._metrics.get("partial") is not None
        ledger.succeed(session, claim, {"student_id": self._student_id, "partial": partial})
        return State.SUCCEEDED

    def give_up(self, session: Session, failure: Failure) -> None:
        """The ledger tells the distillation."""

    def tidy(self) -> None:
        """Delete the student's files unless it is there, and what it no longer needs if it is."""
        site = self._site
        with site.database.read() as session:
            published = session.get(Student, self._student_id) is not None
            job = session.get_one(Job, site.claim.job_id)
        parent = self._parent()
        if not published:
            site.storage.delete(f"students/{self._student_id}")
        if job.state in ENDED:
            for file in site.claim.spec.get("trained", []):
                site.storage.delete(file["key"])
            if parent.checkpoint is None:
                site.storage.delete(checkpoints_of(parent.id))

    def _parent(self) -> Job:
        assert self._site.claim.parent_id is not None
        with self._site.database.read() as session:
            return session.get_one(Job, self._site.claim.parent_id)


KINDS: dict[str, Callable[[Site], Kind]] = {
    "ingest": Ingest,
    "model": ModelCheck,
    "distil": Distil,
    "package": Package,
}


def make(site: Site) -> Kind:
    """The kind of the claimed job, ready for this attempt."""
    return KINDS[site.claim.kind](site)


def student_id(job_id: str, attempt: int) -> str:
    """The student that this attempt would make: known to whoever tidies up after its death."""
    return f"stu_{job_id.removeprefix('job_')}{attempt:02x}"


def trained_prefix(job_id: str, attempt: int) -> str:
    """Where this attempt stores what it has trained."""
    return f"trained/{job_id}-{attempt}"
