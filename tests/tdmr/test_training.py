"""The one loop: order, averages, recalibration, determinism, and what stops it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tdmr.baselines import Scratch
from tdmr.config import DistillOptions, JobSpec, TrainingOptions, ViewOptions
from tdmr.errors import NonFiniteLossError
from tdmr.feed import Batch, TrainingSet, order
from tdmr.jobdir import JobDir, ProgressLine, Reporter
from tdmr.models import Student, StudentOutput, make_student
from tdmr.run import set_up
from tdmr.training import OwnHead, autocast_type, recalibrate, train
from tdmr.views import Views


@pytest.fixture
def data() -> TrainingSet:
    rng = np.random.default_rng(0)
    labels = torch.arange(10) % 2
    pixels = rng.integers(0, 100, (10, 3, 32, 32), dtype=np.uint8)
    pixels[labels.numpy() == 1] += 100
    return TrainingSet(pixels, labels, 2, Views(ViewOptions(count=3, mix=0), "v", 0))


def student() -> Student:
    return make_student("test_resnet", 32, 4, 2, pretrained=False, seed=0)


def test_every_image_comes_once_per_pass() -> None:
    pairs = np.concatenate([order(7, 4, seed=5, step=step) for step in range(7)])
    assert len(pairs) == 28
    for number in range(4):
        assert sorted(pairs[pairs[:, 1] == number, 0]) == list(range(7))
    assert not np.array_equal(pairs[:7, 0], pairs[7:14, 0])
    assert np.array_equal(pairs[8:12], order(7, 4, seed=5, step=2))


class Spy(OwnHead):
    """An objective that remembers which views it was shown."""

    def __init__(self, stored: bool) -> None:
        self.stored_views = stored
        self.seen: set[int] = set()

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        self.seen.update(batch.views.tolist())
        return {"loss": output.logits.square().mean()}


@pytest.mark.parametrize(("stored", "views"), [(True, {0, 1, 2}), (False, {3, 4, 5, 6, 7, 8})])
def test_stored_views_repeat_and_fresh_ones_never(
    data: TrainingSet, stored: bool, views: set[int]
) -> None:
    spy = Spy(stored)
    train(student(), data, spy, TrainingOptions(steps=6, batch_size=10), seed=0, stage="s")
    assert spy.seen == views


def test_the_loss_falls_and_the_student_learns(data: TrainingSet) -> None:
    losses: list[float] = []
    trained = train(
        student(),
        data,
        Scratch(0.0),
        TrainingOptions(steps=40, batch_size=10, learning_rate=3e-3, ema=0.8),
        seed=0,
        stage="s",
        on_step=lambda step, steps, parts: losses.append(parts["loss"]),
    )
    assert losses[-1] < 0.2 * losses[0]
    logits = trained(torch.from_numpy(data.pixels).float() / 255).logits
    assert torch.equal(logits.argmax(1), data.labels)


def test_progress_tells_accuracy_and_rate_beside_the_losses(
    data: TrainingSet, tmp_path: Path
) -> None:
    lines: list[ProgressLine] = []
    reporter = Reporter(JobDir(tmp_path), ["distil"], interval=0.0)
    reporter.listeners.append(lines.append)
    options = TrainingOptions(steps=21, batch_size=10, learning_rate=3e-3, warmup=0.0)
    train(student(), data, Scratch(0.0), options, seed=0, stage="distil", on_step=reporter.step)
    assert [line.step for line in lines] == [1, 11, 21]
    first, middle, last = (line.measures for line in lines)
    assert [set(line.losses) for line in lines] == [{"loss"}] * 3
    assert first["learning_rate"] == 3e-3
    assert middle["learning_rate"] == pytest.approx(3e-3 * 0.5 * (1 + math.cos(math.pi * 10 / 21)))
    assert 0 <= first["accuracy"] <= 1
    assert last["accuracy"] == 1.0


def test_accuracy_is_that_of_what_the_student_is_judged_by(data: TrainingSet) -> None:
    class Contrary(Scratch):
        def logits(self, output: StudentOutput) -> Tensor:
            assert not any(part.requires_grad for part in (output.logits, *output.taps))
            return -output.logits

    told: list[float] = []
    options = TrainingOptions(steps=21, batch_size=10, learning_rate=3e-3, warmup=0.0)
    train(
        student(), data, Contrary(0.0), options, seed=0, stage="s",
        on_step=lambda step, steps, losses: told.append(losses["accuracy"]),
    )  # fmt: skip
    assert told[-1] == 0.0


def test_the_same_seed_gives_the_same_bits(data: TrainingSet) -> None:
    def state(seed: int) -> dict[str, Tensor]:
        options = TrainingOptions(steps=5, batch_size=8)
        result = train(student(), data, Scratch(0.1), options, seed=seed, stage="s")
        return dict(result.state_dict())

    first, second, other = state(1), state(1), state(2)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_a_loss_that_is_not_finite_stops_with_its_step(data: TrainingSet) -> None:
    class Broken(Spy):
        def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
            loss = output.logits.mean()
            return {"loss": loss if t < 0.5 else loss * float("nan"), "ce": loss}

    with pytest.raises(NonFiniteLossError, match=r"'distil' .* at step 10 .*learning_rate"):
        train(
            student(), data, Broken(True), TrainingOptions(steps=20, batch_size=4), seed=0,
            stage="distil",
        )  # fmt: skip


def test_recalibration_gives_the_statistics_of_clean_images() -> None:
    model = student()
    first = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    seen: list[Tensor] = []
    hook = first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    first.running_mean.fill_(9)  # type: ignore[union-attr]  # it is there
    recalibrate(model, pixels)
    hook.remove()
    assert first.running_mean is not None
    torch.testing.assert_close(first.running_mean, seen[0].mean((0, 2, 3)))
    assert (first.momentum, model.training) == (0.1, False)


def trained_state(data: TrainingSet, **changes: object) -> dict[str, Tensor]:
    options = TrainingOptions(steps=3, batch_size=8).model_copy(update=changes)
    result = train(student(), data, Scratch(0.1), options, seed=1, stage="s")
    return dict(result.state_dict())


def test_a_forward_in_bf16_gives_losses_and_weights_in_fp32(data: TrainingSet) -> None:
    seen: set[torch.dtype] = set()

    class Looking(Spy):
        def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
            seen.update(part.dtype for part in (output.logits, *output.taps))
            return super().__call__(batch, output, t)

    options = TrainingOptions(steps=2, batch_size=4, precision="bf16")
    train(student(), data, Looking(True), options, seed=0, stage="s")
    assert seen == {torch.float32}
    half, whole = trained_state(data, precision="bf16"), trained_state(data)
    assert all(half[k].dtype == whole[k].dtype for k in whole)
    assert not all(torch.equal(half[k], whole[k]) for k in whole)


@pytest.mark.parametrize(
    ("precision", "device", "supported", "expected"),
    [
        ("auto", "cpu", True, None),
        ("auto", "cuda", True, torch.bfloat16),
        ("auto", "cuda", False, None),
        ("fp32", "cuda", True, None),
        ("bf16", "cpu", False, torch.bfloat16),
    ],
)
def test_what_is_computed_in_bf16(
    precision: str,
    device: str,
    supported: bool,
    expected: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported)
    assert autocast_type(precision, torch.device(device)) is expected


def test_a_student_is_compiled_on_request(
    data: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []

    def remember(model: nn.Module, **_: object) -> nn.Module:
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", remember)
    plain = trained_state(data)
    assert compiled == []
    fast = trained_state(data, compile=True)
    assert len(compiled) == 1
    assert all(torch.equal(plain[k], fast[k]) for k in plain)


@pytest.mark.parametrize(("precision", "exact"), [("auto", False), ("bf16", False), ("fp32", True)])
def test_a_gpu_rounds_products_unless_fp32_was_asked_for(precision: str, exact: bool) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # not in the stubs
    options = DistillOptions(training=TrainingOptions.model_validate({"precision": precision}))
    try:
        set_up(torch.device("cuda"), JobSpec(foundation="f", student="s", options=options))
        assert torch.get_float32_matmul_precision() == ("highest" if exact else "high")
        assert torch.backends.cudnn.allow_tf32 is not exact
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]  # not in the stubs
        torch.use_deterministic_algorithms(False)
