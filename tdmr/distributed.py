"""Several processes that train one student: each forwards its share of every batch.

torchrun starts them; without it there is one, and nothing here costs anything. The rows that the
student gives are gathered before the objective sees them, so that losses of the whole batch are
those of one process, and so are the averaged gradients. BatchNorm alone differs on CPUs, where
each process normalises its own share; on GPUs its statistics are those of the whole batch.
Dropout draws the same masks for every share.
"""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from tdmr.checkpoint import Checkpoints, Saved
from tdmr.errors import OptionsError

# Others wait while the first shows every view to the foundation. torchrun ends them if it fails.
PATIENCE = timedelta(days=30)
RENDEZVOUS = "TDMR_RENDEZVOUS"  # a file to meet at, for processes that open no port for it


@dataclass(frozen=True)
class World:
    """The processes of a run: this one is number `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """The world that this process has joined, or that of one process."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def main(self) -> bool:
        """Whether this process is the one that reports, and that writes files."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """This process's rows of a batch. Raises OptionsError where not all would get as many."""
        if batch_size % self.size:
            raise OptionsError(
                f"A batch of {batch_size} images can't be shared by {self.size} processes.",
                suggestion="Make options.training.batch_size a multiple of their number.",
            )
        rows = batch_size // self.size
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) of all processes in order: (size * n, ...), with gradients.

        The gradient is right behind `average`, and if every process computes the same loss.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self)
        return gathered

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their means over all processes."""
        gradients = [p.grad for p in parameters if p.grad is not None] if self.size > 1 else []
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        means = torch.split(flat.div_(self.size), [g.numel() for g in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def normalise_together(self, module: nn.Module) -> None:
        """Let the BatchNorm layers inside a module on a GPU see all processes' rows."""
        on_gpu = any(p.is_cuda for p in module.parameters())
        if self.size > 1 and on_gpu:
            for name, child in list(module.named_children()):
                converted = convert_sync_batchnorm(child)  # type: ignore[no-untyped-call]  # torch's own has no types
                setattr(module, name, converted)

    def any(self, flag: bool) -> bool:
        """Whether any process says yes."""
        if self.size == 1:
            return flag
        flags = torch.tensor([float(flag)])
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags.item())

    def barrier(self) -> None:
        """Wait for all processes."""
        self.any(False)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run a block in the main process, then in the others, which find what it has stored."""
        if not self.main:
            self.barrier()
        yield
        if self.main:
            self.barrier()

    def shared(self, checkpoints: Checkpoints) -> Checkpoints:
        """The same checkpoints, written by one process, and stopped at the same step in all.

        `find` and `after_step` must then be called by all.
        """
        if self.size == 1:
            return checkpoints

        def stopping() -> bool:
            return self.any(checkpoints.stopping())

        kept = {field.name: getattr(checkpoints, field.name) for field in fields(Checkpoints)}
        every = checkpoints.every if self.main else math.inf
        return _Shared(**{**kept, "every": every, "stopping": stopping}, world=self)


@dataclass
class _Shared(Checkpoints):
    world: World = field(default_factory=World)

    def find(self, stage: str) -> Saved | None:
        """What the main process wrote last; it has written it."""
        self.world.barrier()
        return super().find(stage)

    def save(self, stage: str, tensors: Mapping[str, Tensor], *, step: int, **facts: Any) -> None:
        """In the main process alone."""
        if self.world.main:
            super().save(stage, tensors, step=step, **facts)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        ctx.world = world
        parts = [torch.empty_like(rows) for _ in range(world.size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        world: World = ctx.world
        # Every process has the whole gradient and passes back its own rows', so that the sum over
        # processes is what is wanted. `average` divides by the size: right for modules that see
        # the gathered rows, whose gradients all processes share, and made up for here.
        return gradient[world.part(len(gradient))] * world.size, None


def launched() -> bool:
    """Whether torchrun started this process, and others with it."""
    return dist.is_available() and dist.is_torchelastic_launched() and _number("WORLD_SIZE") > 1


def local_device(device: torch.device) -> torch.device:
    """This process's own GPU where torchrun started several; otherwise `device`."""
    if device.type == "cuda" and launched():
        return torch.device("cuda", _number("LOCAL_RANK"))
    return device


def join(device: torch.device) -> World:
    """Enter the world that torchrun started this process in, once; alone without it."""
    if launched() and not dist.is_initialized():
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        # Flags and barriers are on the CPU: they must not wait for the GPU.
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        rank, size, file = _number("RANK"), _number("WORLD_SIZE"), os.environ.get(RENDEZVOUS)
        # Without a file, at torchrun's own port.
        store = dist.FileStore(file, size) if file else None  # type: ignore[attr-defined]  # torch's stubs leave it out
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return World.current()


def _number(name: str) -> int:
    return int(os.environ.get(name, "0"))
