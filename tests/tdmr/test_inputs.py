"""The input side: its geometry, and that it is kept only where unseen images gain by it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from demo.digits import split
from tdmr import inputs, probe
from tdmr.cache import ViewCache
from tdmr.config import ViewOptions
from tdmr.data.pixels import Pixels
from tdmr.errors import NonFiniteLossError, OptionsError
from tdmr.inputs import InputChoice, InputSide, learn_input_side
from tdmr.models import Foundation, load_foundation
from tdmr.store import ArrayStore
from tdmr.views import Views

CPU = torch.device("cpu")
SIZE, CLASSES = 32, 3


@dataclass(frozen=True)
class Options:
    """The fields that learning reads."""

    affine: bool = True
    border: int = 0
    steps: int = 3
    learning_rate: float = 0.02
    batch_size: int = 8
    folds: int = 3


class Bench:
    """A tiny untrained foundation, and pictures of noise that differ by class in brightness."""

    def __init__(self, folder: Path, images: int = 12) -> None:
        self.foundation: Foundation = load_foundation(f"local-dir:{folder}", None, 2, CPU)
        rng = np.random.default_rng(0)
        self.labels = torch.arange(images) % CLASSES
        noise = rng.integers(0, 120, (images, 3, SIZE, SIZE), dtype=np.uint8)
        self.pixels = noise + (40 * self.labels.numpy()[:, None, None, None]).astype(np.uint8)

    def learn(self, options: Options, seed: int = 0) -> InputChoice:
        return learn_input_side(
            self.foundation, self.pixels, self.labels, CLASSES, options, seed=seed, device=CPU
        )

    def trial(self, options: Options) -> inputs._Trial:
        told = inputs._Progress(lambda step, steps, losses: None, 0)
        return inputs._Trial(self.foundation, self.pixels, CLASSES, options, 0, CPU, told)


@pytest.fixture
def bench(foundation_folder: Path) -> Bench:
    return Bench(foundation_folder)


# --- what it does to a picture ---------------------------------------------------------------


def test_without_a_border_a_new_one_is_the_identity() -> None:
    images = torch.rand(4, 3, SIZE, SIZE)
    assert torch.equal(InputSide(SIZE)(images), images)


def test_gain_and_offset_are_per_channel() -> None:
    side = InputSide(2)
    with torch.no_grad():
        side.gain.copy_(torch.tensor([2.0, 1.0, -1.0]))
        side.offset.copy_(torch.tensor([0.0, 0.5, 1.0]))
    seen = side(torch.full((1, 3, 2, 2), 0.25))
    assert seen[0, :, 0, 0].tolist() == [0.5, 0.75, 0.75]


def test_the_frame_holds_the_prompt_and_covers_nothing() -> None:
    side, images = InputSide(8, border=2), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        side.prompt.copy_(torch.rand(3, 8, 8) + 5)
        side.gain.fill_(2.0)
        side.offset.fill_(-1.0)
    seen = side(images)
    small = F.interpolate(images, (4, 4), mode="bilinear", antialias=True)
    assert torch.equal(seen[:, :, 2:6, 2:6], small * 2 - 1)
    frame = torch.ones(8, 8, dtype=torch.bool)
    frame[2:6, 2:6] = False
    assert all(torch.equal(one[:, frame], side.prompt[:, frame]) for one in seen)


def test_only_the_frame_of_the_prompt_learns() -> None:
    side = InputSide(8, border=1)
    side(torch.rand(2, 3, 8, 8)).sum().backward()
    inner = side.prompt.grad[:, 1:7, 1:7]
    assert inner.abs().sum() == 0
    assert side.prompt.grad.sum() == 2 * 3 * (64 - 36)


@pytest.mark.parametrize("border", [-1, 4, 5])
def test_a_border_must_leave_room(border: int) -> None:
    with pytest.raises(OptionsError, match="no room"):
        InputSide(8, border)


def test_the_fingerprint_tells_values_and_geometry_apart() -> None:
    moved = InputSide(8)
    with torch.no_grad():
        moved.offset[1] = 1e-6
    prints = {s.fingerprint() for s in (InputSide(8), InputSide(16), InputSide(8, 1), moved)}
    assert len(prints) == 4
    assert InputSide(8).fingerprint() == InputSide(8).fingerprint()


# --- what the foundation and the cache make of it --------------------------------------------


def test_features_are_those_of_what_it_makes(bench: Bench) -> None:
    images, side = torch.rand(2, 3, SIZE, SIZE), InputSide(SIZE, 4)
    expected = bench.foundation.features(side(images).detach())
    bench.foundation.input_side = side
    assert all(map(torch.equal, bench.foundation.features(images), expected))
    assert not any(tap.requires_grad for tap in bench.foundation.features(images))


def test_another_input_side_is_another_entry(bench: Bench, tmp_path: Path) -> None:
    def entry(side: InputSide | None) -> bool:
        bench.foundation.input_side = side
        views = Views(ViewOptions(count=1), "v", 0)
        cache = ViewCache(ArrayStore(tmp_path), bench.foundation, bench.pixels, views)
        return cache.features({}).reused

    bent = InputSide(SIZE)
    with torch.no_grad():
        bent.gain.mul_(0.5)
    assert [entry(s) for s in (None, InputSide(SIZE), bent)] == [False] * 3
    assert [entry(s) for s in (None, InputSide(SIZE), bent)] == [True] * 3
    bench.foundation.input_side = None
    assert bench.foundation.fingerprint() == bench.foundation.weights_hash()


# --- how it is learnt ------------------------------------------------------------------------


def test_standardised_pictures_have_the_foundations_own_statistics(bench: Bench) -> None:
    rows = torch.arange(12)
    trial = bench.trial(Options())
    seen = trial.fit("standardise", rows, bench.labels)(trial._images(rows))
    torch.testing.assert_close(seen.mean(dim=(0, 2, 3)), torch.full((3,), 0.5))
    torch.testing.assert_close(seen.std(dim=(0, 2, 3)), torch.full((3,), 0.5), atol=1e-4, rtol=0)


def test_pictures_without_contrast_are_not_blown_up(bench: Bench) -> None:
    bench.pixels[:] = 7
    side = bench.trial(Options()).fit("standardise", torch.arange(12), bench.labels)
    assert side.gain.max() <= 0.5 * 255 + 1e-3


def test_a_frame_begins_with_the_colour_of_the_edges(bench: Bench) -> None:
    bench.pixels[:, :, 0], bench.pixels[:, :, -1] = 51, 51
    bench.pixels[..., 0], bench.pixels[..., -1] = 51, 51
    options = Options(affine=False, border=3, steps=0)
    side = bench.trial(options).fit("prompt", torch.arange(12), bench.labels)
    frame = side.prompt[:, side.mask == 1]
    torch.testing.assert_close(frame, torch.full_like(frame, 0.2))


def test_descent_lowers_the_loss_and_moves_all_that_may_move(bench: Bench) -> None:
    losses: list[float] = []
    trial = bench.trial(Options(border=2))
    told = inputs._Progress(lambda step, steps, parts: losses.append(parts["loss"]), 40)
    options = Options(border=2, steps=40, batch_size=12)
    side = replace(trial, options=options, told=told).fit("prompt", torch.arange(12), bench.labels)
    start = replace(trial, options=Options(border=2, steps=0)).fit(
        "prompt", torch.arange(12), bench.labels
    )
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    for name, value in side.named_parameters():
        assert not torch.equal(value, dict(start.named_parameters())[name]), name


def test_without_affine_a_prompt_leaves_gain_and_offset(bench: Bench) -> None:
    options = Options(affine=False, border=2)
    side = bench.trial(options).fit("prompt", torch.arange(12), bench.labels)
    assert (side.gain.tolist(), side.offset.tolist()) == ([1.0] * 3, [0.0] * 3)
    assert list(bench.learn(options).candidates) == ["none", "prompt"]


def test_the_same_seed_gives_the_same_bits(bench: Bench) -> None:
    trial, rows = bench.trial(Options(border=2)), torch.arange(12)
    first, again = (trial.fit("prompt", rows, bench.labels).fingerprint() for _ in range(2))
    other = replace(trial, seed=1).fit("prompt", rows, bench.labels).fingerprint()
    assert first == again != other
    one, two = (bench.learn(Options(steps=1, folds=2)) for _ in range(2))
    assert one.candidates == two.candidates


def test_the_foundation_stays_frozen_and_says_what_it_cost(bench: Bench) -> None:
    before = bench.foundation.weights_hash()
    choice = bench.learn(Options(border=2))
    assert list(choice.candidates) == ["none", "standardise", "affine", "prompt"]
    assert bench.foundation.weights_hash() == before
    parameters = list(bench.foundation.model.parameters())
    assert not any(p.requires_grad or p.grad is not None for p in parameters)
    assert not any(m.training for m in bench.foundation.model.modules())
    assert bench.foundation.input_side is None
    # 12 plain; per fold 12 for each of three, and 8 inside and 3 steps of 8 for each that learns.
    folds = 12 + 3 * (3 * 12 + 2 * (8 + 3 * 8))
    assert bench.foundation.forwards - folds in (0, 12 + 24)  # the last fit, where there is one


def test_steps_are_told_to_the_end(bench: Bench) -> None:
    seen: list[tuple[int, int]] = []
    learn_input_side(
        bench.foundation,
        bench.pixels,
        bench.labels,
        CLASSES,
        Options(),
        seed=0,
        device=CPU,
        on_step=lambda step, steps, losses: seen.append((step, steps)),
    )
    assert seen[0] == (1, 12)
    assert seen[-1] == (12, 12)


def test_labels_of_a_fold_do_not_reach_its_fit(bench: Bench) -> None:
    inside, outside = torch.arange(8), torch.arange(8, 12)
    fold = (torch.arange(12) >= 8).long()
    permuted = bench.labels.clone()
    permuted[outside] = (permuted[outside] + 1) % CLASSES
    trial = bench.trial(Options(border=2))
    for name in ("none", "standardise", "affine", "prompt"):
        predicted = trial.classify(name, inside, bench.labels[inside], outside)
        right, wrong = (
            inputs._out_of_fold(trial, name, labels, fold)[outside]
            for labels in (bench.labels, permuted)
        )
        assert torch.equal(right, predicted == bench.labels[outside])
        assert torch.equal(wrong, predicted == permuted[outside])


def test_pixels_of_a_fold_do_not_reach_its_fit(bench: Bench) -> None:
    inside = torch.arange(8)
    first = bench.trial(Options(border=2)).fit("prompt", inside, bench.labels[inside])
    bench.pixels[8:] = 255
    again = bench.trial(Options(border=2)).fit("prompt", inside, bench.labels[inside])
    assert first.fingerprint() == again.fingerprint()


@pytest.mark.parametrize(
    ("labels", "folds"), [([0, 1, 2], 3), ([0, 0, 1, 1, 2, 2], 3), ([0, 0, 0, 1, 1, 1], 2)]
)
def test_too_few_images_to_judge_by(bench: Bench, labels: list[int], folds: int) -> None:
    bench.labels, bench.pixels = torch.tensor(labels), bench.pixels[: len(labels)]
    assert bench.learn(Options(folds=folds)) == InputChoice(None, {})


def test_a_class_of_one_is_not_judged(bench: Bench) -> None:
    bench.labels = torch.tensor([0] * 6 + [1] * 5 + [2])
    accuracy = bench.learn(Options(affine=False, border=2, steps=1)).candidates["none"]
    assert accuracy * 11 == pytest.approx(round(accuracy * 11))


def test_nothing_to_try_costs_nothing(bench: Bench) -> None:
    assert bench.learn(Options(affine=False)) == InputChoice(None, {})
    assert bench.foundation.forwards == 0


def test_a_loss_that_is_not_finite_is_named(bench: Bench) -> None:
    with pytest.raises(NonFiniteLossError, match=r"'input'.* at step 1") as caught:
        bench.learn(replace(Options(), learning_rate=1e38, steps=4))
    assert caught.value.change == {"options": {"input": {"learning_rate": 3.33e37}}}


# --- where it helps, and where it doesn't ----------------------------------------------------


@dataclass(frozen=True)
class Digits:
    """Five labelled digits per class, and others that are held out, of even place in the set."""

    pixels: Pixels
    labels: Tensor
    held_out: Pixels
    held_out_labels: Tensor


def digits(seed: int) -> Digits:
    raw = load_digits()
    grey = (raw.images[::2] / 16 * 255).round().astype(np.uint8)
    labels = torch.from_numpy(raw.target[::2])
    bicubic = Image.Resampling.BICUBIC
    large = np.stack([np.asarray(Image.fromarray(g).resize((SIZE, SIZE), bicubic)) for g in grey])
    pixels = np.repeat(large[:, None], 3, axis=1)
    train, test = split(labels.numpy(), 5, seed)
    test = test[:200]
    return Digits(pixels[train], labels[train], pixels[test], labels[test])


def faint(pixels: Pixels) -> Pixels:
    """A tenth of the contrast, on a bright ground."""
    return (220 + pixels / 10).round().astype(np.uint8)


def held_out_accuracy(foundation: Foundation, data: Digits) -> float:
    """Of the closed form on all taps, through the foundation's input side."""
    known, unknown = (
        torch.cat(foundation.features(torch.from_numpy(p).float() / 255), dim=1)
        for p in (data.pixels, data.held_out)
    )
    mean, std = known.mean(0), known.std(0).clamp_min(1e-4)
    places = torch.arange(len(known))
    fitted = probe.fit((known - mean) / std, places, data.labels, 10, 3, 0)
    predicted = fitted.full.logits((unknown - mean) / std).argmax(1)
    return (predicted == data.held_out_labels).float().mean().item()


def test_faint_digits_are_brought_back_to_what_the_foundation_knows() -> None:
    foundation = load_foundation("letters_vit", None, 4, CPU)
    good = digits(101)
    data = replace(good, pixels=faint(good.pixels), held_out=faint(good.held_out))
    choice = learn_input_side(
        foundation, data.pixels, data.labels, 10, Options(), seed=101, device=CPU
    )
    assert choice.side is not None
    best = max(choice.candidates.values())
    assert best >= choice.candidates["none"] + 0.08
    without = held_out_accuracy(foundation, data)
    foundation.input_side = choice.side
    assert held_out_accuracy(foundation, data) >= without + 0.02
    assert not any(p.requires_grad for p in choice.side.parameters())


def test_digits_as_they_are_need_nothing() -> None:
    foundation = load_foundation("letters_vit", None, 4, CPU)
    data = digits(100)
    choice = learn_input_side(
        foundation, data.pixels, data.labels, 10, Options(), seed=100, device=CPU
    )
    assert choice.side is None
    assert choice.candidates["none"] >= max(choice.candidates.values()) >= 0.9


def test_among_equals_the_simpler_one_is_chosen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = {"none": 5, "standardise": 7, "affine": 7, "prompt": 7}
    monkeypatch.setattr(
        inputs, "_out_of_fold", lambda trial, name, *_: torch.arange(12) < hits[name]
    )
    choice = bench.learn(Options(border=2))
    expected = bench.trial(Options()).fit("standardise", torch.arange(12), bench.labels)
    assert choice.side is not None
    assert choice.side.fingerprint() == expected.fingerprint()
    assert choice.candidates == {name: n / 12 for name, n in hits.items()}
    hits["none"] = 7
    assert bench.learn(Options(border=2)).side is None
    hits["prompt"] = 8
    best = bench.learn(Options(border=2)).side
    assert best is not None
    assert best.border == 2
