"""Carries out docker-compose.yml without containers: its own commands, in the order it asks for.

A command is changed in what a container would have given it alone: names of hosts and ports become
loopback and free ports, paths inside become folders of the test.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.deploy import files
from tests.deploy.files import ROOT
from tests.support import (
    end,
    free_port,
    postgres_account,
    postgres_binary,
    redis_binary,
    wait_until,
)

PORTS = ("5432", "6379", "9000", "8080", "2020", "80")  # inside the containers
HOSTS = ("postgres", "redis", "store", "server")
PATIENCE = 120.0  # that nothing takes


class Composition:
    """The services that were started, each a process, with the test's own folders and ports."""

    def __init__(self, folder: Path, **given: str) -> None:
        self.services: dict[str, Any] = files.compose()["services"]
        self.folder, self.given = folder, given
        self.ports = {port: str(free_port()) for port in PORTS}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.data, self.secrets = folder / "data", folder / "secrets"
        self.data.mkdir()
        make = ["make", "--silent", "secrets", f"SECRETS={self.secrets}"]
        subprocess.run(make, cwd=ROOT, check=True)
        self._programs = folder / "bin"
        self._programs.mkdir()
        for name, program in programs().items():
            (self._programs / name).symlink_to(program)

    def place(self, name: str, text: str) -> str:
        """A word of a service's as it is here."""
        text = text.replace("$$", "$").replace("0.0.0.0", "127.0.0.1")
        text = re.sub(rf"\b(?:{'|'.join(HOSTS)}):(\d+)", r"127.0.0.1:\1", text)
        text = re.sub(rf"\b(?:{'|'.join(PORTS)})\b", lambda found: self.ports[found[0]], text)
        text = text.replace("/etc/caddy/Caddyfile", str(ROOT / "deploy" / "Caddyfile"))
        text = text.replace("/run/secrets", str(self.secrets))
        text = text.replace("/var/lib/tdmr", str(self.data))
        return re.sub(r"(?<![\w/])/data\b", str(self.volume(name)), text)

    def volume(self, name: str) -> Path:
        """The volume of a service that isn't ours."""
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name

    def environment(self, name: str) -> dict[str, str]:
        """What a service finds: the image's variables, the file's, and the test's."""
        service = self.services[name]
        path = (str(Path(sys.executable).parent), str(self._programs), os.environ["PATH"])
        found = {"PATH": os.pathsep.join(path), "HOME": str(self.folder)}
        steps = files.target(service)
        for key, value in {
            **(files.environment(steps) if steps else {}),
            **service.get("environment", {}),
        }.items():
            if key not in ("PATH", "PYTHONPATH", "HOME", "TDMR_SITE", "TDMR_TRUSTED_PROXIES"):
                found[key] = self.place(name, value)
        found |= {"PYTHONPATH": str(ROOT), "TDMR_BIND": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        found |= {"TDMR_SITE": f"http://127.0.0.1:{self.ports['80']}", "TDMR_POLL_SECONDS": "0.2"}
        found |= {"TDMR_HEALTH_PORT": self.ports["2020"], "TDMR_TRUSTED_PROXIES": "127.0.0.0/24"}
        return found | self.given

    def run(self, name: str, command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        """Carry out a command where a service is, to its end."""
        placed = [self.place(name, word) for word in command]
        variables = {**self.environment(name), **more}
        return subprocess.run(
            placed, env=variables, cwd=self.folder, capture_output=True, text=True
        )

    def start(self, name: str, called: str = "", **more: str) -> None:
        """Start a service, and return once it's well; one that ends must end well."""
        called = called or name
        service = self.services[name]
        placed = [self.place(name, word) for word in files.command(service)]
        account = self._initialise() if name == "postgres" else None
        with (self.folder / f"{called}.log").open("ab") as log:
            process = subprocess.Popen(
                placed,
                env={**self.environment(name), **more},
                cwd=self.volume(name),
                stdout=log,
                stderr=log,
                user=account,
            )
        self.processes[called] = process
        check = files.health(service)
        if not check:
            assert process.wait(PATIENCE) == 0, self.log(name)
            return
        try:
            wait_until(lambda: self.run(name, check, **more).returncode == 0, process, PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{called} {error}:\n{self.log(called)}") from None
        if name == "postgres":
            self._make_database()

    def log(self, name: str) -> str:
        """What a service has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self, name: str) -> int:
        """End a service as the engine does; its exit status."""
        end(self.processes[name])
        return self.processes[name].returncode

    def _initialise(self) -> int | None:
        """What the image's own entrypoint does with its variables before the first start."""
        given = self.environment("postgres")
        where = self.volume("postgres")
        account = postgres_account(where)
        password = where / "password"
        shutil.copy(given["POSTGRES_PASSWORD_FILE"], password)
        password.chmod(0o644)
        command = [postgres_binary("initdb"), "-D", where / "data", "-E", "UTF8", "--locale=C"]
        login = ["--username", given["POSTGRES_USER"], "--pwfile", password, "--no-sync"]
        options = shlex.split(given["POSTGRES_INITDB_ARGS"])
        subprocess.run([*command, *login, *options], check=True, capture_output=True, user=account)
        with (where / "data" / "postgresql.conf").open("a") as file:
            file.write(f"port={self.ports['5432']}\nunix_socket_directories='{where}'\n")
            file.write("listen_addresses='127.0.0.1'\nfsync=off\n")
        self.given["PGDATA"] = str(where / "data")
        return account

    def _make_database(self) -> None:
        given = self.environment("postgres")
        password = Path(given["POSTGRES_PASSWORD_FILE"]).read_text()
        address = ["-h", "127.0.0.1", "-p", self.ports["5432"], "-U", given["POSTGRES_USER"]]
        command = [postgres_binary("createdb"), *address, given["POSTGRES_DB"]]
        subprocess.run(command, check=True, env={**os.environ, "PGPASSWORD": password})


@contextmanager
def composed(**given: str) -> Iterator[Composition]:
    """Nothing started yet; at the end, everything that was is ended, the last first."""
    folder = Path(tempfile.mkdtemp(prefix="tdmr-compose-"))  # where PostgreSQL's account comes, too
    folder.chmod(0o711)
    composition = Composition(folder, **given)
    try:
        yield composition
    finally:
        with ExitStack() as ends:
            for process in composition.processes.values():
                if process.poll() is None:
                    ends.callback(end, process)
        shutil.rmtree(folder)


def programs() -> dict[str, str]:
    """Programs that images come with and that aren't beside this interpreter."""
    redis = Path(redis_binary())
    found = {name: postgres_binary(name) for name in ("postgres", "pg_isready")}
    return found | {"redis-server": str(redis), "redis-cli": str(redis.with_name("redis-cli"))}
