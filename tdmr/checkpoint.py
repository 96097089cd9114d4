"""Checkpoints: what a stopped run needs to go on as if it had never stopped.

One file per stage, tensors in safetensors and plain facts in its header; nothing is ever
unpickled. A file is written beside its place, made durable, and renamed: a reader finds the last
complete one or none.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tdmr import failpoint
from tdmr.errors import CheckpointError, Stopped, room_for
from tdmr.jobdir import CHECKPOINT_SECONDS

FORMAT = 1  # of what is in a file; a file of another format is refused


@dataclass(frozen=True)
class Saved:
    """A stage's state: named tensors, and facts such as the step that comes next."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    @property
    def step(self) -> int:
        """The first step that isn't done yet."""
        return int(self.facts["step"])

    @property
    def done(self) -> bool:
        """Whether the stage has ended."""
        return bool(self.facts.get("done"))


@dataclass
class Checkpoints:
    """The checkpoints of one run in `folder`; with None, nothing is kept and nothing is found.

    `owner` says what the run is made of, so that another run's file is never taken for one's own.
    `every` is in seconds; `stopping` is asked after every step. `on_saved` is told the stage, the
    name of its file and the next step, once the file is durable. What `spent` gives is kept in
    each file, and `earlier` is what the last one that was found had. Two processes must not share
    a folder.
    """

    folder: Path | None = None
    owner: str = ""
    every: float = CHECKPOINT_SECONDS
    stopping: Callable[[], bool] = lambda: False
    on_saved: Callable[[str, str, int], None] = lambda stage, name, step: None
    spent: Callable[[], dict[str, Any]] = dict
    earlier: dict[str, Any] = field(default_factory=dict)
    _last: float = field(default_factory=time.monotonic)
    _stages: set[str] = field(default_factory=set)

    def has(self, stage: str) -> bool:
        """Whether there is a file of `stage`, whatever is in it."""
        path = self._path(stage)
        return path is not None and path.exists()

    def find(self, stage: str) -> Saved | None:
        """The last complete state of `stage`, or None.

        Raises CheckpointError for a file that is damaged or another run's.
        """
        path = self._path(stage)
        if path is None or not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {})["facts"])
                whose, form = facts["owner"], facts["format"]
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint {path.name} can't be read: {error}.", suggestion=BEGIN_AGAIN
            ) from error
        if form != FORMAT:
            raise CheckpointError(
                f"The checkpoint {path.name} was written by another version of this program.",
                suggestion=BEGIN_AGAIN,
            )
        if whose != self.owner:
            raise CheckpointError(
                f"The checkpoint {path.name} is that of another run: other options, images or "
                "models.",
                suggestion="Give every run a checkpoint folder of its own, or remove this one.",
            )
        self.earlier.clear()  # in place: copies of this object share it
        self.earlier.update(facts.get("spent", {}))
        return Saved(tensors, facts)

    def after_step(self, stage: str, step: int, state: Callable[[], Mapping[str, Tensor]]) -> None:
        """Save when it is time to, `step` being the next; raise Stopped when asked to stop."""
        stop = self.stopping()
        if self.folder is not None and (stop or time.monotonic() - self._last >= self.every):
            self.save(stage, state(), step=step)
        if stop:
            raise Stopped(stage, step)

    def save(self, stage: str, tensors: Mapping[str, Tensor], *, step: int, **facts: Any) -> None:
        """Replace the stage's checkpoint, durably; a state that isn't finite is passed over.

        Raises DiskFullError when there is no room: the one before it is still there.
        """
        path = self._path(stage)
        if path is None:
            return
        # Safetensors refuses strided and shared memory.
        plain = {name: _plain_copy(tensor) for name, tensor in tensors.items()}
        # The loss isn't looked at in every step: what diverged since must not replace what is good.
        if all(bool(tensor.isfinite().all()) for tensor in plain.values()):
            named = {**facts, "step": step, "spent": self.spent()}
            named |= {"owner": self.owner, "format": FORMAT}
            raw = save(plain, metadata={"facts": json.dumps(named)})
            with room_for("a checkpoint", path.parent, len(raw)):
                _replace(path, raw)
            self.on_saved(stage, path.name, step)
        self._last = time.monotonic()

    def clear(self) -> None:
        """Remove the run's checkpoints, once it has ended well; other files are left alone."""
        for stage in self._stages:
            path = self._path(stage)
            assert path is not None
            path.unlink(missing_ok=True)
            _part(path).unlink(missing_ok=True)
        if self.folder is not None:
            with suppress(OSError):  # it isn't empty, or was never made
                self.folder.rmdir()

    def _path(self, stage: str) -> Path | None:
        if self.folder is None:
            return None
        self._stages.add(stage)
        return self.folder / f"{stage}.safetensors"


NONE = Checkpoints()
BEGIN_AGAIN = "Remove the checkpoint's folder to begin again."


def _plain_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _replace(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = _part(path)
    try:
        with staged.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        failpoint.reached("checkpoint.written")
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
        failpoint.reached("checkpoint.replaced")
    finally:
        os.close(folder)


def module_state(name: str, module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors, their names led by `name`."""
    return {f"{name}.{key}": value for key, value in module.state_dict().items()}


def part(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `module_state` gave for the module `name`, under the module's own names."""
    start = f"{name}."
    return {key.removeprefix(start): t for key, t in tensors.items() if key.startswith(start)}


def restore_module(name: str, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `module_state` gave, in the memory format of the module's own tensors.

    Raises CheckpointError for the tensors of a module that is built otherwise.
    """
    try:
        module.load_state_dict(part(name, tensors))
    except RuntimeError as error:
        raise CheckpointError(
            f"The checkpoint doesn't fit the model: {' '.join(str(error).split())[:300]}.",
            suggestion=BEGIN_AGAIN,
        ) from error


def optimizer_state(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter; its rates are functions of the step and aren't kept."""
    state = optimizer.state_dict()["state"]
    return {
        f"{name}.{place}.{key}": value
        for place, values in state.items()
        for key, value in values.items()
    }


def restore_optimizer(
    name: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_state` gave, in the memory format of the parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        if not key.startswith(f"{name}."):
            continue
        place, entry = key.removeprefix(f"{name}.").split(".")
        parameter = parameters[int(place)]
        if value.ndim:  # a fused step walks parameter and moments by the same strides
            mine = torch.empty_like(parameter).copy_(value)
        else:  # and counts on the parameter's device
            mine = value.to(parameter.device, copy=True)
        optimizer.state[parameter][entry] = mine
