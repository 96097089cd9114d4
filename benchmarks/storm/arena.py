"""An arena: a ledger with its storage and its workers, and what was ordered in it."""

from __future__ import annotations

import json
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from app import migrate
from app.db import Database
from app.jobs import moves
from app.jobs.states import ENDED
from app.models import Dataset, Event, Job, Outbox
from app.outbox import Relay
from app.settings import Settings
from app.storage import LocalStorage
from benchmarks.storm import guards, standin, witness
from benchmarks.storm.fleet import Fleet, Zygote
from tests.support import make_dataset

MARK = "TDMR_STORM_ARENA"
TOUGH = 10_000  # bad ends that a job survives which is there to be killed
STALLED = 400.0  # seconds in which nothing happens: longer than any back-off
SLOWER = 4
OWNERS = ("ana", "ben", "cleo")

Found = TypeVar("Found")
GIVEN_UP = threading.Event()  # whoever asks anything from then on ends
ONE_BY_ONE = threading.Lock()  # Alembic keeps the migration that runs in a global variable


@dataclass(frozen=True)
class Play:
    """What a stand-in does: see `benchmarks.storm.standin`."""

    steps: int = 16
    pause: float = 0.03
    every: int = 4
    act: Literal["", "die", "poison", "deaf", "mute"] = ""
    gate: str = ""


HANG = 1_000_000  # steps of a job that doesn't end by itself


@dataclass(frozen=True)
class Order:
    """A job, and how it is to end; `student` is what `verdict` compares with."""

    job_id: str
    state: str
    student: str | None
    code: str | None = None


@dataclass(frozen=True)
class Kill:
    """A SIGKILL: of the attempt's worker, its process, or both."""

    target: str
    job_id: str
    attempt: int
    at: float
    real: bool


@dataclass
class Arena:
    """All that belongs to one ledger."""

    name: str
    settings: Settings
    folder: Path
    zygote: Zygote
    orders: dict[str, Order] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)  # what didn't end when it was told to
    off: str = ""  # the guard that is switched off (`benchmarks.storm.guards`)
    patience: float = STALLED
    fleets: list[Fleet] = field(default_factory=list)

    def __post_init__(self) -> None:
        with ONE_BY_ONE:
            migrate.upgrade(self.settings.url)
        self.mark = uuid.uuid4().hex
        self.witness = self.folder / "witness.jsonl"
        self.database = Database(self.settings.url)
        self.storage = LocalStorage(self.settings.storage_dir)
        self.relay = Relay(self.database, self.settings)
        self.dataset_id = self._dataset()

    def _dataset(self) -> str:
        source = self.folder / "canonical.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("index.json", "{}")
        return self.publish(source)

    def publish(self, archive: Path) -> str:
        """A ready dataset made of a canonical archive; its id."""
        dataset_id = make_dataset(self.database, owner=OWNERS[0])
        stored = self.storage.put(f"datasets/{dataset_id}/dataset-1.zip", archive)
        with self.database.write() as session:
            dataset = session.get_one(Dataset, dataset_id)
            dataset.file_key, dataset.version = stored.key, stored.sha256
        return dataset_id

    @property
    def rings(self) -> bool:
        """Whether there is a broker."""
        return self.settings.broker_url is not None

    def fleet(self, queue: str = "default", *, plain: bool = True) -> Fleet:
        """Workers of this arena for one queue."""
        celery = ("--celery",) if self.rings else ()
        fleet = Fleet(
            self.zygote,
            {
                **environment(self.settings),
                MARK: self.mark,
                witness.VARIABLE: str(self.witness),
                guards.VARIABLE: self.off,
            },
            self.folder / "logs",
            *celery,
            *("--queue", queue),
            plain=plain,
        )
        self.fleets.append(fleet)
        return fleet

    def submit(
        self,
        play: Play,
        *,
        state: str = "succeeded",
        code: str | None = None,
        max_attempts: int = TOUGH,
    ) -> str:
        """Order a job that a stand-in plays, and say how it is to end."""
        seed = uuid.uuid4().hex
        spec = {"seed": seed, **vars(play)}
        student = standin.chain(seed, play.steps) if state == "succeeded" else None
        given = {"foundation": "storm", "student": "storm", standin.SPEC: spec}
        return self.order(given, student, state=state, code=code, max_attempts=max_attempts)

    def order(
        self,
        spec: dict[str, Any],
        student: str | None,
        *,
        dataset_id: str | None = None,
        queue: str = "default",
        state: str = "succeeded",
        code: str | None = None,
        max_attempts: int = TOUGH,
    ) -> str:
        """Put a job into the ledger, as the API does."""
        direct = self.off == "outbox"
        job = self.change(
            lambda session: moves.submit(
                session,
                owner=OWNERS[len(self.orders) % len(OWNERS)],
                kind="distil",
                dataset_id=dataset_id or self.dataset_id,
                spec=spec,
                max_attempts=max_attempts,
                ring=self.rings and not direct,
                queue_name=queue,
            )
        )
        self.orders[job.id] = Order(job.id, state, student, code)
        if direct:
            guards.ring_directly(self.settings, job)
        self.relay.nudge()
        return job.id

    def until(self, condition: Callable[[], object]) -> bool:
        """Whether `condition` comes true before patience ends.

        However slow the machine: as long as something happens, that takes several times as long.
        """
        began = since = time.monotonic()
        seen, most = -1, self.patience * (1 if self.off else SLOWER)
        while not condition():
            now = time.monotonic()
            if now - began > most or now - since > self.patience:
                return False
            if now - since > 1 and (events := self._events()) != seen:
                seen, since = events, now
            time.sleep(0.05)
        return True

    def _events(self) -> int:
        return self.ask(
            lambda session: session.scalar(select(func.count()).select_from(Event)) or 0
        )

    def change(self, action: Callable[[Session], Found]) -> Found:
        """Write to the ledger; on a database that is busy, after a while."""
        deadline = time.monotonic() + STALLED
        while True:
            try:
                with self.database.write() as session:
                    return action(session)
            except OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def ask(self, question: Callable[[Session], Found]) -> Found:
        """What the ledger says; a database that is away is waited for."""
        deadline = time.monotonic() + STALLED
        while True:
            if GIVEN_UP.is_set():
                raise InterruptedError("the storm was told to end")
            try:
                with self.database.read() as session:
                    return question(session)
            except SQLAlchemyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def job(self, job_id: str) -> Job:
        """A row, as it is now."""
        return self.ask(lambda session: session.get_one(Job, job_id))

    def open(self) -> int:
        """How many orders haven't ended, those that are being packaged or rescued included."""
        busy = select(func.count()).where(Job.state.not_in(ENDED))
        return self.ask(lambda session: session.scalar(busy) or 0)

    def owed(self) -> int:
        """How many bells the broker hasn't taken yet."""
        return self.ask(lambda session: session.scalar(select(func.count(Outbox.id))) or 0)

    def settle(self) -> bool:
        """Wait until every job has ended, with as many workers as were wanted last."""

        def ended() -> bool:
            for fleet in self.fleets:
                fleet.keep()
            return self.open() == 0

        return self.until(ended)

    def close(self) -> None:
        """Wait for what workers tidy up in their rounds, then end them all."""
        jobs = self.settings.work_dir / "jobs"
        until(lambda: not (jobs.is_dir() and any(jobs.iterdir())), self.patience)
        for fleet in self.fleets:
            self.stuck += fleet.stop()
        self.relay.stop()


def environment(settings: Settings) -> dict[str, str]:
    """What makes a process take these settings."""
    given = settings.model_dump(mode="json", exclude_none=True)
    given["queues"] = ",".join(settings.queues)
    return {
        f"TDMR_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in given.items()
    }


@contextmanager
def arena(name: str, root: Path, zygote: Zygote, *, off: str = "", **given: Any) -> Iterator[Arena]:
    """An arena below `root`, whose workers end with the block; `given` are settings."""
    folder = root / name.replace(" ", "-").replace(",", "")
    (folder / "var").mkdir(parents=True)
    often = {"poll_seconds": 0.2, "checkpoint_seconds": 1.0, "queues": ("default", "real")}
    where = {"database_url": None, "broker_url": None}  # unless they're given
    settings = Settings(data_dir=folder / "var", **{**often, **where, **given})
    made = Arena(name, settings, folder, zygote, off=off)
    made.relay.start()
    try:
        yield made
    finally:
        for fleet in made.fleets:
            fleet.stop()
        made.relay.stop()
        made.database.close()


def until(condition: Callable[[], object], seconds: float = STALLED) -> bool:
    """Whether `condition` came true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
