"""A checkpoint is whole, its run's own, finite, and put back as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tdmr import checkpoint
from tdmr.checkpoint import Checkpoints
from tdmr.errors import CheckpointError, DiskFullError, Stopped
from tdmr.optim import adamw


def tensors(value: float, size: int = 3) -> dict[str, Tensor]:
    return {"a": torch.full((size,), value)}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_found(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "kept", owner="me")
    assert kept.find("s") is None
    kept.save("s", tensors(1), step=3)
    kept.save("s", tensors(2), step=4, done=True)
    found = Checkpoints(tmp_path / "kept", owner="me").find("s")
    assert found is not None
    assert (found.step, found.done, found.tensors["a"].tolist()) == (4, True, [2.0] * 3)
    assert files(tmp_path / "kept") == ["s.safetensors"]


def test_nothing_is_kept_without_a_folder() -> None:
    kept = Checkpoints(stopping=lambda: True)
    kept.save("s", tensors(1), step=1)
    assert kept.find("s") is None
    with pytest.raises(Stopped, match=r"stage 's' before step 7"):
        kept.after_step("s", 7, lambda: pytest.fail("not asked for"))
    kept.clear()


def test_what_is_durable_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, str, int, bool]] = []

    def tell(stage: str, name: str, step: int) -> None:
        told.append((stage, name, step, (tmp_path / name).exists()))

    kept = Checkpoints(tmp_path, every=0, on_saved=tell)
    kept.save("s", tensors(1), step=3)
    kept.after_step("s", 4, lambda: tensors(float("nan")))  # replaces nothing
    kept.after_step("s", 5, lambda: tensors(2))
    Checkpoints(on_saved=tell).save("s", tensors(1), step=6)
    assert told == [("s", "s.safetensors", 3, True), ("s", "s.safetensors", 5, True)]
    assert kept.has("s")
    assert not kept.has("other")
    assert not Checkpoints().has("s")


def test_what_was_spent_is_kept_and_found(tmp_path: Path) -> None:
    Checkpoints(tmp_path, spent=lambda: {"forwards": 7}).save("a", tensors(1), step=1)
    Checkpoints(tmp_path).save("b", tensors(1), step=1)
    kept = Checkpoints(tmp_path)
    assert kept.earlier == {}
    kept.find("none")
    assert kept.earlier == {}
    kept.find("a")
    assert kept.earlier == {"forwards": 7}
    kept.find("b")
    assert kept.earlier == {}


def test_saved_when_it_is_time_and_when_asked_to_stop(tmp_path: Path) -> None:
    asked: list[bool] = []
    kept = Checkpoints(tmp_path, every=1e9, stopping=lambda: bool(asked))
    kept.after_step("s", 1, lambda: tensors(1))
    assert files(tmp_path) == []
    asked.append(True)
    with pytest.raises(Stopped):
        kept.after_step("s", 2, lambda: tensors(2))
    kept = Checkpoints(tmp_path, every=0)
    kept.after_step("s", 3, lambda: tensors(3))
    found = kept.find("s")
    assert found is not None
    assert found.step == 3


def test_another_run_s_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, owner="me").save("s", tensors(1), step=1)
    with pytest.raises(CheckpointError, match=r"another run.*folder of its own"):
        Checkpoints(tmp_path, owner="you").find("s")


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_one_is_refused(tmp_path: Path, kept: int) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("s", tensors(1, size=100), step=1)
    path = tmp_path / "s.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"can't be read.*begin again"):
        checkpoints.find("s")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (None, "can't be read"),
        ("nonsense", "can't be read"),
        ("[]", "can't be read"),
        (json.dumps({"owner": ""}), "can't be read"),
        (json.dumps({"owner": "", "format": 0, "step": 1}), "another version"),
    ],
)
def test_a_file_that_is_something_else_is_refused(
    tmp_path: Path, facts: str | None, words: str
) -> None:
    metadata = None if facts is None else {"facts": facts}
    save_file(tensors(1), tmp_path / "s.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=words):
        Checkpoints(tmp_path).find("s")


def test_weights_of_another_model_are_refused() -> None:
    state = checkpoint.module_state("m", nn.Linear(2, 3))
    with pytest.raises(CheckpointError, match="doesn't fit"):
        checkpoint.restore_module("m", nn.Linear(2, 4), state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_replaces_nothing(tmp_path: Path, bad: float) -> None:
    kept = Checkpoints(tmp_path, every=0)
    kept.after_step("s", 1, lambda: tensors(1))
    kept.after_step("s", 2, lambda: tensors(bad))
    found = kept.find("s")
    assert found is not None
    assert found.step == 1


def test_a_full_disk_leaves_the_one_before(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.save("s", tensors(1), step=1)
    # The kernel's own answer to a full disk, without a disk to fill.
    (tmp_path / ".s.safetensors.part").symlink_to("/dev/full")
    with pytest.raises(DiskFullError) as caught:
        kept.save("s", tensors(2), step=2)
    assert str(tmp_path) in caught.value.detail
    assert "bytes are needed" in caught.value.detail
    assert "bytes are free" in caught.value.detail
    assert files(tmp_path) == ["s.safetensors"]
    found = kept.find("s")
    assert found is not None
    assert found.step == 1


def test_clearing_removes_what_is_the_run_s_own(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    kept = Checkpoints(folder)
    kept.save("s", tensors(1), step=1)
    (folder / ".s.safetensors.part").write_bytes(b"of a process that was killed")
    (folder / "other.safetensors").write_bytes(b"somebody's weights")
    kept.clear()
    assert files(folder) == ["other.safetensors"]
    (folder / "other.safetensors").unlink()
    kept.clear()
    assert not folder.exists()


def test_an_optimiser_s_moments_keep_the_strides_of_their_parameters(tmp_path: Path) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # too many shapes for the stubs

    trained = model()
    optimizer = adamw(trained, 0.1)
    trained(torch.ones(1, 3, 5, 5)).square().mean().backward()
    optimizer.step()
    kept = Checkpoints(tmp_path)
    kept.save("s", checkpoint.optimizer_state("o", optimizer), step=1)
    saved = kept.find("s")
    assert saved is not None

    again = model()
    restored = adamw(again, 0.1)
    checkpoint.restore_optimizer("o", restored, saved.tensors)
    for old, new in zip(trained.parameters(), again.parameters(), strict=True):
        before, after = optimizer.state[old], restored.state[new]
        assert before.keys() == after.keys()
        for key in before:
            assert torch.equal(before[key], after[key])
            assert before[key].stride() == after[key].stride()
    assert not restored.state[next(again.parameters())]["exp_avg"].is_contiguous()
