"""What several files of these tests begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.db import Database
from app.settings import Settings
from app.storage import LocalStorage
from tests.worker.bench import Bench


@pytest.fixture
def bench(database: Database, storage: LocalStorage, settings: Settings) -> Iterator[Bench]:
    bench = Bench(database, storage, settings)
    yield bench
    bench.stop = True
    bench.pool.shutdown()
