"""The judge: what became of everything that was ordered. The ledger alone isn't trusted.

The students' files are read and their content is compared with what an undisturbed run gives; the
kernel is asked for processes, the file system for files; and every write of an attempt was noted
by a witness at the moment it was let pass.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from app.jobs.claims import Checkpoint
from app.jobs.states import ENDED, HELD
from app.models import Dataset, Event, Job, Student
from benchmarks.storm import procs, standin, witness
from benchmarks.storm.arena import MARK, STALLED, Arena, Order, until
from worker import collector

FIGURES = (
    "lost",
    "double_commits",
    "stale_writes",
    "early_sweeps",
    "torn_logs",
    "unfinished",
    "orphans",
)
ENDINGS = frozenset({"succeeded", "failed", "cancelled"})
LONG_AGO = 3 * 86400.0
CLOCK = 0.01  # seconds between two readings of one clock


@dataclass
class Verdict:
    """How often each guarantee was broken, and in which way the first times."""

    figures: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)
    jobs: int = 0

    @property
    def good(self) -> bool:
        """Whether nothing is broken."""
        return not self.figures.total()

    def broken(self, figure: str, detail: str, count: int = 1) -> None:
        """Count one."""
        assert figure in FIGURES
        self.figures[figure] += count
        self.details.append(f"{figure}: {detail}")

    @property
    def caught(self) -> dict[str, int]:
        """The figures that aren't zero."""
        return {name: self.figures[name] for name in FIGURES if self.figures[name]}


@dataclass(frozen=True)
class Facts:
    """What the ledger holds."""

    jobs: dict[str, Job]
    packages: dict[str, Job]  # by the job whose student they make
    events: dict[str, list[Event]]
    students: dict[str, list[Student]]  # by job


def judge(arena: Arena) -> Verdict:
    """Judge an arena whose workers have been ended."""
    verdict = Verdict(jobs=len(arena.orders))
    _left_behind(arena, verdict)
    facts = _facts(arena)
    for order in arena.orders.values():
        _judge_order(arena, facts, order, verdict)
    for job_id, events in facts.events.items():
        numbers = [event.seq for event in events]
        if numbers != list(range(1, len(numbers) + 1)):
            verdict.broken("torn_logs", f"{job_id} has the events {numbers}")
    _judge_witness(arena, facts, verdict)
    return verdict


def _facts(arena: Arena) -> Facts:
    with arena.database.read() as session:
        jobs = session.scalars(select(Job)).all()
        events, students = defaultdict(list), defaultdict(list)
        for event in session.scalars(select(Event).order_by(Event.job_id, Event.seq)):
            events[event.job_id].append(event)
        for student in session.scalars(select(Student)):
            students[student.job_id].append(student)
    return Facts(
        {job.id: job for job in jobs},
        {job.parent_id: job for job in jobs if job.parent_id is not None},
        dict(events),
        dict(students),
    )


def _judge_order(arena: Arena, facts: Facts, order: Order, verdict: Verdict) -> None:
    job, name = facts.jobs.get(order.job_id), order.job_id
    if job is None:
        verdict.broken("lost", f"{name} isn't in the ledger")
        return
    package = facts.packages.get(name)
    if job.state not in ENDED or (package is not None and package.state not in ENDED):
        child = f", its package {package.state}" if package else ""
        verdict.broken("unfinished", f"{name} is {job.state}{child} (attempt {job.attempt})")
        return
    code = (job.failure or {}).get("code")
    if (job.state, code) != (order.state, order.code):
        verdict.broken("lost", f"{name} is {job.state} ({code}), not {order.state} ({order.code})")
        return
    types = Counter(event.type for event in facts.events[name])
    endings = sum(types[ending] for ending in ENDINGS)
    students = facts.students.get(name, [])
    if endings != 1 or types["trained"] > 1 or len(students) > 1:
        verdict.broken("double_commits", f"{name}: {dict(types)}, {len(students)} students")
    if order.state == "succeeded" and (types["trained"], len(students)) != (1, 1):
        verdict.broken("lost", f"{name} succeeded with {dict(types)}, {len(students)} students")
    for student in students:
        wrong = _wrong(arena, order, student)
        if wrong:
            verdict.broken("lost", f"{name}: {wrong}")


def _wrong(arena: Arena, order: Order, student: Student) -> str | None:
    """What is wrong with a student's files; None when they are what they have to be."""
    content = {}
    for row in student.files:
        path = arena.storage.path(row["key"])
        if not path.exists():
            return f"{row['key']} is gone"
        content[row["name"]] = path.read_bytes()
        if hashlib.sha256(content[row["name"]]).hexdigest() != row["sha256"]:
            return f"{row['key']} is damaged"
    weights = content[standin.STUDENT]
    if not weights.startswith(b'{"seed"'):
        same = hashlib.sha256(weights).hexdigest() == order.student
        return None if same else "another student than of an undisturbed training"
    made = json.loads(weights)
    if order.student is None:  # a rescued one: some step of the right chain
        same = standin.chain(made["seed"], made["step"]) == made["chain"]
    else:
        same = made["chain"] == order.student
    return None if same else f"another student than of an undisturbed job: {made}"


def _judge_witness(arena: Arena, facts: Facts, verdict: Verdict) -> None:
    latest: dict[str, int] = {}
    leases: dict[tuple[str, int], list[witness.Line]] = defaultdict(list)
    for line in witness.read(arena.witness):
        if line.what == "lease":
            leases[line.job, line.attempt].append(line)
        elif line.what == "write":
            stale = line.attempt != line.row or line.attempt < latest.get(line.job, 0)
            latest[line.job] = max(line.attempt, latest.get(line.job, 0))
            if stale:
                verdict.broken(
                    "stale_writes",
                    f"{line.job}: attempt {line.attempt} wrote at {line.row}",
                )
    for job_id, events in facts.events.items():
        for event in events:
            failure = event.data.get("failure") or {}
            if event.type != "requeued" or failure.get("code") != "worker_lost":
                continue
            attempt, at = event.data["attempt"], event.at.timestamp()
            held = [line.until for line in leases[job_id, attempt] if line.at < at]
            left = max(held, default=at) - at
            if left > CLOCK:
                verdict.broken(
                    "early_sweeps", f"{job_id}: attempt {attempt} had {left:.2f} s of its lease"
                )


def _left_behind(arena: Arena, verdict: Verdict) -> None:
    """Processes, leases and files that nobody needs."""
    mark = f"{MARK}={arena.mark}"
    until(lambda: not procs.marked(mark), STALLED)
    left = [f"process {procs.named(pid)}" for pid in procs.marked(mark)] + arena.stuck
    with arena.database.read() as session:
        for job in session.scalars(select(Job)):
            if job.lease_owner is not None or job.state in HELD:
                left.append(f"the lease of {job.id}")
    jobs = arena.settings.work_dir / "jobs"
    left += [f"job directory {path.name}" for path in (jobs.iterdir() if jobs.is_dir() else ())]
    _age(arena.storage.root)
    collector.collect(arena.database, arena.storage, arena.settings)
    left += [f"stored file {name}" for name in sorted(_stored(arena) - _spoken_of(arena))]
    for each in left:
        verdict.broken("orphans", each)


def _age(root: Path) -> None:
    """Make every file look old: no grace protects it from the collector."""
    then = time.time() - LONG_AGO
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def _stored(arena: Arena) -> set[str]:
    root = arena.storage.root
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def _spoken_of(arena: Arena) -> set[str]:
    """The keys that some row needs."""
    keys: set[str] = set()
    with arena.database.read() as session:
        for dataset in session.scalars(select(Dataset)):
            needed = (dataset.file_key, dataset.gallery_key, dataset.upload_key)
            keys |= {key for key in needed if key}
        for student in session.scalars(select(Student)):
            keys |= {row["key"] for row in student.files}
        for job in session.scalars(select(Job)):
            if job.checkpoint:
                files = Checkpoint.model_validate(job.checkpoint).files.values()
                keys |= {file.key for file in files}
            if job.state not in ENDED:
                keys |= {file["key"] for file in job.spec.get("trained", ())}
    return keys
