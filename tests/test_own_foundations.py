"""A foundation of one's own through real parts: uploaded, checked, distilled from, gone on with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from benchmarks.served import Running, serving
from tdmr.client import Client, DigestError, InvalidError, Job
from tdmr.config import ExportOptions
from tests.shapes import draw_dataset
from tests.support import wait_until
from tests.test_journey import ENDLESS, TINY

QUICK = {"checkpoint_seconds": "0.2", "poll_seconds": "0.2", "collect_seconds": "0.5"}
BRIEF = TINY.model_copy(update={"audit": False})
ONCE = BRIEF.model_copy(update={"exports": ExportOptions(formats=("onnx",), latency_runs=20)})
ON = BRIEF.model_copy(update={"exports": ExportOptions(formats=()), "training": ENDLESS.training})
ARCHITECTURE = "test_vit.r160_in1k"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server with workers."""
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, **QUICK) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.address, server.key) as client:
        yield client


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights of timm's smallest vision transformer."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "ours.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    return path


@pytest.fixture(scope="module")
def dataset_id(server: Running, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shapes")
    draw_dataset(folder, {"train": 4, "test": 3})
    with Client(server.address, server.key) as client:
        return client.upload_dataset(folder).wait().id


def model_of(client: Client, weights: Path, **more: str) -> str:
    made = client.upload_model(weights, ARCHITECTURE, "the herbarium's", **more)
    assert made.status == "processing"
    ready = made.wait()
    assert (ready.status, ready.findings, ready.params) == ("ready", [], 306_240)
    return ready.id


def stored(server: Running, word: str) -> list[Path]:
    return [path for path in (server.data / "storage").rglob("*") if word in str(path)]


def test_a_student_is_distilled_from_it_and_says_so_without_a_path(
    server: Running, client: Client, weights: Path, dataset_id: str, tmp_path: Path
) -> None:
    model_id = model_of(client, weights, licence="CC-BY-4.0")
    job = client.submit(
        dataset_id, model_id, "test_resnet", options=ONCE, baselines=["probe"]
    ).wait()
    assert job.status == "succeeded", job.failure
    assert job.foundation == model_id
    student = job.fetch_student()
    mine, model = student.metrics["foundation"], client.model(model_id)
    assert (mine["name"], mine["params"], mine["bytes"]) == (model_id, 306_240, model.bytes)
    assert (mine["sha256"], mine["licence"]) == (model.fingerprint, "CC-BY-4.0")
    assert mine["own"] == {
        "name": "the herbarium's",
        "architecture": ARCHITECTURE,
        "licence": "CC-BY-4.0",
        "sha256": model.sha256,
    }
    bundle = student.download(tmp_path / "student")
    card = (bundle / "README.md").read_text()
    assert f"`the herbarium's` (`{model_id}`)" in card
    assert "CC-BY-4.0, and may bind" in card
    assert f"`{ARCHITECTURE}`; the SHA-256 of their file is `{model.sha256}`" in card
    for path in bundle.iterdir():
        assert str(server.data).encode() not in path.read_bytes(), path.name
        assert f"models/{model_id}".encode() not in path.read_bytes(), path.name
    log = json.dumps([event.data for event in client.events(job.id)])
    assert str(server.data) not in log
    client.delete_model(model_id, permanently=True)
    wait_until(lambda: stored(server, model_id) == [])
    with pytest.raises(InvalidError, match="unknown_model"):
        client.submit(dataset_id, model_id, "test_resnet")


def test_a_paused_job_goes_on_with_it_and_a_cancelled_one_is_rescued(
    client: Client, weights: Path, dataset_id: str
) -> None:
    model_id = model_of(client, weights)
    job = client.submit(dataset_id, model_id, "test_resnet", options=ON, baselines=["probe"])
    wait_until(lambda: saved(job) > 0)
    job.pause()
    wait_until(lambda: job.refresh().status == "paused")
    before = saved(job)
    job.resume()
    wait_until(lambda: saved(job) > before)
    assert job.refresh().attempt == 2
    job.cancel()
    assert job.wait().status == "cancelled"
    wait_until(lambda: job.refresh().student_id is not None)
    student = job.fetch_student()
    assert student.partial
    assert student.metrics["partial"]["step"] > before
    assert student.metrics["foundation"]["own"]["architecture"] == ARCHITECTURE
    assert student.metrics["foundation"]["licence"] is None


def saved(job: Job) -> int:
    """The step of stage 2 that its checkpoint would go on from."""
    checkpoint = job.refresh().checkpoint
    return checkpoint.step if checkpoint is not None and checkpoint.stage == "distil" else 0


def test_what_arrives_otherwise_than_it_was_sent_is_noticed(
    client: Client, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tdmr.client.uploads.sha256", lambda path: "0" * 64)
    with pytest.raises(DigestError):
        client.upload_model(weights, ARCHITECTURE)


def test_progress_is_told_from_the_first_mebibyte_to_the_last(
    client: Client, weights: Path
) -> None:
    seen: list[tuple[int, int]] = []
    client.upload_model(weights, "test_vit", on_progress=lambda *told: seen.append(told))
    total = weights.stat().st_size
    assert seen == [(1 << 20, total), (total, total)]
