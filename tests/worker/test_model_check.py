"""The check of uploaded weights by a real process, and what becomes of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from sqlalchemy import update

from app.db import Database, new_id, now
from app.foundations import service
from app.jobs import moves
from app.jobs.idempotency import Idempotency
from app.models import Job, Model
from app.settings import Settings
from app.storage import LocalStorage
from tdmr.check_model import check_model
from tdmr.jobdir import JobDir
from tdmr.models import load_foundation
from tdmr.own import CheckOptions, OwnModel, place
from tests.worker import scenes
from worker import collector, pipeline, sweeper

State = dict[str, torch.Tensor]
Change = Callable[[State], State]
ABOUT = OwnModel(name="ours", architecture="test_vit", licence=None, sha256="0" * 64)


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
def bench(
    database: Database, storage: LocalStorage, settings: Settings, tmp_path: Path
) -> Bench:
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
        return list(session.query(Job))


def infinite(found: State) -> State:
    return {**found, "norm.weight": torch.full_like(found["norm.weight"], float("nan"))}


def quantised(found: State) -> State:
    return {**found, "norm.weight": torch.ones_like(found["norm.weight"], dtype=torch.int8)}


def reshaped(found: State) -> State:
    return {**found, "norm.weight": torch.ones(65)}


def without(found: State) -> State:
    return {name: tensor for name, tensor in found.items() if name != "blocks.0.attn.qkv.weight"}


def renamed(found: State) -> State:
    return {f"backbone.encoder.{name}": tensor for name, tensor in found.items()}


def too_large(found: State) -> State:
    wide = found["norm.weight"].double()
    return {**found, "norm.weight": torch.full_like(wide, 1e300)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (infinite, "aren't finite numbers: norm.weight (1 in all)"),
        (too_large, "aren't finite numbers: norm.weight (1 in all)"),
        (quantised, "norm.weight: expected floating-point numbers, found int8"),
        (reshaped, "norm.weight: expected (64,), found (65,)"),
        (without, "blocks.0.attn.qkv.weight: expected (192, 64), found none"),
        (renamed, "and 63 more"),
    ],
)
def test_what_differs_is_said_and_the_bytes_are_gone(
    tmp_path: Path, change: Change, said: str
) -> None:
    job, report = examined(tmp_path, change(state()))
    (finding,) = report.findings
    assert (finding.code, report.params) == ("model_weights", None)
    assert said in finding.detail
    assert str(job.path) not in finding.detail
    assert finding.advice


def examined(folder: Path, found: State, **limits: int) -> object:
    from tdmr.own import Report

    job = JobDir(folder / "job")
    job.path.mkdir()
    save_file(found, place(job.models, "mod_1", ABOUT))
    job.config.write_text(CheckOptions(model="mod_1", **limits).model_dump_json())
    assert check_model(job.path) == 0
    return job, Report.model_validate_json((job.out / "report.json").read_bytes())
