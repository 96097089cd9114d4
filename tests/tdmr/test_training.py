"""The one loop: order, averages, recalibration, determinism, and what stops it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tdmr.baselines import Scratch
from tdmr.config import TrainingOptions, ViewOptions
from tdmr.errors import NonFiniteLossError
from tdmr.feed import Batch, TrainingSet, order
from tdmr.models import Student, StudentOutput, make_student
from tdmr.training import OwnHead, recalibrate, train
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
    first.running_mean.fill_(9)  # type: ignore[union-attr]
    recalibrate(model, pixels)
    hook.remove()
    assert first.running_mean is not None
    torch.testing.assert_close(first.running_mean, seen[0].mean((0, 2, 3)))
    assert (first.momentum, model.training) == (0.1, False)
