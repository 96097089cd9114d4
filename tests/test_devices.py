"""One job on several devices, ordered as any other: a real server, its worker, two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli as server_command
from benchmarks.served import serving
from tdmr.client import Client
from tdmr.config import DistillOptions, ExportOptions
from tests.hosts import below
from tests.shapes import draw_dataset
from tests.support import wait_until
from tests.test_journey import ENDLESS, TINY
from worker.cli import cli as worker_command

BRIEF = {"audit": False, "exports": ExportOptions(formats=()), "devices": 2}


def trainers(server: int) -> list[int]:
    """The processes of jobs that share a training."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in below(server)}
    return [pid for pid, command in commands.items() if b"spawn_main" in command]


def test_a_job_trains_on_two_and_its_student_is_like_any_other(tmp_path: Path) -> None:
    draw_dataset(tmp_path / "shapes", {"train": 4, "test": 3})
    quick = {"checkpoint_seconds": "0.2", "poll_seconds": "0.2", "omp_num_threads": "1"}
    with (
        serving(tmp_path, "--devices", "2", **quick) as server,
        Client(server.address, server.key) as client,
    ):
        dataset = client.upload_dataset(tmp_path / "shapes").wait()

        def submit(options: DistillOptions) -> str:
            on_two = options.model_copy(update=BRIEF)
            models = ("letters_vit", "test_vit")
            return client.submit(dataset.id, *models, options=on_two, baselines=["probe"]).id

        first = client.job(submit(ENDLESS))
        wait_until(lambda: first.refresh().checkpoint is not None)
        assert len(trainers(server.process.pid)) == 2
        first.cancel()
        assert first.wait().status == "cancelled"
        wait_until(lambda: not trainers(server.process.pid))

        second = client.job(submit(TINY)).wait()
        assert second.status == "succeeded", second.failure
        assert second.options.devices == 2
        shown = second.fetch_student().metrics["foundation"]["forwards"]
        assert shown == 1 + 9, "one of the first job's views looked at again, and the held-out ones"


@pytest.mark.parametrize("command", [server_command, worker_command])
def test_of_one_named_device_there_arent_two(command: object) -> None:
    words = ["serve"] if command is server_command else []
    told = CliRunner().invoke(command, [*words, "--device", "cuda:1", "--devices", "2"])  # type: ignore[arg-type]  # both are typer's
    assert told.exit_code == 2
    assert "CUDA_VISIBLE_DEVICES" in told.output
