"""The check of uploaded weights by a real process, and what becomes of the model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from sqlalchemy import select, update

from app.db import Database, new_id, now
from app.foundations import service
from app.jobs import moves
from app.jobs.idempotency import Idempotency
from app.models import Job, Model
from app.settings import Settings
from app.storage import LocalStorage
from tdmr.errors import Failure
from tdmr.models import load_foundation
from tdmr.own import CheckOptions
from tests.app.service import FITS
from tests.worker import scenes
from worker import collector, pipeline, sweeper

State = dict[str, torch.Tensor]


@dataclass
class Bench:
    """Uploads, and a worker that checks them."""

    database: Database
    storage: LocalStorage
    settings: Settings
    folder: Path

    def upload(self, state: State | bytes, architecture: str = "test_vit") -> str:
        """Store weights as a request does; the model's id."""
        file, model_id = self.folder / "weights", service.new_model_id()
        if isinstance(state, bytes):
            file.write_bytes(state)
        else:
            save_file(state, file)
        upload = self.storage.put(service.file_key(model_id), file)
        with self.database.write() as session:
            service.create(
                session,
                model_id=model_id,
                owner="ana",
                name="ours",
                architecture=architecture,
                licence=None,
                upload=upload,
                idempotency=Idempotency(None, "0" * 64),
                settings=self.settings,
            )
        return model_id

    def run(self) -> bool:
        return pipeline.run_next(
            self.database,
            self.storage,
            self.settings,
            worker="bench",
            device="cpu",
            stopping=lambda: False,
        )

    def model(self, model_id: str) -> Model:
        with self.database.read() as session:
            return session.get_one(Model, model_id)

    def checked(self, state: State | bytes, architecture: str = "test_vit") -> Model:
        """A model whose check is over."""
        model_id = self.upload(state, architecture)
        assert self.run()
        assert scenes.files_under(self.settings.work_dir) == []
        return self.model(model_id)


@pytest.fixture
def bench(database: Database, storage: LocalStorage, settings: Settings, tmp_path: Path) -> Bench:
    return Bench(database, storage, settings, tmp_path)


def state(architecture: str = "test_vit", **options: object) -> State:
    torch.manual_seed(0)
    found: State = timm.create_model(architecture, **options).state_dict()
    return found


def test_weights_that_fit_are_ready_and_stay_where_they_are(bench: Bench) -> None:
    model = bench.checked(state())
    assert (model.status, model.findings) == ("ready", [])
    assert (model.params, model.input_size) == (306_240, 160)
    file = bench.storage.path(model.file_key or "")
    named = f"safetensors:test_vit@{file}"
    known = load_foundation(named, None, 4, torch.device("cpu"))
    assert model.fingerprint == known.weights_hash()
    assert scenes.files_under(bench.storage.root) == [str(file)]
    (job,) = jobs(bench)
    assert (job.state, job.dataset_id, job.attempt) == ("succeeded", None, 1)


def jobs(bench: Bench) -> list[Job]:
    with bench.database.read() as session:
        return list(session.scalars(select(Job)))


def test_weights_that_dont_fit_are_invalid_and_gone(bench: Bench) -> None:
    model = bench.checked(state("test_resnet"))
    assert (model.status, model.file_key, model.params) == ("invalid", None, None)
    (finding,) = model.findings
    assert finding["code"] == "model_weights"
    assert "cls_token: expected (1, 1, 64), found none" in finding["detail"]
    assert finding["advice"] == "Upload it with the architecture that they were saved from."
    assert scenes.files_under(bench.storage.root) == []
    (job,) = jobs(bench)
    assert job.state == "succeeded"


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"memory_bytes": 2**20}, "check_memory"),  # no room for the file's map
        ({"memory_bytes": 2**21}, "check_memory"),  # none for a second one
        ({"cpu_seconds": 1}, "check_time"),
    ],
)
def test_a_check_that_takes_too_much_ends_and_says_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], code: str
) -> None:
    def tight(model: Model) -> CheckOptions:
        return CheckOptions(model=model.id, **limits)

    monkeypatch.setattr(service, "check_options", tight)
    model = bench.checked(state())
    assert (model.status, model.file_key) == ("invalid", None)
    assert [finding["code"] for finding in model.findings] == [code]
    assert scenes.files_under(bench.storage.root) == []


def test_weights_that_the_store_has_damaged_are_never_used(bench: Bench) -> None:
    model_id = bench.upload(state())
    path = bench.storage.path(service.file_key(model_id))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert bench.run()
    (job,) = jobs(bench)
    assert (job.state, job.strikes) == ("queued", 1)  # to be tried again: the store may recover
    assert bench.model(model_id).status == "processing"


def test_the_model_of_a_check_that_always_dies_is_invalid(bench: Bench) -> None:
    bench.settings.max_attempts = 1
    model_id = bench.upload(state())
    with bench.database.write() as session:
        claim = moves.claim(session, worker="dead", lease_seconds=60)
        assert claim is not None
        past = now(session) - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == claim.job_id).values(lease_until=past))
    (swept,) = sweeper.sweep(bench.database, bench.storage, bench.settings)
    assert (swept.kind, swept.state) == ("model", "failed")
    model = bench.model(model_id)
    assert (model.status, model.findings[0]["code"]) == ("invalid", "worker_lost")
    assert scenes.files_under(bench.storage.root) == []


def test_what_is_settled_stays_so(bench: Bench) -> None:
    model_id = bench.upload(state())
    lost = Failure(code="worker_lost", user_error=False, detail="It went silent.")
    with bench.database.write() as session:
        assert service.settle(session, model_id, FITS) is None
        assert service.settle_failed(session, model_id, lost) is None  # by a sweep that came late
    model = bench.model(model_id)
    assert (model.status, model.findings) == ("ready", [])
    assert model.file_key is not None


def test_only_what_no_row_speaks_of_is_collected(bench: Bench) -> None:
    kept, orphan = bench.upload(state()), new_id("mod")
    bench.storage.put(service.file_key(orphan), bench.folder / "weights")
    old = 3 * service.DAY
    for model_id in (kept, orphan):
        path = bench.storage.path(service.file_key(model_id))
        os.utime(path, (path.stat().st_mtime - old,) * 2)
    young = new_id("mod")  # its row is about to be written
    bench.storage.put(service.file_key(young), bench.folder / "weights")
    collector.collect(bench.database, bench.storage, bench.settings)
    left = {path.stem for path in (bench.storage.root / "models").iterdir()}
    assert left == {kept, young}
