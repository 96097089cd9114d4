"""The two models of a distillation: a frozen foundation, and a student.

Both are timm models that offer `forward_intermediates`; both give pooled features at taps. Images
are always RGB: each model normalises them, and makes them grey, as its own training did.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tdmr import own, weights
from tdmr.errors import ModelWeightsError, OptionsError, UnknownModelError, is_out_of_memory
from tdmr.readout import ReusedHead
from tdmr.weights import TimmModel

if TYPE_CHECKING:
    from tdmr.inputs import InputSide

GREY = (0.299, 0.587, 0.114)  # of ITU-R BT.601, which is what PIL's mode "L" is


@dataclass(frozen=True)
class StudentOutput:
    """`logits` (batch, classes) and, per tap, pooled features (batch, channels of that tap).

    `read` (batch, its width) is what a reused head reads, of width 0 without one.
    """

    logits: Tensor
    taps: list[Tensor]
    read: Tensor

    def detached(self) -> StudentOutput:
        """The same without what made it."""
        taps = [tap.detach() for tap in self.taps]
        return StudentOutput(self.logits.detach(), taps, self.read.detach())


class Foundation:
    """A foundation model that nothing can train: in eval mode, without gradients.

    `forwards` counts the images it has seen, so that a run can say what it cost; `widths` are
    the widths of its taps. `input_side`, where there is one, is what `features` puts before it.
    """

    def __init__(self, model: TimmModel, name: str, size: int, taps: int) -> None:
        self.model: TimmModel = model.eval().requires_grad_(False)
        self.name = name
        self.size = size
        self.tap_indices = tap_indices(model, taps)
        self.widths: tuple[int, ...] = ()
        self.forwards = 0
        self.input_side: InputSide | None = None
        self._mean, self._std = normalisation(model, name)
        self._class_token = _gives_class_token(model)

    @torch.no_grad()
    def features(self, images: Tensor) -> list[Tensor]:
        """Pooled features of images (n, 3, size, size) in [0, 1]: per tap (n, its width).

        A transformer's tap is the mean of its patches, and the class token where there is one; a
        convolutional tap is the global average.
        """
        seen = images if self.input_side is None else self.input_side(images)
        return self.differentiable_features(seen)

    def differentiable_features(self, images: Tensor) -> list[Tensor]:
        """As `features`, with gradients to `images`, which no input side is put before.

        For learning an input side only; the model itself stays frozen. The images count.
        """
        self.forwards += len(images)
        x = (as_channels(images, self.channels) - self._mean) / self._std
        kwargs = {"return_prefix_tokens": True} if self._class_token else {}
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

    def fingerprint(self) -> str:
        """SHA-256 of what `features` depends on: the weights, and an input side if there is one."""
        weights = self.weights_hash()
        if self.input_side is None:
            return weights
        return hashlib.sha256(f"{weights}:{self.input_side.fingerprint()}".encode()).hexdigest()

    @property
    def channels(self) -> int:
        """What the model itself takes: 3 (RGB) or 1 (grey)."""
        return self._mean.shape[1]

    @property
    def licence(self) -> str | None:
        """The licence of the weights, None where none is stated; for one's own, what one said."""
        mine = own.find(self.name)
        stated = self.model.pretrained_cfg.get("license") if mine is None else mine.about.licence
        return None if stated is None else str(stated)

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def bytes(self) -> int:
        """Size of the weights: of their file where it is at hand, otherwise as loaded."""
        file = weights.locate(self.name, "foundation").file
        if file is not None:
            return file.stat().st_size
        return sum(t.numel() * t.element_size() for t in self.model.state_dict().values())

    def to(self, device: torch.device) -> Foundation:
        """Move the model, its input side, and what normalises its input."""
        self.model.to(device)
        if self.input_side is not None:
            self.input_side.to(device)
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
        mean, std = normalisation(model, name)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> StudentOutput:
        """Classify images (n, 3, size, size) in [0, 1]."""
        x = (as_channels(images, self.channels) - self.mean) / self.std
        final, maps = self.model.forward_intermediates(x, indices=self.tap_indices)
        given = self.model.forward_head(final)
        logits, read = (given, given[:, :0]) if self.reused is None else self.reused.split(given)
        return StudentOutput(logits, [_pool(m) for m in maps], read)

    @property
    def reused(self) -> ReusedHead | None:
        """The head in the classifier's place, if there is one."""
        found = self.model.get_classifier()
        return found if isinstance(found, ReusedHead) else None

    @property
    def classifier_width(self) -> int | None:
        """How many features the classifier reads; None for one that isn't a linear map."""
        found = self.model.get_classifier()
        return found.in_features if type(found) is nn.Linear else None

    @property
    def classifier_name(self) -> str:
        """The classifier's path in the model."""
        found = self.model.get_classifier()
        names = (name for name, module in self.model.named_modules() if module is found)
        return str(next(names))

    def classify_by(self, classifier: nn.Module) -> None:
        """Put `classifier` in the place of the model's own."""
        self.model.set_submodule(self.classifier_name, classifier)

    def make_room_for(self, state: Mapping[str, Tensor]) -> None:
        """Have a reused head if the student whose `state` is to be taken had one."""
        if self.classifier_width is None:
            return
        start = f"model.{self.classifier_name}"
        adapter, bias = state.get(f"{start}.adapter.weight"), state.get(f"{start}.bias")
        if adapter is not None and bias is not None:
            read, width = adapter.shape
            self.classify_by(ReusedHead(width, read, len(bias)).to(self.mean.device))

    def fold(self) -> None:
        """Make a plain classifier of a reused head."""
        if self.reused is not None:
            self.classify_by(self.reused.folded())

    @property
    def channels(self) -> int:
        """What the model itself takes: 3 (RGB) or 1 (grey)."""
        return self.mean.shape[1]

    @property
    def grid(self) -> int | None:
        """Patches along a side of an image; None for a model of more than one resolution."""
        patch = patch_size(self.model)
        return None if patch is None else self.size // patch

    @torch.no_grad()
    def tap_widths(self) -> list[int]:
        """The width of each tap."""
        training = self.model.training
        self.eval()
        probe = torch.zeros(1, 3, self.size, self.size, device=self.mean.device)
        widths = [tap.shape[1] for tap in self(probe).taps]
        self.train(training)
        return widths


def load_foundation(
    name: str,
    size: int | None,
    taps: int,
    device: torch.device,
    *,
    student_grid: int | None = None,
) -> Foundation:
    """The foundation `name` (see `tdmr.weights` for what names there are), frozen.

    `size` is the side of its images in pixels. None is the model's own; with `student_grid`, a
    transformer's is then chosen by `matched_size`.
    Raises UnknownModelError, ModelWeightsError or OptionsError.
    """
    source = weights.locate(name, "foundation")
    image_size = None
    if size is not None or student_grid is not None:
        plan = _tappable(weights.create(source, 0, weights=False), name)
        if size is None:
            size = matched_size(_own_side(plan), patch_size(plan), student_grid, _resizes(plan))
        image_size = _made_for(plan, size)
    model = weights.create(source, 0, weights=True, size=image_size)
    side = size or _own_side(model)
    foundation = Foundation(_tappable(model, name), name, side, taps).to(device)
    _check_size(foundation.probe_widths, foundation, device, "foundation_size")
    return foundation


def make_student(
    name: str, size: int | None, taps: int, classes: int, *, pretrained: bool, seed: int
) -> Student:
    """A student for `classes` classes, its initial weights a function of `seed`.

    `pretrained` starts it from the weights that `name` stands for (see `tdmr.weights`), all but
    the classifier. Raises UnknownModelError, ModelWeightsError or OptionsError.
    """
    source = weights.locate(name, "student")
    torch.manual_seed(seed)
    model = weights.create(source, classes, weights=pretrained and size is None)
    image_size = None if size is None else _made_for(model, size)
    if image_size is not None or (pretrained and size is not None):
        torch.manual_seed(seed)
        model = weights.create(source, classes, weights=pretrained, size=image_size)
    student = Student(_tappable(model, name), name, size or _own_side(model), taps)
    _check_size(student.eval(), student, torch.device("cpu"), "image_size")
    return student


def matched_size(own: int, patch: int | None, student_grid: int | None, resizes: bool) -> int:
    """The side in pixels at which a foundation has as many patches as the student.

    That is so if it has patches of one size (`patch`, in pixels), the student does too
    (`student_grid` along a side) and it takes images of other sizes; else it is its `own` side.
    """
    if patch is None or student_grid is None or not resizes:
        return own
    return patch * student_grid


def patch_size(model: TimmModel) -> int | None:
    """The side of a patch in pixels; None for a model of more than one resolution."""
    info = model.feature_info
    levels = info if isinstance(info, list) else info.info
    reductions = {int(level["reduction"]) for level in levels}
    return reductions.pop() if len(reductions) == 1 else None


def tap_indices(model: TimmModel, taps: int) -> list[int]:
    """The levels at 1/taps, 2/taps … and the end of the model's depth, without repeats."""
    levels = len(model.feature_info)
    taps = min(taps, levels)
    return [-(-levels * (tap + 1) // taps) - 1 for tap in range(taps)]


def normalisation(model: TimmModel, name: str) -> tuple[Tensor, Tensor]:
    """Mean and deviation of what `model` takes, in [0, 1]: each (1, channels, 1, 1).

    Raises ModelWeightsError for a model that takes neither colour nor grey pictures.
    """
    channels = getattr(model, "in_chans", None) or model.pretrained_cfg["input_size"][0]
    if channels not in (1, 3):
        raise ModelWeightsError(
            f"{name!r} takes images of {channels} channels; pictures have 3, or 1 when grey.",
            suggestion="Choose a model for colour or for grey pictures.",
        )
    mean, std = (torch.tensor(model.pretrained_cfg[key]).flatten() for key in ("mean", "std"))
    if len(mean) != channels:
        mean, std = (each.mean().repeat(channels) for each in (mean, std))
    return mean.reshape(1, -1, 1, 1), std.reshape(1, -1, 1, 1)


def _own_side(model: TimmModel) -> int:
    """The side in pixels that the model was trained at."""
    return int(model.pretrained_cfg["input_size"][-1])


def _made_for(model: TimmModel, size: int) -> int | None:
    """The size that the model has to be made for; None if any model of its kind takes `size`."""
    fixed = bool(model.pretrained_cfg.get("fixed_input_size"))
    return size if fixed and size != _own_side(model) else None


def _resizes(model: TimmModel) -> bool:
    """Whether the same weights serve other sizes (those of a token mixer, say, don't)."""
    fixed = bool(model.pretrained_cfg.get("fixed_input_size"))
    return not fixed or hasattr(model, "set_input_size")


def _gives_class_token(model: TimmModel) -> bool:
    """Whether intermediate features come with a class token, first among the prefix tokens."""
    if getattr(model, "cls_token", None) is None or not getattr(model, "num_prefix_tokens", 0):
        return False
    return "return_prefix_tokens" in inspect.signature(model.forward_intermediates).parameters


def _tappable(model: TimmModel, name: str) -> TimmModel:
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "feature_info"):
        raise UnknownModelError(
            f"{name!r} offers no intermediate features, which both stages need.",
            suggestion="Choose a model from the catalog.",
        )
    return model


@torch.no_grad()
def _check_size(
    forward: Any, side: Foundation | Student, device: torch.device, option: str
) -> None:
    own = _own_side(side.model)
    advice = f"Leave it null for its own {own}, or choose" if own != side.size else "Choose"
    try:
        forward(torch.zeros(2, 3, side.size, side.size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise OptionsError(
            f"{side.name!r} can't take images of {side.size} pixels: {weights.first_line(error)}",
            suggestion=f"{advice} another options.{option}, for instance a multiple of 32.",
        ) from error


def as_channels(images: Tensor, channels: int) -> Tensor:
    """RGB (n, 3, h, w) as it is, or in grey for a model of one channel: (n, channels, h, w)."""
    if channels == 3:
        return images
    return (images * images.new_tensor(GREY).view(3, 1, 1)).sum(dim=1, keepdim=True)


def _pool(level: Tensor | Sequence[Tensor]) -> Tensor:
    """(n, c, h, w) or (n, tokens, c) to (n, c); with prefix tokens beside it to (n, c + c)."""
    if isinstance(level, Tensor):
        return level.mean(dim=(2, 3)) if level.ndim == 4 else level.mean(dim=1)
    maps, prefix = level
    return torch.cat([_pool(maps), prefix[:, 0]], dim=1)


def size_warning(foundation_params: int, student_params: int) -> str | None:
    """What to tell a user whose foundation has fewer parameters than the student, or None."""
    if foundation_params >= student_params:
        return None
    return (
        f"The foundation has {foundation_params:,} parameters, fewer than the student's "
        f"{student_params:,}: it may have little to teach. Choose a larger foundation, or a "
        "smaller student."
    )
