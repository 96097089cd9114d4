"""A place where jobs are run: one device or several, one job at a time, whichever doorbell rang."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app import metrics
from app.db import Database
from app.errors import StorageUnavailableError
from app.jobs import fleet
from app.outbox import Relay
from app.settings import DEFAULT_QUEUE, Settings
from app.storage import open_storage
from worker import collector, memory, pipeline, sweeper
from worker.kinds import KINDS
from worker.launch import Child
from worker.pipeline import Launch

SWEEPS_PER_LEASE = 6  # a job is found at most a sixth of a lease after its own has run out

log = structlog.get_logger(__name__)


class Station:
    """What a worker process holds, and the thread that sweeps beside its jobs."""

    def __init__(
        self,
        settings: Settings,
        *,
        device: str = "cpu",
        devices: int = 1,
        queues: Sequence[str] = (DEFAULT_QUEUE,),
        kinds: Sequence[str] = tuple(KINDS),
        launch: Launch = Child,
    ) -> None:
        self.settings = settings
        self.device, self.devices = device, devices
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self.stopping = False  # a plain flag: a signal handler sets it
        self._database = Database.of(settings, "tdmr-worker")
        self._storage = open_storage(settings)
        self.queues, self.kinds, self._launch = tuple(queues), tuple(kinds), launch
        self._memory = memory.of(device)
        self._turn = threading.Lock()
        self._relay = Relay(self._database, settings)
        self._threads = [
            Repeated("sweep", settings.lease_seconds / SWEEPS_PER_LEASE, self.sweep),
            Repeated("report", settings.heartbeat_seconds, self.report),
            Repeated("collect", settings.collect_seconds, self.collect),
        ]

    def beside(self, name: str, interval: float, action: Callable[[], object]) -> None:
        """Have `action` called every `interval` seconds too, once the station is open."""
        self._threads.append(Repeated(name, interval, action))

    def open(self) -> None:
        """Begin to sweep, to relay, and to be heard of."""
        log.info("open", worker=self.worker, device=self.device, pid=os.getpid())
        self._relay.start()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Hand back what is running, and end every thread."""
        self.stopping = True
        for thread in self._threads:
            thread.stop()
        self._relay.stop()
        try:
            with self._database.write() as session:
                fleet.leave(session, self.worker)
        except SQLAlchemyError as error:
            log.warning("database_unreachable", error=str(error))
        self._database.close()
        log.info("closed", worker=self.worker)

    def sweep(self) -> None:
        """One round of sweeping."""
        sweeper.sweep(self._database, self._storage, self.settings)
        metrics.SWEEPS.inc()

    def report(self) -> None:
        """Be heard of."""
        with self._database.write() as session:
            fleet.report(
                session,
                self.worker,
                host=socket.gethostname(),
                pid=os.getpid(),
                device=self.device,
                queues=list(self.queues),
                kinds=list(self.kinds),
                memory_bytes=self._memory,
                devices=self.devices,
            )

    def collect(self) -> None:
        """Remove stored files that no row speaks of."""
        collector.collect(self._database, self._storage, self.settings)

    def run_next(self) -> bool:
        """Run one job, when it's this caller's turn; False when there was none."""
        with self._turn:
            if self.stopping:
                return False
            ran = pipeline.run_next(
                self._database,
                self._storage,
                self.settings,
                worker=self.worker,
                device=self.device,
                devices=self.devices,
                queues=self.queues,
                kinds=self.kinds,
                launch=self._launch,
                stopping=lambda: self.stopping,
            )
        if ran:
            self._relay.nudge()  # what follows from it is owed a bell
        return ran

    @property
    def busy(self) -> bool:
        """Whether a job is being run."""
        return self._turn.locked()

    def drain(self) -> None:
        """Run jobs until none is due. A database that is away is only a delay."""
        try:
            while self.run_next():
                pass
        except SQLAlchemyError as error:
            log.warning("database_unreachable", error=str(error))


class Repeated:
    """A thread that does one thing again and again, and outlives its errors."""

    def __init__(self, name: str, interval: float, action: Callable[[], object]) -> None:
        self._name, self._interval, self._action = name, interval, action
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Do it for the first time, now."""
        self._thread.start()

    def stop(self) -> None:
        """Let the round it may be in come to its end, and do it no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._action()
            except SQLAlchemyError as error:
                log.warning("database_unreachable", during=self._name, error=str(error))
            except StorageUnavailableError as error:
                log.warning("storage_unreachable", during=self._name, error=str(error))
            except Exception:  # a round that breaks is logged, and the next one is tried
                log.exception("round_broke", during=self._name)
            self._stop.wait(self._interval)
