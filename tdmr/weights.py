"""Where a model comes from, and whether its weights fit it.

A model is named in one of four ways:

    vit_small_patch14_dinov2.lvd142m    a timm name; its weights are the hub's
    local-dir:FOLDER                    a timm folder: config.json and model.safetensors
    safetensors:ARCHITECTURE@FILE       a timm architecture, with or without a tag, which tells
                                        size, mean and deviation; and a file of weights for it
    mod_…                               a foundation of one's own that a server has, in a job of
                                        that server's (`tdmr.own`)

Weights on this machine are read from safetensors alone, and must fit in every name, shape and kind
of number: only a classifier may be absent, or be more than is asked for.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor

from tdmr import catalog, own
from tdmr.errors import ModelWeightsError, OptionsError, UnknownModelError, is_out_of_memory

# timm's models have methods and attributes that `nn.Module` doesn't declare.
TimmModel = Any
State = dict[str, Tensor]

FOLDER, FILE = "local-dir:", "safetensors:"
SHOWN = 4  # names that an error lists
# What timm resamples to another image size; every other shape must be as it is.
RESAMPLED = re.compile(r"pos|attention_bias|rel_|relative_")


@dataclass(frozen=True)
class Source:
    """A model that was named and found, though not read yet.

    `name` is what the user wrote, `reference` what timm makes the architecture from. `file` holds
    the weights, None for the hub's. `channels` is what the file's own first layer takes, where it
    isn't what the architecture says.
    """

    name: str
    role: catalog.Role
    reference: str
    file: Path | None = None
    channels: int | None = None

    @property
    def called(self) -> str:
        """What errors call its file: the path where the user gave it, and never the server's."""
        return self.name if own.is_own(self.name) else str(self.file)

    @property
    def advice(self) -> str:
        """What to change where the weights don't fit."""
        if own.is_own(self.name):
            return "Upload it with the architecture that they were saved from."
        if self.name.startswith(FILE):
            return f"Name the architecture that they were saved from: {FILE}ARCHITECTURE@FILE."
        return "Correct `architecture` or `model_args` in config.json, or save the weights again."


def locate(name: str, role: catalog.Role) -> Source:
    """Find what `name` stands for.

    Raises UnknownModelError for a name that timm doesn't know, and ModelWeightsError for a folder
    or file that isn't there or can't be read.
    """
    if name.startswith(FILE):
        return _file(name, role)
    if role == "foundation" and own.is_own(name):
        return _own(name)
    reference = name if name.startswith(FOLDER) else catalog.require(name, role)
    if reference.startswith(FOLDER):
        return Source(name, role, reference, _folder(Path(reference.removeprefix(FOLDER))))
    return Source(name, role, reference)


def create(source: Source, classes: int, *, weights: bool, size: int | None = None) -> TimmModel:
    """The timm model, with its weights or with random ones (drawn from torch's generator).

    `classes` is 0 for none; `size`, in pixels, is for models that are made for one image size.
    Raises ModelWeightsError, and OptionsError for a size that the model can't be made for.
    """
    arguments: dict[str, Any] = {"img_size": size, "in_chans": source.channels}
    arguments = {key: value for key, value in arguments.items() if value is not None}
    published = weights and source.file is None
    try:
        model: TimmModel = timm.create_model(
            source.reference, pretrained=published, num_classes=classes, **arguments
        )
    except (OSError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise _unavailable(source, error) from error
    except (TypeError, ValueError, KeyError, AssertionError, ZeroDivisionError) as error:
        if size is None:
            raise _unavailable(source, error) from error
        raise OptionsError(
            f"{source.name!r} can't be made for images of {size} pixels: {first_line(error)}",
            suggestion="Leave its size open, or choose another multiple of 32.",
        ) from error
    if weights and source.file is not None:
        fit(model, read(source.file, source.called), source, size)
    if weights:
        _require_finite(model, source)
    return model


def read(file: Path, called: str) -> State:
    """Every tensor of a safetensors file; errors call it `called`. Raises ModelWeightsError."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise _unreadable(called, error) from error


def fit(model: TimmModel, state: State, source: Source, size: int | None = None) -> None:
    """Load `state` into `model`; raise ModelWeightsError unless names, shapes and types are right.

    A classifier that is absent stays random, one that is too much or of another number of classes
    is left out. What depends on the image's size is resampled by timm, for some models; `size` is
    what was asked for.
    """
    state = _without_classifier(clean_state_dict(state), model)
    optional = _of_classifier(model)
    if _differences(model, state, optional):
        state = _converted(model, state)
    if differing := _differences(model, state, optional) or _of_another_kind(model, state):
        more = f"; and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise ModelWeightsError(
            f"The weights of {source.name!r} don't fit {_architecture(model)}: "
            f"{'; '.join(differing[:SHOWN])}{more}.",
            suggestion=source.advice if size is None else f"Leave its size open. {source.advice}",
        )
    model.load_state_dict(state, strict=False)


def _folder(folder: Path) -> Path:
    """The weights' file of a timm folder whose config.json can be used."""
    config, file = folder / "config.json", folder / "model.safetensors"
    if not config.is_file():
        raise ModelWeightsError(
            f"{str(folder)!r} isn't a timm folder: it holds no config.json.",
            suggestion="Point to a folder with config.json and model.safetensors.",
        )
    if not file.is_file():
        raise ModelWeightsError(
            f"{str(folder)!r} holds no model.safetensors; no other format is loaded.",
            suggestion="Save the weights with safetensors.torch.save_file.",
        )
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelWeightsError(
            f"{str(config)!r} isn't JSON: {first_line(error)}",
            suggestion="Write the folder again with timm.models.save_for_hf.",
        ) from error
    architecture = found.get("architecture") if isinstance(found, dict) else None
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        said = f"names {architecture!r}, which timm doesn't know" if architecture else "names none"
        raise ModelWeightsError(
            f"{str(config)!r} must name a timm architecture, and {said}.",
            suggestion='Add "architecture", for instance "vit_small_patch16_224".',
        )
    return file


def _file(name: str, role: catalog.Role) -> Source:
    reference, at, path = name.removeprefix(FILE).partition("@")
    if not (reference and at and path):
        raise ModelWeightsError(
            f"{name!r} doesn't name an architecture and a file.",
            suggestion=f"Write {FILE}ARCHITECTURE@FILE, as in {FILE}resnet18@weights.safetensors.",
        )
    try:
        catalog.require(reference, "student")  # which asks for no published weights
    except UnknownModelError as error:
        raise UnknownModelError(
            f"{reference!r}, named in {name!r}, isn't a timm architecture that offers taps.",
            suggestion=error.suggestion,
        ) from error
    file = Path(path)
    if not file.is_file():
        raise ModelWeightsError(
            f"There is no file {path!r}.", suggestion="Correct the path behind the @."
        )
    return Source(name, role, reference, file, _grey(reference, file, path))


def _own(name: str) -> Source:
    found = own.find(name)
    if found is None:
        raise UnknownModelError(
            f"{name!r} is a server's name for uploaded weights, and they aren't here.",
            suggestion=f"Order the job from that server, or name {FILE}ARCHITECTURE@FILE.",
        )
    reference = found.about.architecture
    return Source(name, "foundation", reference, found.file, _grey(reference, found.file, name))


def _grey(reference: str, file: Path, called: str) -> int | None:
    """1 where the file's first layer takes a single channel; None where it says nothing."""
    config = timm.models.get_pretrained_cfg(reference)
    first = getattr(config, "first_conv", None)
    layer = first if isinstance(first, str) or not first else first[0]
    try:
        with safe_open(file, "pt") as tensors:
            if f"{layer}.weight" not in tensors.keys():  # noqa: SIM118 - it isn't a mapping
                return None
            shape = tensors.get_slice(f"{layer}.weight").get_shape()
    except (SafetensorError, OSError) as error:
        raise _unreadable(called, error) from error
    return 1 if len(shape) == 4 and shape[1] == 1 else None


def _without_classifier(state: State, model: TimmModel) -> State:
    """Drop what belongs to a classifier that `model` hasn't, or has for other classes."""
    expected = model.state_dict()
    # Where there are no classes, timm also does without some norms beside the classifier.
    headless = getattr(model, "num_classes", 0) == 0
    owners = [name.split(".")[0] if headless else name for name in _classifiers(model)]

    def kept(name: str, tensor: Tensor) -> bool:
        if not name.startswith(tuple(f"{owner}." for owner in owners)):
            return True
        return name in expected and (headless or expected[name].shape == tensor.shape)

    return {name: tensor for name, tensor in state.items() if kept(name, tensor)}


def _classifiers(model: TimmModel) -> list[str]:
    named = model.pretrained_cfg.get("classifier") or ()
    return [named] if isinstance(named, str) else list(named)


def _of_classifier(model: TimmModel) -> set[str]:
    """The names in `model` that it wouldn't have without classes."""
    headless = copy.deepcopy(model) if getattr(model, "num_classes", 0) else model
    if headless is not model:
        headless.reset_classifier(0)
    return set(model.state_dict()) - set(headless.state_dict())


def _differences(model: TimmModel, state: State, optional: set[str]) -> list[str]:
    """What is missing, of another shape, or too much, in words."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return [
        f"{name}: expected {expected.get(name, 'none')}, found {found.get(name, 'none')}"
        for name in [*expected, *(name for name in found if name not in expected)]
        if expected.get(name) != found.get(name) and not (name in optional and name not in found)
    ]


def _of_another_kind(model: TimmModel, state: State) -> list[str]:
    """Where whole numbers stand for real ones, as in quantised weights, in words."""
    return [
        f"{name}: expected floating-point numbers, found {str(state[name].dtype)[6:]}"
        for name, tensor in model.state_dict().items()
        if name in state and tensor.is_floating_point() and not state[name].is_floating_point()
    ]


def _converted(model: TimmModel, state: State) -> State:
    """`state` as timm's own filter for this family makes it: older names, another image size."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        converted: State = convert(dict(state), model)
    except (RuntimeError, LookupError, ValueError, AttributeError, TypeError, AssertionError):
        return state  # the caller says what doesn't fit, in better words
    reshaped = {
        name: state[name]
        for name, tensor in converted.items()
        if name in state and tensor.shape != state[name].shape and not RESAMPLED.search(name)
    }
    return _without_classifier({**converted, **reshaped}, model)


def _require_finite(model: TimmModel, source: Source) -> None:
    bad = [
        name
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if bad:
        raise ModelWeightsError(
            f"The weights of {source.name!r} aren't finite numbers: "
            f"{', '.join(bad[:SHOWN])} ({len(bad)} in all).",
            suggestion="Save them again from a training that didn't diverge.",
        )


def _unavailable(source: Source, error: Exception) -> ModelWeightsError:
    suggestion = (
        f"Check the network, or name weights that are here: {FOLDER}FOLDER, or "
        f"{FILE}ARCHITECTURE@FILE."
    )
    if source.role == "student":
        suggestion = "Leave student_pretrained off, or check the network."
    if source.file is not None:
        suggestion = source.advice
    return ModelWeightsError(
        f"The {source.role} {source.name!r} can't be loaded: {first_line(error)}",
        suggestion=suggestion,
    )


def _unreadable(called: str, error: Exception) -> ModelWeightsError:
    return ModelWeightsError(
        f"{called!r} can't be read as safetensors: {first_line(error)}",
        suggestion="Copy the file again, or save it again with safetensors.torch.save_file.",
    )


def _architecture(model: TimmModel) -> str:
    return str(model.pretrained_cfg.get("architecture") or type(model).__name__)


def first_line(error: Exception) -> str:
    """What an error says, in at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
