"""How much memory a worker says that its device has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker import memory

ALL_OF_IT = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called as the GPU driver's is, that prints what `answer` beside it holds."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\nread line < {tmp_path}/answer || exit 9\ncat {tmp_path}/answer\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "answer"


def test_the_machines_own() -> None:
    found = memory.of("cpu")
    assert found is not None
    assert 2**28 < found <= ALL_OF_IT


def test_what_a_group_of_processes_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "GROUP_LIMIT", limit)
    assert memory.of("cpu") == ALL_OF_IT
    limit.write_text("max\n")
    assert memory.of("cpu") == ALL_OF_IT
    limit.write_text("1048576\n")
    assert memory.of("cpu") == 2**20


def test_each_gpu_has_its_own(driver: Path) -> None:
    driver.write_text("24576\n143771\n")
    assert memory.of("cuda:1") == 143771 * 2**20
    assert memory.of("cuda") == memory.of("cuda:0") == memory.of("auto") == 24576 * 2**20
    assert memory.of("cuda:2") is None


def test_where_the_driver_doesnt_say(driver: Path) -> None:
    driver.write_text("[N/A]\n")
    assert memory.of("cuda:0") is None
    driver.unlink()
    assert memory.of("cuda:0") is None
    assert memory.of("auto") == memory.of("cpu")
