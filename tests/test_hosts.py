"""Several hosts that share no disk: jobs spread, a host is cut off, its job ends on another.

PostgreSQL, Redis and the object store are on one host, the server on another, two workers on hosts
of their own, and whoever uses the service on a fifth. Workers, server, network and store are real;
the jobs' processes are stand-ins (tests/worker/standin.py), which save and go on as trainings do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.db import Database
from app.jobs import moves
from app.jobs.claims import Checkpoint
from app.models import Event, Job, Student
from app.models import Worker as Heard
from tests.app.datasets.zips import good_files, pack
from tests.conftest import FAST, INITDB
from tests.hosts import Network, as_nobody, below, network
from tests.stores import ACCESS, SECRET, Store, store
from tests.support import (
    end,
    postgres_account,
    postgres_binary,
    redis_binary,
    wait_until,
)

PATIENCE = 300.0  # seconds; nothing here depends on how long anything takes
POSTGRES, REDIS, FILES, HTTP = "54320", "63790", 9000, "8080"
LEASE = {"lease_seconds": "12", "heartbeat_seconds": "1", "poll_seconds": "0.5"}
OWNER = "ana"
LOG = 4000  # characters of each host's, shown when it went wrong


@dataclass
class Lab:
    """What runs where."""

    network: Network
    folder: Path
    running: ExitStack
    variables: dict[str, str]
    database: Database
    key: str = ""
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, host: str, *command: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a program on a host; it ends with the lab."""
        environment = {**self.variables, "TDMR_DATA_DIR": str(self.folder / host), **more}
        with (self.folder / f"{host}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.network.within(host), *command],
                stdout=log,
                stderr=log,
                env=os.environ | environment,
            )
        self.running.callback(lambda: end(process))
        return process

    def say(self, host: str, *command: str) -> str:
        """Run a program on a host to its end; what it prints."""
        environment = {**self.variables, "TDMR_DATA_DIR": str(self.folder / host)}
        ran = subprocess.run(
            [*self.network.within(host), *command],
            capture_output=True,
            text=True,
            env=os.environ | environment,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def ask(self, script: str, *words: str) -> str:
        """What a user's script says, on the user's host; `client` is there already."""
        begin = f"""
        import sys
        from tdmr.client import Client
        client = Client("http://{self.network.addresses["server"]}:{HTTP}", "{self.key}")
        """
        text = textwrap.dedent(begin) + textwrap.dedent(script)
        return self.say("client", sys.executable, "-c", text, *words).strip()

    def work(self, host: str) -> None:
        """Start a worker."""
        module = ("-m", "tests.worker.standin_worker", "--celery")
        self.workers[host] = self.start(host, sys.executable, *module)

    def submit(self, dataset_id: str, *play: str, gate: str = "") -> str:
        """Order a job that a stand-in plays; its id."""
        spec = {"foundation": "f", "student": "s", "play": list(play), "gate": gate}
        with self.database.write() as session:
            return moves.submit(
                session,
                owner=OWNER,
                kind="distil",
                dataset_id=dataset_id,
                spec=spec,
                max_attempts=3,
                ring=True,
            ).id

    def job(self, job_id: str) -> Job:
        """A row, as it is now."""
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def until(self, job_id: str, state: str) -> None:
        """Wait for a job."""
        wait_until(lambda: self.job(job_id).state == state, seconds=PATIENCE)

    def step(self, job_id: str) -> int:
        """The step of a job's checkpoint."""
        stored = self.job(job_id).checkpoint
        return Checkpoint.model_validate(stored).step if stored else 0

    def log(self, job_id: str) -> list[tuple[str, dict[str, Any]]]:
        """A job's events."""
        query = select(Event).where(Event.job_id == job_id).order_by(Event.seq)
        with self.database.read() as session:
            return [(event.type, event.data) for event in session.scalars(query)]

    def started(self, job_id: str) -> list[str]:
        """The hosts that have begun a job, in order: a worker's name has its process id."""
        hosts = {str(worker.pid): host for host, worker in self.workers.items()}
        log = self.log(job_id)
        return [hosts[data["worker"].split(":")[1]] for type_, data in log if type_ == "started"]

    def heard(self) -> set[int]:
        """The workers that have been heard of lately."""
        with self.database.read() as session:
            return set(session.scalars(select(Heard.pid)))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("hosts")
    with network() as hosts, ExitStack() as running, postgres(hosts, running) as (url, socket):
        home = hosts.addresses["services"]
        (folder / "files").mkdir()
        files = running.enter_context(
            store(
                "rclone",
                folder / "files",
                host=home,
                port=FILES,
                within=hosts.within("services"),
            )
        )
        variables = settings(files, url, f"redis://{home}:{REDIS}/0")
        database = Database(socket)
        running.callback(database.close)
        lab = Lab(hosts, folder, running, variables, database)
        open_service(lab)
        try:
            yield lab
        finally:
            for host, worker in lab.workers.items():  # one that is cut off couldn't end
                hosts.join(host, worker.pid)
            running.close()
            for log in sorted(folder.glob("*.log")):  # shown where a test has failed
                print(f"{log.name}:\n{log.read_text(errors='replace')[-LOG:]}")


def settings(files: Store, database: str, broker: str) -> dict[str, str]:
    """What every host is told."""
    given = {
        **LEASE,
        "database_url": database,
        "broker_url": broker,
        "storage_url": "s3://files/service",
        "storage_endpoint": files.endpoint,
        "storage_allow_http": "1",
        "storage_access_key": ACCESS,
        "storage_secret_key": SECRET,
    }
    return {f"TDMR_{name.upper()}": value for name, value in given.items()}


def open_service(lab: Lab) -> None:
    """Redis, the server and two workers, each where it belongs."""
    address = lab.network.addresses
    redis = ("--bind", address["services"], "--port", REDIS, "--protected-mode", "no")
    lab.start("services", redis_binary(), *redis, "--save", "", "--dir", str(lab.folder))
    create = (sys.executable, "-m", "app", "keys", "create", "--owner", OWNER)
    lab.key = lab.say("server", *create).split()[-1]
    ready = lab.folder / "ready"
    serve = ("-m", "app", "serve", "--host", address["server"], "--port", HTTP, "--no-dashboard")
    server = lab.start("server", sys.executable, *serve, "--ready-file", str(ready))
    wait_until(ready.exists, server, PATIENCE)
    for host in ("one", "two"):
        lab.work(host)
    pids = {worker.pid for worker in lab.workers.values()}
    wait_until(lambda: lab.heard() == pids, seconds=PATIENCE)


@contextmanager
def postgres(hosts: Network, running: ExitStack) -> Iterator[tuple[str, str]]:
    """PostgreSQL on its host: its address there, and its socket for this test, which is nowhere."""
    home = hosts.addresses["services"]
    with tempfile.TemporaryDirectory(prefix="tdmr-hosts-") as name:
        folder = Path(name)
        account = postgres_account(folder)
        made = [postgres_binary("initdb"), "-D", str(folder / "data"), *INITDB]
        subprocess.run(as_nobody(made, account), check=True, capture_output=True)
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {home}/16 trust\n")
        where = ["-c", f"listen_addresses={home}", "-c", f"unix_socket_directories={folder}"]
        command = [postgres_binary("postgres"), "-D", str(folder / "data"), "-p", POSTGRES]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *hosts.within("services"),
                    *as_nobody([*command, *where, *FAST], account),
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
            )
        wait_until((folder / f".s.PGSQL.{POSTGRES}.lock").exists, process, PATIENCE)
        try:
            url = f"postgresql+psycopg://tdmr@{home}:{POSTGRES}/postgres"
            yield url, f"postgresql+psycopg://tdmr@/postgres?host={folder}&port={POSTGRES}"
        finally:
            running.close()  # whoever is connected first
            end(process, signal.SIGQUIT)


@pytest.fixture(scope="module")
def dataset_id(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset that was uploaded to one host, stored on a second and checked on a third."""
    archive = tmp_path_factory.mktemp("upload") / "images.zip"
    archive.write_bytes(pack(good_files()))
    return lab.ask("print(client.upload_dataset(sys.argv[1]).wait().id)", str(archive))


def test_a_host_is_cut_off_and_its_job_ends_on_the_other(
    lab: Lab, dataset_id: str, tmp_path: Path
) -> None:
    saved = lab.submit(dataset_id, "save", "done")
    wait_until(lambda: lab.step(saved) == 1, seconds=PATIENCE)
    gate = tmp_path / "gate"
    waiting = lab.submit(dataset_id, "wait", gate=str(gate))
    lab.until(waiting, "running")
    (lost,), (other,) = lab.started(saved), lab.started(waiting)
    assert {lost, other} == {"one", "two"}, "jobs spread over both hosts"

    training = below(lab.workers[lost].pid)
    assert training
    lab.network.cut(lost, lab.workers[lost].pid)
    gate.touch()
    lab.until(waiting, "succeeded")
    lab.until(saved, "succeeded")
    assert lab.started(saved) == [lost, other]
    assert lab.job(saved).attempt == 2
    told = [type_ for type_, _ in lab.log(saved)]
    assert told.index("checkpoint") < told.index("requeued") < told.index("succeeded")
    (requeued,) = [data for type_, data in lab.log(saved) if type_ == "requeued"]
    assert (requeued["failure"]["code"], requeued["attempt"]) == ("worker_lost", 1)
    with lab.database.read() as session:
        student = session.scalars(select(Student).where(Student.job_id == saved)).one()
    assert student.metrics["resumed_from"] == 1, "it went on from the checkpoint in the store"
    log, rows = lab.log(saved), (student.id, student.files)
    assert lab.heard() == {lab.workers[other].pid}

    lab.network.join(lost, lab.workers[lost].pid)
    wait_until(lambda: len(lab.heard()) == 2, seconds=PATIENCE)
    wait_until(lambda: not below(lab.workers[lost].pid), seconds=PATIENCE)
    wait_until(lambda: not list((lab.folder / lost / "work" / "jobs").iterdir()))
    gates = [tmp_path / "first", tmp_path / "second"]
    again = [lab.submit(dataset_id, "wait", gate=str(gate)) for gate in gates]
    for job_id in again:
        lab.until(job_id, "running")
    assert sorted(host for job_id in again for host in lab.started(job_id)) == ["one", "two"]
    for gate, job_id in zip(gates, again, strict=True):
        gate.touch()
        lab.until(job_id, "succeeded")

    with lab.database.read() as session:
        student = session.scalars(select(Student).where(Student.job_id == saved)).one()
    assert (lab.log(saved), (student.id, student.files)) == (log, rows), "nothing was committed"
    stored = lab.folder / "files" / "files" / "files" / "service"
    assert not list(stored.glob(f"trained/{saved}-1/*"))
    lab.ask("client.download(sys.argv[1], sys.argv[2])", student.id, str(tmp_path / "student"))
    weights = (tmp_path / "student" / "model.safetensors").read_bytes()
    assert weights == b"weights"
