"""The feed: the same batches whether prepared ahead or not, and no thread left behind."""

from __future__ import annotations

import threading
import traceback
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from tdmr import feed as feed_module
from tdmr import views as views_module
from tdmr.baselines import Scratch
from tdmr.checkpoint import Checkpoints
from tdmr.config import TrainingOptions, ViewOptions
from tdmr.errors import Stopped
from tdmr.feed import Batch, Feed, TrainingSet, fits, order, uploaded
from tdmr.models import make_student
from tdmr.training import train
from tdmr.views import Views

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path: Path) -> TrainingSet:
    """Ten images in a file, of which many views are mixtures."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "pixels.npy", rng.integers(0, 256, (10, 3, 16, 16), dtype=np.uint8))
    pixels = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    return TrainingSet(
        pixels, torch.arange(10) % 3, 3, Views(ViewOptions(count=20, mix=0.4), "v", 0)
    )


def feed(data: TrainingSet, **changes: Any) -> Feed:
    arguments: dict[str, Any] = {
        "batch_size": 4, "steps": 8, "stored_views": True, "seed": 3, "device": CPU, **changes,
    }  # fmt: skip
    return Feed(data, **arguments)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("feed")]


def same(a: Batch, b: Batch) -> bool:
    arrays = np.array_equal(a.images, b.images) and np.array_equal(a.views, b.views)
    return arrays and torch.equal(a.pixels, b.pixels) and torch.equal(a.labels, b.labels)


@pytest.mark.parametrize("first", [0, 5])
def test_what_is_prepared_ahead_is_what_would_have_been_prepared(
    data: TrainingSet, first: int
) -> None:
    with feed(data) as ahead, feed(data, ahead=0) as inline:
        assert all(same(ahead.batch(step), inline.batch(step)) for step in range(first, 8))
        assert not same(ahead.batch(0), inline.batch(1))
        assert same(ahead.batch(8), inline.batch(8))  # behind the end too


def test_the_next_batch_is_prepared_before_it_is_asked_for(
    data: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = threading.Semaphore(0)
    render = Views.render

    def counted(self: Views, *arguments: Any) -> Tensor:
        prepared.release()
        return render(self, *arguments)

    monkeypatch.setattr(Views, "render", counted)
    with feed(data) as ahead:
        ahead.batch(0)
        for _ in range(1 + feed_module.AHEAD):
            assert prepared.acquire(timeout=60)


def test_nothing_but_the_seed_and_the_step_is_random(data: TrainingSet) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1]
    with feed(data) as ahead:
        ahead.batch(0)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_a_pass_is_shuffled_once(data: TrainingSet, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    shuffled = feed_module.shuffled

    def counted(count: int, seed: int, number: int) -> Any:
        drawn.append(number)
        return shuffled(count, seed, number)

    monkeypatch.setattr(feed_module, "shuffled", counted)
    with feed(data, batch_size=2, steps=10) as ahead:
        images = np.concatenate([ahead.batch(step).images for step in range(10)])
    assert drawn == [0, 1]
    expected = [order(10, 2, seed=3, step=step)[:, 0] for step in range(10)]
    assert np.array_equal(images, np.concatenate(expected))


def test_an_error_on_the_thread_is_raised_in_the_loop(
    data: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Tensor:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Views, "render", broken)
    with feed(data) as ahead, pytest.raises(OSError, match="the disk is gone") as raised:
        ahead.batch(0)
    frames = [frame.name for frame in traceback.extract_tb(raised.tb)]
    assert {"_prepare", "broken"} <= set(frames)
    assert threads() == []


@pytest.mark.parametrize("ending", ["end", "stop", "error"])
def test_the_thread_ends_with_the_training(
    data: TrainingSet, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Objective(Scratch):
        def __call__(self, batch: Batch, output: Any, t: float) -> dict[str, Tensor]:
            seen.extend(threads())
            if ending == "error" and t > 0.5:
                raise ValueError("an objective's own")
            return super().__call__(batch, output, t)

    def run() -> None:
        options = TrainingOptions(steps=4, batch_size=4)
        checkpoints = Checkpoints(stopping=lambda: ending == "stop")
        student = make_student("test_vit", 32, 2, 3, pretrained=False, seed=0)
        large = TrainingSet(np.zeros((10, 3, 32, 32), np.uint8), data.labels, 3, data.views)
        train(student, large, Objective(0.0), options, seed=0, stage="s", checkpoints=checkpoints)

    if ending == "end":
        run()
    else:
        with pytest.raises(Stopped if ending == "stop" else ValueError):
            run()
    assert seen
    assert threads() == []


def test_a_process_renders_its_own_rows_and_knows_all(data: TrainingSet) -> None:
    with feed(data, ahead=0) as all_rows, feed(data, ahead=0, rows=slice(2, 4)) as own:
        whole, part = all_rows.batch(1), own.batch(1)
    assert torch.equal(part.pixels, whole.pixels[2:4])
    assert torch.equal(part.labels, whole.labels)
    assert np.array_equal(part.images, whole.images)


def test_images_stay_on_a_device_that_has_room() -> None:
    assert fits(4 << 30, 8 << 30)
    assert not fits((4 << 30) + 1, 8 << 30)


def test_images_on_the_device_give_the_views_of_those_in_a_file(
    data: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "UPLOAD_BYTES", 3 * 3 * 16 * 16)  # pieces of 3 images
    held = uploaded(data.pixels, CPU)
    assert torch.equal(held, torch.from_numpy(np.array(data.pixels)))
    places, numbers = np.array([4, 1, 4, 9]), np.array([0, 1, 2, 3])
    assert torch.equal(
        data.views.render(held, places, numbers, CPU),
        data.views.render(data.pixels, places, numbers, CPU),
    )


def test_a_stream_waits_for_what_another_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, event = Mock(), Mock()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    batch = Mock()
    feed_module._Ready(batch, event).here(torch.device("cuda:0"))
    stream.wait_event.assert_called_once_with(event)
    batch.pixels.record_stream.assert_called_once_with(stream)
    batch.labels.record_stream.assert_called_once_with(stream)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_views_made_in_pieces_are_those_made_at_once(
    data: TrainingSet, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    places, numbers = np.arange(9), np.arange(9) % 3
    whole = data.views.render(data.pixels, places, numbers, CPU)
    monkeypatch.setattr(views_module, "PIECE", 1)
    pieces = data.views.render(data.pixels, places, numbers, CPU, layout)
    assert torch.equal(pieces, whole)
    assert pieces.is_contiguous(memory_format=layout)
