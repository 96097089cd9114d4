"""The two models of a distillation: a frozen foundation, and a student.

Both are timm models that offer `forward_intermediates`; both give pooled features at taps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from tdmr import catalog
from tdmr.errors import ModelWeightsError, OptionsError, UnknownModelError

# timm's models have methods and attributes that `nn.Module` doesn't declare.
TimmModel = Any


@dataclass(frozen=True)
class StudentOutput:
    """`logits` (batch, classes) and, per tap, pooled features (batch, channels of that tap)."""

    logits: Tensor
    taps: list[Tensor]


class Foundation:
    """A foundation model that nothing can train: in eval mode, without gradients.

    `forwards` counts the images it has seen, so that a run can say what it cost; `widths` are
    the widths of its taps.
    """

    def __init__(self, model: TimmModel, name: str, size: int, taps: int) -> None:
        self.model: TimmModel = model.eval().requires_grad_(False)
        self.name = name
        self.size = size
        self.tap_indices = tap_indices(model, taps)
        self.widths: tuple[int, ...] = ()
        self.forwards = 0
        config = model.pretrained_cfg
        self._mean = torch.tensor(config["mean"]).view(1, -1, 1, 1)
        self._std = torch.tensor(config["std"]).view(1, -1, 1, 1)
        self._prefix = getattr(model, "num_prefix_tokens", 0)

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Pooled features of images (n, 3, size, size) in [0, 1]: per tap (n, its width).

        A transformer's tap is the mean of its patches, and the class token where there is one; a
        convolutional tap is the global average.
        """
        self.forwards += len(images)
        x = (_channels(images, self._mean.shape[1]) - self._mean) / self._std
        kwargs = {"return_prefix_tokens": True} if self._prefix else {}
        maps = self.model.forward_intermediates(
            x, indices=self.tap_indices, intermediates_only=True, **kwargs
        )
        return [_pool(m) for m in maps]

    def probe_widths(self, images: Tensor) -> None:
        """Learn each tap's width from a try that counts as no forward."""
        self.widths = tuple(tap.shape[1] for tap in self.features(images))
        self.forwards = 0

    def weights_hash(self) -> str:
        """SHA-256 of every parameter and buffer, in order."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            raw = tensor.detach().cpu().contiguous()
            digest.update(raw.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def bytes(self) -> int:
        """Size of the weights: of their file where it is at hand, otherwise as loaded."""
        reference = _reference(self.name, "foundation")
        if reference.startswith("local-dir:"):
            folder = Path(reference.removeprefix("local-dir:"))
            return (folder / "model.safetensors").stat().st_size
        return sum(t.numel() * t.element_size() for t in self.model.state_dict().values())

    def to(self, device: torch.device) -> Foundation:
        """Move the model, and what normalises its input."""
        self.model.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self


class Student(nn.Module):
    """A timm classifier that also gives its pooled taps, and normalises its own input."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: TimmModel, name: str, size: int, taps: int) -> None:
        super().__init__()
        self.model: TimmModel = model
        self.name = name
        self.size = size
        self.tap_indices = tap_indices(model, taps)
        config = model.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(config["std"]).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> StudentOutput:
        """Classify images (n, 3, size, size) in [0, 1]."""
        x = (images - self.mean) / self.std
        final, maps = self.model.forward_intermediates(x, indices=self.tap_indices)
        return StudentOutput(self.model.forward_head(final), [_pool(m) for m in maps])

    @torch.no_grad()
    def tap_widths(self) -> list[int]:
        """The width of each tap."""
        training = self.model.training
        self.eval()
        probe = torch.zeros(1, 3, self.size, self.size, device=self.mean.device)
        widths = [tap.shape[1] for tap in self(probe).taps]
        self.train(training)
        return widths


def load_foundation(name: str, size: int | None, taps: int, device: torch.device) -> Foundation:
    """The foundation `name`, with its weights, frozen.

    `name` is one of the catalog's, or `local-dir:FOLDER` with a timm folder of safetensors.
    Raises UnknownModelError, ModelWeightsError or OptionsError.
    """
    reference = _reference(name, "foundation")
    try:
        model: TimmModel = timm.create_model(reference, pretrained=True, num_classes=0)
        if size is not None and size != model.pretrained_cfg["input_size"][-1]:
            model = _resized(reference, size)
    except (OSError, RuntimeError) as error:
        raise ModelWeightsError(
            f"The weights of {name!r} can't be loaded: {_first_line(error)}",
            suggestion="Check the network or the folder, or choose a foundation that is offline.",
        ) from error
    side: int = size or model.pretrained_cfg["input_size"][-1]
    foundation = Foundation(_tappable(model, name), name, side, taps).to(device)
    _check_size(foundation.probe_widths, name, side, device, "foundation_size")
    return foundation


def make_student(
    name: str, size: int | None, taps: int, classes: int, *, pretrained: bool, seed: int
) -> Student:
    """A student for `classes` classes, its initial weights a function of `seed`.

    Raises UnknownModelError, ModelWeightsError or OptionsError.
    """
    reference = _reference(name, "student")
    torch.manual_seed(seed)
    try:
        model: TimmModel = timm.create_model(reference, pretrained=pretrained, num_classes=classes)
        side: int = size or model.pretrained_cfg["input_size"][-1]
        if side != model.pretrained_cfg["input_size"][-1] and _takes_size(model):
            torch.manual_seed(seed)
            model = timm.create_model(
                reference, pretrained=pretrained, num_classes=classes, img_size=side
            )
    except (OSError, RuntimeError) as error:
        raise ModelWeightsError(
            f"The student {name!r} can't be made: {_first_line(error)}",
            suggestion="Leave student_pretrained off, or check the network.",
        ) from error
    student = Student(_tappable(model, name), name, side, taps)
    _check_size(student.eval(), name, side, torch.device("cpu"), "image_size")
    return student


def tap_indices(model: TimmModel, taps: int) -> list[int]:
    """The levels at 1/taps, 2/taps … and the end of the model's depth, without repeats."""
    levels = len(model.feature_info)
    taps = min(taps, levels)
    return [-(-levels * (tap + 1) // taps) - 1 for tap in range(taps)]


def _reference(name: str, role: catalog.Role) -> str:
    """What timm calls the model."""
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:"))
        if not (folder / "config.json").is_file():
            raise ModelWeightsError(
                f"{str(folder)!r} isn't a timm folder: it holds no config.json.",
                suggestion="Point to a folder with config.json and model.safetensors.",
            )
        if not (folder / "model.safetensors").is_file():
            raise ModelWeightsError(
                f"{str(folder)!r} holds no model.safetensors; no other format is loaded.",
                suggestion="Save the weights with safetensors.torch.save_file.",
            )
        return name
    return catalog.require(name, role)


def _resized(reference: str, size: int) -> TimmModel:
    model: TimmModel = timm.create_model(reference, pretrained=True, num_classes=0)
    if not _takes_size(model):
        return model
    return timm.create_model(reference, pretrained=True, num_classes=0, img_size=size)


def _takes_size(model: TimmModel) -> bool:
    return bool(model.pretrained_cfg.get("fixed_input_size"))


def _tappable(model: TimmModel, name: str) -> TimmModel:
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        raise UnknownModelError(
            f"{name!r} offers no intermediate features, which both stages need.",
            suggestion="Choose a model from the catalog.",
        )
    return model


@torch.no_grad()
def _check_size(forward: Any, name: str, size: int, device: torch.device, option: str) -> None:
    try:
        forward(torch.zeros(2, 3, size, size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise OptionsError(
            f"{name!r} can't take images of {size} pixels: {_first_line(error)}",
            suggestion=f"Choose another options.{option}, for instance a multiple of 32.",
        ) from error


def _channels(images: Tensor, channels: int) -> Tensor:
    """RGB, or its mean for a model of one channel: (n, channels, h, w)."""
    return images if channels == 3 else images.mean(dim=1, keepdim=True)


def _pool(level: Tensor | Sequence[Tensor]) -> Tensor:
    """(n, c, h, w) to (n, c), or (maps, prefix tokens) to (n, c + c)."""
    if isinstance(level, Tensor):
        return level.mean(dim=(2, 3)) if level.ndim == 4 else level.mean(dim=1)
    maps, prefix = level
    return torch.cat([maps.mean(dim=(2, 3)), prefix[:, 0]], dim=1)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
