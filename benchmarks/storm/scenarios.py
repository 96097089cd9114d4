"""What strikes on purpose, and not by chance: workers and jobs."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from sqlalchemy import select

from app.jobs import ledger
from app.models import Event, Job
from benchmarks.storm import chaos, procs
from benchmarks.storm.arena import HANG, Arena, Play, until
from benchmarks.storm.latency import p99
from benchmarks.storm.row import Row, conclude
from benchmarks.storm.standstill import freeze, sqlite_free
from tdmr import failpoint

SAVING = Play(steps=HANG, pause=0.03, every=10)
DEAF, MUTE = replace(SAVING, act="deaf"), replace(SAVING, act="mute")
PAST = 1.5  # leases that a worker is stopped for, at least


def failpoints(arena: Arena) -> Row:
    """A worker for each point, which dies there or whose job does; others end what is left."""
    points = [name for name in failpoint.POINTS if arena.rings or name != "bell.sent"]
    fleet, markers = arena.fleet(), {name: arena.folder / f"at-{name}" for name in points}
    for name, marker in markers.items():
        fleet.start(**{failpoint.VARIABLE: f"{name}:{marker}"})

    def all_reached() -> bool:
        if sum(arena.job(each).state == "queued" for each in arena.orders) < 4:
            arena.submit(Play(steps=8))
        return all(marker.exists() for marker in markers.values())

    arena.until(all_reached)
    fleet.keep(4)
    row = conclude(arena, reached=[name for name in points if markers[name].exists()])
    missed = sorted(set(points) - set(row.figures["reached"]))
    row.expect(not missed, f"never came to {', '.join(missed)}")
    return row


def stalled(arena: Arena, bound: float) -> Row:
    """Two workers are stopped past their leases: one's job ends meanwhile, the other's goes on.

    Both come back: nothing of theirs may count, and their processes have to go.
    """
    fleet, gate = arena.fleet(plain=False), arena.folder / "gate"
    ends = arena.submit(Play(gate=str(gate)))
    goes_on = arena.submit(DEAF, state="cancelled")
    fleet.keep(2)
    assert arena.until(lambda: saving(arena) == 2)
    hands = {each.job.id: each.hand for each in chaos.busy(arena, fleet)}
    groups = {job_id: procs.leader_under(hand.pid) for job_id, hand in hands.items()}
    for job_id, hand in hands.items():
        freeze(hand.pid, hand.signal, partial(_unlocked, arena, job_id))
    gate.touch()
    time.sleep(PAST * arena.settings.lease_seconds)
    fleet.keep(5)
    taken = arena.until(lambda: arena.job(ends).state == "succeeded")
    taken = arena.until(lambda: _attempt_runs(arena, goes_on, 2)) and taken
    before = {job_id: _log(arena, job_id, 1) for job_id in hands}
    lives, began = _any_runs([groups[goes_on]]), time.monotonic()
    for hand in hands.values():
        hand.signal(signal.SIGCONT)
    gone = until(lambda: not _any_runs(groups.values()), bound)
    took = time.monotonic() - began
    time.sleep(1)  # for whatever they may still write
    same = all(_log(arena, job_id, 1) == events for job_id, events in before.items())
    cancel(arena, goes_on)
    row = conclude(arena, gone_seconds=round(took, 2))
    row.expect(lives, "there was no stale process to end")
    row.expect(taken, "another worker didn't take over")
    row.expect(gone, f"a stale process lived {bound:g} s longer than its worker slept")
    row.expect(same, "a stale attempt wrote into a log")
    return row


def _any_runs(groups: Iterable[int | None]) -> bool:
    wanted = set(groups)
    return any(process.group in wanted for process in procs.running())


def _unlocked(arena: Arena, job_id: str) -> bool:
    """Whether somebody else can write to the job."""
    if arena.settings.url.startswith("sqlite"):
        return sqlite_free(arena.settings.data_dir / "tdmr.db")
    query = select(Job.id).where(Job.id == job_id).with_for_update(skip_locked=True)
    with arena.database.write() as session:
        return session.scalar(query) is not None


def _attempt_runs(arena: Arena, job_id: str, attempt: int) -> bool:
    job = arena.job(job_id)
    return job.attempt >= attempt and job.state == "running"


def _log(arena: Arena, job_id: str, attempt: int) -> list[int]:
    """The numbers of the events up to the next attempt's start, and of those that name this one."""

    def numbers(events: list[Event]) -> list[int]:
        second = [e.seq for e in events if e.type == "started" and e.data["attempt"] > attempt]
        first = min(second, default=1 << 30)
        return [e.seq for e in events if e.seq < first or e.data.get("attempt") == attempt]

    query = select(Event).where(Event.job_id == job_id).order_by(Event.seq)
    return arena.ask(lambda session: numbers(list(session.scalars(query))))


def dying(arena: Arena) -> Row:
    """Jobs that always die end after so many strikes; the others go on."""
    most = arena.settings.max_attempts
    dead = {
        arena.submit(play, state="failed", code=code, max_attempts=most): code
        for play, code in ((Play(act="die"), "process_died"), (Play(act="poison"), "worker_lost"))
    }
    fleet = arena.fleet(plain=False)
    for _ in range(6):
        arena.submit(Play())

    def all_ended() -> bool:
        fleet.keep(3)
        return arena.open() == 0

    arena.until(all_ended)
    row = conclude(arena)
    for job_id, code in dead.items():
        job = arena.job(job_id)
        tried = (job.attempt, job.strikes)
        row.expect(tried == (most, most), f"{code}: {tried[0]} attempts, {tried[1]} strikes")
    row.figures["attempts"] = {code: arena.job(job_id).attempt for job_id, code in dead.items()}
    return row


def crowd(arena: Arena, processes: int, times: int) -> Row:
    """One request, sent `times` times at once by several processes with many threads each."""
    fleet, logs = arena.fleet(), [arena.folder / f"crowd-{number}" for number in range(processes)]
    shares = [str(len(range(start, times, processes))) for start in range(processes)]
    pids = [
        fleet.fork("crowd", (arena.dataset_id, "the-key", share), log)
        for share, log in zip(shares, logs, strict=True)
    ]
    statuses = [arena.zygote.reap(pid) for pid in pids]
    lines = [line for log in logs for line in log.read_text().splitlines()]
    answers = [line for line in lines if line.startswith("job_")]
    jobs = arena.ask(
        lambda s: s.scalars(select(Job.id).where(Job.idempotency_key == "the-key")).all()
    )
    for job_id in jobs:
        cancel(arena, job_id)  # nobody is there to run it
    row = conclude(arena, submissions=len(answers), jobs=len(jobs))
    row.expect(statuses == [0] * processes, f"the crowd ended with {statuses}")
    row.expect(len(answers) == times, f"{len(answers)} of {times} submissions were answered")
    row.expect(len(jobs) == 1, f"{len(jobs)} jobs were made")
    row.expect(set(answers) == set(jobs), "another job was named than was made")
    return row


def cancels(arena: Arena, times: int, at_once: int, bound: float) -> Row:
    """Running jobs are cancelled while there is no broker.

    Some talk all the time, which is when the ledger answers; some don't, and some are deaf.
    """
    fleet, took, lost = arena.fleet(plain=False), dict[str, list[float]](), 0
    fleet.keep(at_once)
    plays = itertools.cycle((SAVING, MUTE, DEAF))
    for _ in range(0, times, at_once):
        jobs = {}
        for play in itertools.islice(plays, at_once):
            ear = "deaf" if play is DEAF else "hears"
            jobs[arena.submit(play, state="cancelled")] = ear
        assert arena.until(lambda: saving(arena) == at_once)
        groups = {b.job.id: procs.leader_under(b.hand.pid) for b in chaos.busy(arena, fleet)}
        for job_id, seconds in _cancelled(arena, groups).items():
            took.setdefault(jobs[job_id], []).append(round(seconds, 3))
        lost += list(groups.values()).count(None)
        arena.settle()
    row = conclude(arena, p99_seconds=p99(took["hears"]), deaf_p99_seconds=p99(took["deaf"]))
    row.figures["seconds"] = {ear: sorted(values) for ear, values in took.items()}
    row.expect(not lost, f"{lost} jobs had no process when they were cancelled")
    gone = sum(map(len, took.values()))
    row.expect(gone == times, f"{gone} of {times} cancelled jobs' processes ended")
    slow = [each for values in took.values() for each in values if each > bound]
    row.expect(not slow, f"cancelling took {slow} s")
    return row


def saving(arena: Arena) -> int:
    """How many jobs run that have a checkpoint."""
    query = select(Job).where(Job.state == "running")
    return arena.ask(lambda session: sum(bool(j.checkpoint) for j in session.scalars(query)))


def _cancelled(arena: Arena, groups: dict[str, int | None]) -> dict[str, float]:
    """Cancel these jobs; the seconds from each request until nothing of its group ran."""
    asked, took = dict[str, float](), dict[str, float]()
    for job_id in groups:
        cancel(arena, job_id)
        asked[job_id] = time.monotonic()

    def all_gone() -> bool:
        there = {process.group for process in procs.running()}
        for job_id, group in groups.items():
            if group not in there:
                took.setdefault(job_id, time.monotonic() - asked[job_id])
        return len(took) == len(groups)

    arena.until(all_gone)
    return took


def cancel(arena: Arena, job_id: str) -> None:
    """Ask for a job to be cancelled, as the API does."""
    arena.change(
        lambda session: ledger.request_cancel(
            session, session.get_one(Job, job_id), ring=arena.rings
        )
    )
    arena.relay.nudge()
