"""The input side of stage 1: what is done to a picture before the frozen foundation sees it.

`u = resize(x) * a + b` per channel, inside a learnable frame. A picture that shrinks to leave room
for what is learnt around it is the layout of adversarial and model reprogramming (Elsayed et al.,
arXiv 1806.11146; Chen, arXiv 2202.10629); visual prompting (Bahng et al., arXiv 2203.17274) adds
the frame on top of the full picture, and covers its edge.

It is chosen before anything is cached, because it alone needs gradients through the foundation, and
only where images that it was not fitted on are classified better with it than without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tdmr import probe
from tdmr.config import InputOptions
from tdmr.data.pixels import Pixels
from tdmr.errors import NonFiniteLossError, OptionsError
from tdmr.models import Foundation
from tdmr.optim import adamw, set_rate
from tdmr.proxy import COSINE_SCALE

RECIPE = "antialiased-bilinear,affine,frame/1"
BATCH = 128  # images that are looked at without gradients at a time
LABEL_SMOOTHING = 0.1
WARMUP = 0.1  # share of the steps in which the rate rises
LEAST_STD = 1e-4
TRAINED = ("affine", "prompt")  # the others need no gradient
ONE_GREY_LEVEL = 1 / 255  # less contrast than this is none, and is not amplified

OnStep = Callable[[int, int, dict[str, float]], None]


class InputSide(nn.Module):
    """Brings pictures nearer to what a foundation knows, by gain, offset and a frame.

    `gain` and `offset` are (3,), in units of pixel values in [0, 1]; `prompt` is (3, size, size),
    of which only the outer `border` pixels are seen, and None without a border. Without a border
    a new input side is the identity.
    """

    mask: Tensor

    def __init__(self, size: int, border: int = 0) -> None:
        """For pictures of `size` pixels; raises OptionsError for a border that leaves no room."""
        super().__init__()
        if not 0 <= 2 * border < size:
            raise OptionsError(
                f"A border of {border} pixels leaves no room in pictures of {size} pixels.",
                suggestion=f"Choose options.input.border below {-(-size // 2)}, or 0 for none.",
            )
        self.size, self.border = size, border
        self.gain = nn.Parameter(torch.ones(3))
        self.offset = nn.Parameter(torch.zeros(3))
        self.prompt = nn.Parameter(torch.zeros(3, size, size)) if border else None
        mask = torch.ones(size, size)
        mask[border : size - border, border : size - border] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures (n, 3, size, size) in [0, 1], as the foundation is to see them: same shape.

        The result isn't clamped: the foundation's own normalisation knows no bounds either.
        """
        if self.prompt is None:
            return self._affine(images)
        inner = self.size - 2 * self.border
        small = F.interpolate(images, (inner, inner), mode="bilinear", antialias=True)
        return F.pad(self._affine(small), [self.border] * 4) + self.mask * self.prompt

    def _affine(self, images: Tensor) -> Tensor:
        return images * self.gain.view(3, 1, 1) + self.offset.view(3, 1, 1)

    def fingerprint(self) -> str:
        """SHA-256 of the geometry and every value, in order: what the view cache tells apart."""
        digest = hashlib.sha256(f"{RECIPE}:{self.size}:{self.border}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class InputChoice:
    """What was chosen, and why.

    `side` is None where nothing classifies unseen training images better than the plain picture.
    `candidates` holds the out-of-fold training accuracy of "none", "standardise", "affine" and
    "prompt", those that were tried, from the simplest on; it is empty where there were too few
    images to judge by, or nothing to try. Being the best of several, the winner's is optimistic.
    """

    side: InputSide | None
    candidates: dict[str, float]


def learn_input_side(
    foundation: Foundation,
    pixels: Pixels,
    labels: Tensor,
    classes: int,
    options: InputOptions,
    *,
    seed: int,
    device: torch.device,
    on_step: OnStep = lambda step, steps, losses: None,
) -> InputChoice:
    """Try input sides on folds of the training images, and fit the best one to all of them.

    `pixels` (n, 3, size, size) are the images at the foundation's size, `labels` (n,) their
    classes. A candidate is fitted on the images of all folds but one, a closed-form ridge on what
    the foundation then says of them (all taps), and both classify the fold left out. Only a
    candidate that gets more images right than every simpler one is preferred to it. The one image
    of a class that has no other can't be judged.

    The foundation learns nothing, and its own `input_side` is neither used nor set. It sees the
    images once, once more per fold for "standardise", and about twice per fold, beside what the
    steps draw, for each candidate that is trained.

    Raises NonFiniteLossError with its step, and OptionsError for a border that leaves no room.
    """
    labels = labels.cpu()
    names = _candidates(options)
    fold = _folds(labels, options.folds, seed)
    if len(names) == 1 or fold is None:
        return InputChoice(None, {})
    fits = sum(name in TRAINED for name in names) * (int(fold.max()) + 1)
    told = _Progress(on_step, (fits + 1) * options.steps)
    trial = _Trial(foundation, pixels, classes, options, seed, device, told)
    judged = labels.bincount()[labels] > 1
    hits = {n: int(_out_of_fold(trial, n, labels, fold)[judged].sum()) for n in names}
    # max() gives the first of equals, and the names come from the simplest on.
    best = max(names, key=lambda name: hits[name])
    side = None
    if best != "none":
        side = trial.fit(best, torch.arange(len(labels)), labels).requires_grad_(False).eval()
    told.finish()
    return InputChoice(side, {name: hits[name] / int(judged.sum()) for name in names})


def _candidates(options: InputOptions) -> list[str]:
    """The names to try, from the simplest on."""
    affine = ["standardise", "affine"] if options.affine else []
    return ["none", *affine, *(["prompt"] if options.border else [])]


def _folds(labels: Tensor, folds: int, seed: int) -> Tensor | None:
    """The fold of each image (n,); None where some fold's rest can't choose a ridge's penalty."""
    folds = min(folds, int(labels.bincount().max()))
    if folds < 2:
        return None
    fold = probe.fold_numbers(labels, folds, seed)
    rests = [labels[fold != number].bincount() for number in range(folds)]
    return fold if all(len(rest) and int(rest.max()) > 1 for rest in rests) else None


def _out_of_fold(trial: _Trial, name: str, labels: Tensor, fold: Tensor) -> Tensor:
    """Whether each image (n,) is classified right by what never saw it."""
    right = torch.zeros(len(labels), dtype=torch.bool)
    for number in range(int(fold.max()) + 1):
        inside, outside = (torch.nonzero(m).flatten() for m in (fold != number, fold == number))
        # Only here, and nowhere before, are the labels of the fold itself looked at.
        right[outside] = trial.classify(name, inside, labels[inside], outside) == labels[outside]
    return right


class _Progress:
    """Counts the steps of every fit as one."""

    def __init__(self, on_step: OnStep, steps: int) -> None:
        self._on_step, self._steps, self._done = on_step, steps, 0
        self._losses: dict[str, float] = {}

    def step(self, losses: dict[str, float]) -> None:
        self._done, self._losses = self._done + 1, losses
        self._on_step(self._done, self._steps, losses)

    def finish(self) -> None:
        """Tell the end where the last fit had no steps."""
        if self._done < self._steps:
            self._on_step(self._steps, self._steps, self._losses)


@dataclass(frozen=True)
class _Trial:
    """What all candidates and folds share. No method is given labels of images to classify."""

    foundation: Foundation
    pixels: Pixels
    classes: int
    options: InputOptions
    seed: int
    device: torch.device
    told: _Progress

    def classify(self, name: str, inside: Tensor, labels: Tensor, outside: Tensor) -> Tensor:
        """The classes of images `outside`, from images `inside` and their `labels` alone."""
        if name == "none":
            known, unknown = self._plain[inside], self._plain[outside]
        else:
            side = self.fit(name, inside, labels)
            known, unknown = (torch.cat(self._taps(side, rows), 1) for rows in (inside, outside))
        mean, std = known.mean(0), known.std(0).clamp_min(LEAST_STD)
        folds = min(self.options.folds, int(labels.bincount().max()))
        places = torch.arange(len(inside))
        fitted = probe.fit((known - mean) / std, places, labels, self.classes, folds, self.seed)
        return fitted.full.logits((unknown - mean) / std).argmax(1)

    def fit(self, name: str, rows: Tensor, labels: Tensor) -> InputSide:
        """The input side `name`, fitted on images `rows` and their `labels`."""
        border = self.options.border if name == "prompt" else 0
        side = InputSide(self.foundation.size, border).to(self.device)
        if self.options.affine:
            # Also where descent starts: what is far from the foundation's own tells it little.
            self._standardise(side, rows)
        if side.prompt is not None:
            self._continue_edges(side, rows)
        if name in TRAINED:
            self._train(side, rows, labels)
        return side

    @cached_property
    def _plain(self) -> Tensor:
        return torch.cat(self._taps(None, torch.arange(len(self.pixels))), 1)

    @torch.no_grad()
    def _taps(self, side: InputSide | None, rows: Tensor) -> list[Tensor]:
        """Features of images `rows` through `side`, on the CPU: per tap (n, its width)."""
        seen = [
            self.foundation.differentiable_features(images if side is None else side(images))
            for images in self._batches(rows)
        ]
        return [torch.cat(tap).cpu() for tap in zip(*seen, strict=True)]

    def _batches(self, rows: Tensor) -> Iterator[Tensor]:
        for some in torch.split(rows, BATCH):
            yield self._images(some)

    def _images(self, rows: Tensor) -> Tensor:
        """Images `rows` as they are: (n, 3, size, size) in [0, 1]."""
        raw = torch.from_numpy(np.asarray(self.pixels[rows.numpy()]))
        return raw.to(self.device).float().div_(255)

    @torch.no_grad()
    def _standardise(self, side: InputSide, rows: Tensor) -> None:
        """Give the images, all as one, the foundation's own mean and deviation per channel."""
        total, squares = torch.zeros(2, 3, dtype=torch.double)
        for images in self._batches(rows):
            values = images.double()
            total += values.sum(dim=(0, 2, 3)).cpu()
            squares += values.square().sum(dim=(0, 2, 3)).cpu()
        count = len(rows) * self.foundation.size**2
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        config = self.foundation.model.pretrained_cfg
        own_mean, own_std = (mean.new_tensor(config[key]).expand(3) for key in ("mean", "std"))
        gain = own_std / std.clamp_min(ONE_GREY_LEVEL)
        side.gain.copy_(gain)
        side.offset.copy_(own_mean - gain * mean)

    @torch.no_grad()
    def _continue_edges(self, side: InputSide, rows: Tensor) -> None:
        """Begin with a frame of the colour that is commonest, by median, at the images' edges."""
        assert side.prompt is not None
        some = rows[torch.linspace(0, len(rows) - 1, min(BATCH, len(rows))).long()]
        pixels = np.asarray(self.pixels[some.numpy()])
        edges = [pixels[:, :, 0], pixels[:, :, -1], pixels[..., 0], pixels[..., -1]]
        colour = torch.from_numpy(np.median(np.concatenate(edges, axis=2), axis=(0, 2)) / 255)
        colour = colour.float().to(self.device)
        side.prompt.copy_((colour * side.gain + side.offset).view(3, 1, 1) * side.mask)

    def _train(self, side: InputSide, rows: Tensor, labels: Tensor) -> None:
        """Descend on the cross-entropy of a cosine head on the last tap, by `side` and head."""
        options = self.options
        head = _Head(self._taps(side, rows)[-1], labels, self.classes).to(self.device)
        labels = labels.to(self.device)
        side.gain.requires_grad_(options.affine)
        side.offset.requires_grad_(options.affine)
        # Decay would pull the gain to nothing.
        optimizer = adamw(nn.ModuleList([side, head]), weight_decay=0.0)
        for step in range(options.steps):
            set_rate(optimizer, step, options.steps, options.learning_rate, WARMUP)
            generator = np.random.default_rng((self.seed, step))
            drawn = torch.from_numpy(generator.integers(len(rows), size=options.batch_size))
            tap = self.foundation.differentiable_features(side(self._images(rows[drawn])))[-1]
            y = labels[drawn.to(self.device)]
            loss = F.cross_entropy(head(tap), y, label_smoothing=LABEL_SMOOTHING)
            losses = {"loss": loss.item()}
            if not np.isfinite(losses["loss"]):
                raise NonFiniteLossError("input", step, losses, options.learning_rate)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own has no types
            optimizer.step()
            self.told.step(losses)


class _Head(nn.Module):
    """Cosine logits of standardised features, from the classes' means on.

    Weights that are imprinted (Qi et al., arXiv 1712.07136) mean something from the first step:
    until a random head does, what it tells the input side is noise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: Tensor, labels: Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", features.std(0).clamp_min(LEAST_STD))
        members = F.one_hot(labels, classes).to(features.dtype)
        self.weight = nn.Parameter(members.T @ self._unit(features))

    def forward(self, features: Tensor) -> Tensor:
        """Logits of features (n, width) as they come: (n, classes)."""
        return COSINE_SCALE * self._unit(features) @ F.normalize(self.weight, dim=1).T

    def _unit(self, features: Tensor) -> Tensor:
        return F.normalize((features - self.mean) / self.std, dim=1)
