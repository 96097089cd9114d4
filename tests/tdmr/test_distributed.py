"""Two processes give the student of one; and what would show if they didn't.

This file is also what torchrun starts: `python test_distributed.py FOLDER` is one process of two.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from tdmr import training
from tdmr.checkpoint import NONE, Checkpoints
from tdmr.config import DistilOptions, TrainingOptions, ViewOptions
from tdmr.distil import ProgressiveDistillation, adapters_for, reuse_head
from tdmr.distributed import World, join, launched, local_device
from tdmr.errors import OptionsError, Stopped
from tdmr.feed import Batch, TrainingSet
from tdmr.models import StudentOutput, make_student
from tdmr.probe import Ridge
from tdmr.proxy import Targets
from tdmr.schedule import Schedule
from tdmr.views import Views

CPU = torch.device("cpu")
STEPS = 4
# Of the distance that training moved the weights. Sums over half batches are rounded otherwise:
# 1e-6 was measured with plain gradient descent. AdamW divides a gradient by its own size, so that
# weights whose gradients are nothing but rounding move too.
TOLERANCE = 1e-5
ADAM_TOLERANCE = 1e-2  # 2e-4 was measured


class Source:
    """Targets that are functions of the image, and nothing that was trained."""

    target_widths: Sequence[int] = [6, 6]

    @property
    def head(self) -> Ridge:
        rng = np.random.default_rng(1)
        weight = torch.from_numpy(rng.standard_normal((12, 3)).astype(np.float32))
        return Ridge(weight, torch.zeros(3), 0.2)

    def targets(self, images: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> Targets:
        rng = np.random.default_rng(0)
        table = torch.from_numpy(rng.standard_normal((12, 15)).astype(np.float32))[images]
        return Targets([table[:, :6], table[:, 6:12]], table[:, 12:], table[:, :12])


class OwnRows(ProgressiveDistillation):
    """What an objective would do that sees one process's rows only."""

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        part = World.current().part(len(batch.labels))
        own = Batch(batch.images[part], batch.views[part], batch.pixels, batch.labels[part])
        return super().__call__(own, output, t)


def data() -> TrainingSet:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    return TrainingSet(pixels, torch.arange(12) % 3, 3, Views(ViewOptions(count=2), "v", 0))


def train(
    kind: type[ProgressiveDistillation] = ProgressiveDistillation,
    checkpoints: Checkpoints = NONE,
    on_step: Callable[..., None] = lambda *_: None,
) -> dict[str, Tensor]:
    """The weights after a few steps of TDMR's stage 2, and how they differ from the first ones."""
    student = make_student("test_vit", 32, 2, 3, pretrained=False, seed=0)
    before = {name: value.clone() for name, value in student.named_parameters()}
    distil = DistilOptions(depth="flat", objective="flat", relation=4.0, head="reused")
    assert reuse_head(student, Source().head, 0)
    adapters = adapters_for(student.tap_widths(), Source.target_widths, 0, CPU)
    objective = kind(Source(), adapters, Schedule(distil, 2), 0.1)
    trained = training.train(
        student, data(), objective,
        TrainingOptions(steps=STEPS, batch_size=8, learning_rate=3e-3, ema=0),
        seed=0, stage="distil", on_step=on_step, checkpoints=checkpoints,
    )  # fmt: skip
    moved = {name: value - before[name] for name, value in trained.named_parameters()}
    own = {f"adapters.{name}": value for name, value in adapters.state_dict().items()}
    return {name: value.detach().clone() for name, value in {**moved, **own}.items()}


def plain_descent(module: nn.Module, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=1.0, momentum=0.9)


def with_plain_descent(
    kind: type[ProgressiveDistillation] = ProgressiveDistillation,
) -> dict[str, Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "adamw", plain_descent)
        return train(kind)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Of two movements of the student, relative to the second."""
    apart = sum(float((a[k] - b[k]).square().sum()) for k in b if not k.startswith("adapters"))
    moved = sum(float(b[k].square().sum()) for k in b if not k.startswith("adapters"))
    return (apart / moved) ** 0.5


def one_of_two(folder: Path) -> None:
    """What each process does; it leaves what it found in `folder`."""
    torch.set_num_threads(1)
    world = join(CPU)
    kept: dict[str, Any] = {"world": (world.rank, world.size), "steps": []}
    kept["descent"] = with_plain_descent()
    kept["adam"] = train(on_step=lambda *numbers: kept["steps"].append(numbers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(World, "gather", lambda self, rows: rows)
        patch.setattr(training._Run, "measures", lambda self: {})  # which need all rows
        kept["no gather"] = with_plain_descent(OwnRows)
    with pytest.MonkeyPatch.context() as patch:
        average = World.average

        def summed(self: World, parameters: Any) -> None:
            parameters = list(parameters)
            average(self, parameters)
            for parameter in parameters:
                parameter.grad.mul_(self.size)

        patch.setattr(World, "average", summed)
        kept["wrong scale"] = with_plain_descent()

    # One of them alone is asked to stop, before its third step.
    asked = iter([False, world.rank == 1] + [False] * STEPS)
    try:
        train(checkpoints=Checkpoints(folder / "kept", "owner", stopping=lambda: next(asked)))
    except Stopped as stopped:
        kept["stopped"] = stopped.step
    kept["resumed"] = train(checkpoints=Checkpoints(folder / "kept", "owner"))

    with world.main_first():
        if not (folder / "made").exists():
            (folder / "made").write_text(str(world.rank))
    kept["made by"] = (folder / "made").read_text()
    torch.save(kept, folder / f"{world.rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
        "--nproc-per-node=2", __file__, str(folder),
    ]  # fmt: skip
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        command, cwd=root, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={
            **os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
            "PYTHONPATH": str(root),
        },
    )  # fmt: skip
    try:
        printed, _ = process.communicate(timeout=540)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, printed
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_two_processes_give_the_student_of_one(two: list[dict[str, Any]]) -> None:
    assert [kept["world"] for kept in two] == [(0, 2), (1, 2)]
    assert distance(two[0]["descent"], with_plain_descent()) < TOLERANCE
    assert distance(two[0]["adam"], train()) < ADAM_TOLERANCE


def test_both_have_the_same_weights(two: list[dict[str, Any]]) -> None:
    for name in ("descent", "adam"):
        first, second = (kept[name] for kept in two)
        assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("broken", ["no gather", "wrong scale"])
def test_the_comparison_would_show_a_mistake(two: list[dict[str, Any]], broken: str) -> None:
    assert distance(two[0][broken], with_plain_descent()) > 1000 * TOLERANCE


def test_one_alone_reports_and_writes(two: list[dict[str, Any]]) -> None:
    assert [step for step, _, _ in two[0]["steps"]] == [1, STEPS]
    assert two[1]["steps"] == []
    assert [kept["made by"] for kept in two] == ["0", "0"]


def test_a_stop_that_one_was_asked_for_stops_both_and_is_resumed(
    two: list[dict[str, Any]],
) -> None:
    for kept in two:
        assert kept["stopped"] == 2
        assert all(torch.equal(kept["resumed"][k], kept["adam"][k]) for k in kept["adam"])


def test_one_process_alone_shares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    world, rows = World.current(), torch.ones(3)
    assert (world.main, world.part(5), world.gather(rows) is rows) == (True, slice(0, 5), True)
    assert world.shared(NONE) is NONE
    assert not launched()
    assert join(CPU) == World()
    assert local_device(torch.device("cuda:1")) == torch.device("cuda:1")


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    assert local_device(torch.device("cuda")) == torch.device("cuda:3")
    assert local_device(CPU) == CPU


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert World(1, 4).part(8) == slice(2, 4)
    with pytest.raises(OptionsError, match=r"8 images .* 3 processes.*multiple"):
        World(0, 3).part(8)


def test_the_others_write_no_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "barrier", lambda self: None)
    state = {"a": torch.ones(2)}
    told: list[int] = []
    checkpoints = Checkpoints(tmp_path, "owner", on_saved=lambda *saved: told.append(saved[-1]))
    main, other = (World(rank, 2).shared(checkpoints) for rank in range(2))
    other.save("stage", state, step=1)
    assert other.find("stage") is None
    assert told == []
    main.save("stage", state, step=1)
    assert told == [1]
    found = other.find("stage")
    assert found is not None
    assert found.step == 1


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]))
