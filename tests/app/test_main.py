"""What a server holds, it holds from its start."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.access import keys
from app.api.core import Core
from app.db import FILE_CONNECTIONS
from app.main import READERS
from tests.app.conftest import MakeKey

ON_THE_LOOP = 1


def opened(path: Path) -> int:
    """How many of this process's descriptors are of a file."""
    links = list(Path("/proc/self/fd").iterdir())
    return sum(link.exists() and link.samefile(path) for link in links)


def use_all(core: Core, digest: str) -> None:
    """Have as much under way at once as ever is."""
    met = Barrier(READERS)

    def look(_: int) -> None:
        met.wait()
        core.glances.find(digest, "job_0")

    with ExitStack() as busy:
        for _ in range(FILE_CONNECTIONS - 5):  # its own threads have a use for some
            busy.enter_context(core.database.read()).execute(text("SELECT 1"))
        list(core.readers.map(look, range(READERS)))


def test_a_busy_moment_leaves_no_more_connections_to_a_file(
    app: FastAPI, core: Core, make_key: MakeKey
) -> None:
    key, file = make_key("ana"), core.settings.data_dir / "tdmr.db"
    elsewhere = opened(file)
    with TestClient(app, headers={"Authorization": f"Bearer {key}"}) as client:
        held = opened(file) - elsewhere
        assert held == FILE_CONNECTIONS + ON_THE_LOOP + READERS
        use_all(core, keys.digest(key))
        assert client.get("/v1/jobs/job_0").status_code == 404
        assert opened(file) - elsewhere == held
