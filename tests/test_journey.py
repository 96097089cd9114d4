"""The main job through real parts: server, worker and training process, over HTTP.

Once embedded (SQLite, the poller) and once distributed (PostgreSQL, Celery on Redis). The student
that comes back is used by plain timm.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import timm
import torch

from app.settings import Settings
from tdmr.client import Client, ConflictError, InvalidError, Job, Student
from tdmr.config import (
    BASELINES,
    DistillOptions,
    ExportOptions,
    ReprogramOptions,
    TrainingOptions,
    ViewOptions,
)
from tests.shapes import draw, draw_dataset, zip_folder
from tests.support import end, wait_until
from tests.worker.scenes import celery_worker

TINY = DistillOptions(
    image_size=32,
    views=ViewOptions(count=2),
    reprogram=ReprogramOptions(proxy_dim=16, steps=10, batch_size=16),
    training=TrainingOptions(steps=10, batch_size=8),
)
ENDLESS = TINY.model_copy(update={"training": TrainingOptions(steps=1_000_000, batch_size=8)})


@contextmanager
def serving(folder: Path, *options: str, **variables: str) -> Iterator[dict[str, Any]]:
    """A real server process on a free loopback port: what its ready file says."""
    ready = folder / "ready.json"
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--data", str(folder / "data")]
    server = subprocess.Popen(
        [*command, "--ready-file", str(ready), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(ready.exists, server)
        yield json.loads(ready.read_text())
    finally:
        end(server, signal.SIGTERM)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A zip of drawn shapes, split into train/ and test/."""
    draw_dataset(tmp_path / "shapes", {"train": 4, "test": 3})
    path = tmp_path / "shapes.zip"
    path.write_bytes(zip_folder(tmp_path / "shapes"))
    return path


def walk(
    client: Client,
    archive: Path,
    folder: Path,
    options: DistillOptions,
    baselines: tuple[str, ...],
) -> Student:
    """Upload, wait, order, wait, download, and use."""
    dataset = client.upload_dataset(archive).wait()
    assert dataset.status == "ready", dataset.findings
    assert dataset.splits is not None
    assert dataset.splits["train"] == {"circle": 4, "cross": 4, "square": 4}

    seen: list[str] = []
    order: dict[str, Any] = {"options": options, "baselines": baselines}
    job = client.submit(dataset.id, "letters_vit", "test_resnet", **order)
    job = job.wait(lambda j: seen.append(j.status), every=0.1)
    assert job.status == "succeeded", job.failure
    assert set(seen) <= {"queued", "running", "packaging", "succeeded"}
    assert job.attempt == 1

    student = job.fetch_student()
    assert set(student.baselines) == set(baselines)
    assert all(row["images"] == 9 for row in student.baselines.values())
    # The cache, kd_online's 10 batches of 8, the probe's held-out images, and the audit's.
    online = 10 * 8 if "kd_online" in baselines else 0
    assert student.metrics["foundation"]["forwards"] == 12 * 2 + online + 9 + (12 + 9)
    audit = dataset.report().audit
    assert audit is not None
    assert (audit.job_id, audit.foundation) == (job.id, "letters_vit")
    assert audit.counts == student.metrics["audit"]
    bundle = student.download(folder)
    model = timm.create_model(f"local-dir:{bundle}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        logits = model(transform(draw("cross", 99)).unsqueeze(0))
    assert logits.shape == (1, 3)
    assert json.loads((bundle / "classes.json").read_text()) == ["circle", "cross", "square"]
    assert student.metrics["evaluation"]["images"] == 9
    return student


def use_elsewhere(client: Client, student: Student, bundle: Path) -> None:
    """In the other formats; by the service and by the bundle's own script alike."""
    formats = student.metrics["exports"]["formats"]
    assert list(formats) == ["onnx", "int8", "torch_export"]
    assert formats["onnx"]["published"] is formats["torch_export"]["published"] is True
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 32]

    picture = bundle.with_suffix(".png")
    draw("cross", 99).save(picture)
    (found,) = student.predict([picture])
    command = [sys.executable, "-I", "-W", "ignore", bundle / "predict_onnx.py", picture]
    printed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    chances = {row.name: row.probability for row in found.classes}
    assert chances == pytest.approx(printed, abs=2e-6)
    assert len(client.recommend().machines) == 1  # the packaged student's


def test_embedded(tmp_path: Path, archive: Path) -> None:
    with serving(tmp_path) as ready, Client(ready["address"], ready["key"]) as client:
        student = walk(client, archive, tmp_path / "student", TINY, BASELINES)
        use_elsewhere(client, student, tmp_path / "student")

        dataset = client.upload_dataset(archive).wait()
        job = client.submit(dataset.id, "letters_vit", "test_resnet", options=ENDLESS)
        wait_until(lambda: job.refresh().step is not None)
        # An upload is checked while a job trains.
        assert client.upload_dataset(archive).wait().status == "ready"
        assert job.refresh().status == "running"
        job.cancel()
        assert job.wait().status == "cancelled"
        with pytest.raises(ConflictError):
            job.cancel()

        (tmp_path / "not.zip").write_bytes(b"hello")
        with pytest.raises(InvalidError, match="not_an_archive"):
            client.upload_dataset(tmp_path / "not.zip")
        with pytest.raises(InvalidError, match="resnet18") as refused:
            client.submit(dataset.id, "letters_vit", "resnet81")
        assert refused.value.errors[0].pointer == "/student"
    assert list((tmp_path / "data" / "work" / "jobs").iterdir()) == []


def weights(job: Job) -> str:
    """The SHA-256 of a job's student."""
    files = job.fetch_student().files
    (digest,) = [file.sha256 for file in files if file.name == "model.safetensors"]
    return str(digest)


def test_what_is_stopped_is_not_lost(tmp_path: Path, archive: Path) -> None:
    """Paused and resumed: the same student to the bit. Cancelled: the student so far."""
    training = TrainingOptions(steps=400, batch_size=8)
    changes = {"training": training, "exports": ExportOptions(formats=())}
    longer = TINY.model_copy(update=changes)
    order: dict[str, Any] = {"baselines": ["scratch"]}
    with serving(tmp_path) as ready, Client(ready["address"], ready["key"]) as client:
        dataset = client.upload_dataset(archive).wait().id
        whole = client.submit(dataset, "letters_vit", "test_resnet", options=longer, **order)
        stopped = client.submit(dataset, "letters_vit", "test_resnet", options=longer, **order)
        assert stopped.queue_position in (1, 2)
        whole = whole.wait()
        for stage in ("distil", "scratch"):
            wait_until(lambda s=stage: at(stopped.refresh(), s))
            stopped.pause()
            wait_until(lambda: stopped.refresh().status == "paused")
            assert stopped.refresh().checkpoint.stage in ("distil", "scratch")
            stopped.resume()
        stopped = stopped.wait()
        assert (stopped.status, stopped.attempt) == ("succeeded", 3)
        assert weights(stopped) == weights(whole)

        job = client.submit(dataset, "letters_vit", "test_resnet", options=ENDLESS, **order)
        wait_until(lambda: at(job.refresh(), "distil"))
        job.cancel()
        wait_until(lambda: job.refresh().student_id is not None)
        job = job.refresh()
        assert (job.status, job.partial) == ("cancelled", True)
        student = job.fetch_student()
        assert student.metrics["partial"]["step"] == job.checkpoint.step
        again = job.retry(options={"training": {"steps": 10}})
        assert (again.retry_of, again.checkpoint) == (job.id, None)
        assert again.wait().partial is False


def at(job: Job, stage: str) -> bool:
    """Whether a training of the job has made steps in `stage`."""
    return bool(job.stage and job.stage.name == stage and job.step)


def test_distributed(
    tmp_path: Path, archive: Path, settings: Settings, postgres_schema: str, redis_url: str
) -> None:
    """Nothing but the doorbell can start a job in time: the slow poll takes minutes."""
    parts = {"database_url": postgres_schema, "broker_url": redis_url, "poll_seconds": 60.0}
    shared = {"data_dir": tmp_path / "data", "lease_seconds": 30.0}
    distributed = Settings(**settings.model_dump() | parts | shared)
    variables = {"TDMR_DATABASE_URL": postgres_schema, "TDMR_BROKER_URL": redis_url}
    with (
        serving(tmp_path, **variables) as ready,
        celery_worker(distributed),
        Client(ready["address"], ready["key"]) as client,
    ):
        plain = TINY.model_copy(update={"exports": ExportOptions(formats=())})
        walk(client, archive, tmp_path / "student", plain, ("scratch", "probe"))
