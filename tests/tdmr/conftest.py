"""Tiny real models and datasets: a seeded ViT as foundation, drawn shapes as target."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Before torch loads OpenMP: spinning threads are slow on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import timm
import torch
from timm.models import save_for_hf

from tdmr.config import (
    DistillOptions,
    ExportOptions,
    JobSpec,
    ReprogramOptions,
    TrainingOptions,
    ViewOptions,
)
from tdmr.jobdir import Reporter
from tdmr.stages import of_job
from tests.shapes import draw_dataset

SIZE = 32


@pytest.fixture(scope="session")
def foundation_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A timm folder with a small, untrained, seeded vision transformer for 32 x 32 pixels."""
    folder = tmp_path_factory.mktemp("foundation")
    torch.manual_seed(7)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=SIZE, patch_size=8, embed_dim=48, depth=4, num_heads=2
    )
    data = {"input_size": (3, SIZE, SIZE), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    save_for_hf(model, str(folder), data_config=data, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes of drawn shapes: 6 training and 8 held-out images each."""
    folder = tmp_path_factory.mktemp("shapes")
    draw_dataset(folder, {"train": 6, "test": 8})
    return folder


@pytest.fixture(scope="session")
def spec(foundation_folder: Path) -> JobSpec:
    """A job that takes a second."""
    return JobSpec(
        foundation=f"local-dir:{foundation_folder}",
        student="test_resnet",
        options=DistillOptions(
            image_size=SIZE,
            views=ViewOptions(count=3),
            reprogram=ReprogramOptions(mode="trained", proxy_dim=16, steps=20, batch_size=16),
            training=TrainingOptions(steps=12, batch_size=12),
            exports=ExportOptions(formats=()),  # they take seconds: see tests/tdmr/export
            audit=False,
        ),
    )


@pytest.fixture
def reporter(spec: JobSpec) -> Reporter:
    """A reporter that nobody listens to."""
    return Reporter(None, of_job(spec.baselines))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
