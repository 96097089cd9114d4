"""The one training loop: TDMR and every baseline pass through it with the same budget.

Each step is a pure function of the seed and the step's number: which images, which views, and
what dropout does. So a run that was stopped at any step and resumed gives the same weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from tdmr import checkpoint
from tdmr.checkpoint import Checkpoints, Saved
from tdmr.config import TrainingOptions
from tdmr.data.pixels import Pixels
from tdmr.distributed import World
from tdmr.errors import NonFiniteLossError
from tdmr.feed import Batch, Feed, TrainingSet, clean_batches
from tdmr.losses import as_numbers
from tdmr.models import Student, StudentOutput
from tdmr.optim import adamw, set_rate, update_average

OnStep = Callable[[int, int, dict[str, float]], None]
CHECK_EVERY = 10  # steps between two looks at the losses: a look waits for the device
RECALIBRATION_BATCH = 256


class Objective(Protocol):
    """What a student is trained for: named parts, of which `loss` is the one minimised."""

    stored_views: bool  # True: replays the views of the cache; False: fresh ones each time

    def modules(self) -> list[nn.Module]:
        """What is trained beside the student, and never exported."""

    def __call__(self, batch: Batch, output: StudentOutput, t: float) -> dict[str, Tensor]:
        """The parts of the loss at progress `t` in [0, 1)."""

    def logits(self, output: StudentOutput) -> Tensor:
        """What the trained student is judged by: (n, classes)."""


class OwnHead:
    """Judged by the student's own classifier, with nothing trained beside the student."""

    def modules(self) -> list[nn.Module]:
        """Nothing beside the student."""
        return []

    def logits(self, output: StudentOutput) -> Tensor:
        """The student's own."""
        return output.logits


def train(
    student: Student,
    data: TrainingSet,
    objective: Objective,
    options: TrainingOptions,
    *,
    seed: int,
    stage: str,
    on_step: OnStep = lambda step, steps, losses: None,
    checkpoints: Checkpoints = checkpoint.NONE,
) -> Student:
    """Train `student`, and give back its averaged, recalibrated self, in eval mode.

    The objective's own modules hold their averages afterwards. With `checkpoints`, goes on from
    the stage's last one. Of several processes (`tdmr.distributed`) all must call it, and the main
    one reports. Raises NonFiniteLossError with its step (the loss is looked at every few steps),
    OptionsError for a batch that the processes can't share, and Stopped.
    """
    world = World.current()
    checkpoints = world.shared(checkpoints)
    run = _Run(student, objective, options, world, seed)
    first = run.resume(checkpoints, stage)
    with run.feed(data) as feed:
        for step in range(first, options.steps):
            parts = run.step(feed.batch(step), step)
            if step % CHECK_EVERY == 0 or step == options.steps - 1:
                numbers = as_numbers(parts)
                if not math.isfinite(numbers["loss"]):
                    raise NonFiniteLossError(stage, step, numbers, options.learning_rate)
                if world.main:
                    on_step(step + 1, options.steps, {**numbers, **run.measures()})
            if step + 1 < options.steps:
                checkpoints.after_step(stage, step + 1, run.state)
    return run.finish(data.pixels, checkpoints, stage)


def rehearse(
    student: Student,
    data: TrainingSet,
    objective: Objective,
    options: TrainingOptions,
    *,
    seed: int,
) -> None:
    """Do what needs the most memory in `train` of one process; `student` is of no use afterwards.

    The second step has the optimiser's moments beside its activations. Halfway through, all terms
    of every schedule count. Nothing is compiled: that takes minutes, and saves memory.
    """
    run = _Run(student, objective, options.model_copy(update={"compile": False}), World(), seed)
    with run.feed(data) as feed:
        for number in range(2):
            run.step(feed.batch(number), options.steps // 2)
    recalibrate(student, data.pixels[:RECALIBRATION_BATCH])


def restored(student: Student, objective: Objective, saved: Saved, pixels: Pixels) -> Student:
    """What `train` would have given back, had it ended where `saved` was saved.

    The objective's own modules are given their averages. Raises CheckpointError where the state
    is that of other modules.
    """
    student.make_room_for(checkpoint.part("average.0", saved.tensors))
    student.to(memory_format=torch.channels_last)
    for place, module in enumerate([student, *objective.modules()]):
        checkpoint.restore_module(f"average.{place}", module, saved.tensors)
        module.eval()
    recalibrate(student, pixels)
    return _fit_for_use(student)


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """What the student computes in on `device`, other than fp32; None: nothing but fp32.

    `precision` is that of the options. A GPU that only emulates bf16 is no faster with it.
    """
    if precision == "auto":
        on_gpu = device.type == "cuda"
        wanted = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if wanted else None
    return torch.bfloat16 if precision == "bf16" else None


class _Run:
    """What a training carries from step to step."""

    def __init__(
        self,
        student: Student,
        objective: Objective,
        options: TrainingOptions,
        world: World,
        seed: int,
    ) -> None:
        student.to(memory_format=torch.channels_last)
        self.objective = objective
        self.options = options
        self.world = world
        self.seed = seed
        self.done = False
        self.device = student.mean.device
        self.trained = nn.ModuleList([student, *objective.modules()]).train()
        self.optimizer = adamw(self.trained, options.weight_decay)
        self.average = copy.deepcopy(self.trained).requires_grad_(False)
        # Listed once: to walk the modules takes as long as to average their weights.
        self.averages: list[Tensor] = list(self.average.parameters())
        self.weights: list[Tensor] = list(self.trained.parameters())
        world.normalise_together(student)
        self.student = torch.compile(student, dynamic=False) if options.compile else student

    def feed(self, data: TrainingSet) -> Feed:
        """The batches of all steps."""
        return Feed(
            data,
            batch_size=self.options.batch_size,
            steps=self.options.steps,
            stored_views=self.objective.stored_views,
            seed=self.seed,
            device=self.device,
            rows=self.world.part(self.options.batch_size),
        )

    def step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Do step `step`; the parts of its loss."""
        torch.manual_seed(self.seed * 1_000_003 + step)
        output = self.forward(batch.pixels)
        parts = self.objective(batch, output, step / self.options.steps)
        self.update(parts["loss"], step)
        self.seen = output.detached(), batch.labels
        return parts

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        """What is told of the last step beside its losses; accuracy is that on its own batch."""
        output, labels = self.seen
        right = self.objective.logits(output).argmax(1) == labels.argmax(1)
        rate = float(self.optimizer.param_groups[0]["lr"])
        return {"accuracy": right.float().mean().item(), "learning_rate": rate}

    def forward(self, pixels: Tensor) -> StudentOutput:
        """What the student says of the whole batch, in fp32; `pixels` are this process's."""
        dtype = autocast_type(self.options.precision, self.device)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            output = self.student(pixels)
        rows = [part.float() for part in (output.logits, output.read, *output.taps)]
        if self.world.size > 1:
            widths = [part.shape[1] for part in rows]
            rows = list(torch.split(self.world.gather(torch.cat(rows, dim=1)), widths, dim=1))
        logits, read, *taps = rows
        return StudentOutput(logits, taps, read)

    def update(self, loss: Tensor, step: int) -> None:
        """Go down the gradient of step `step`, and renew the averages."""
        options = self.options
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own has no types
        self.world.average(self.trained.parameters())
        set_rate(self.optimizer, step, options.steps, options.learning_rate, options.warmup)
        self.optimizer.step()
        update_average(self.averages, self.weights, options.ema, step)

    def state(self) -> dict[str, Tensor]:
        return {
            **checkpoint.module_state("trained", self.trained),
            **checkpoint.module_state("average", self.average),
            **checkpoint.optimizer_state("optimizer", self.optimizer),
        }

    def resume(self, checkpoints: Checkpoints, stage: str) -> int:
        """Take up the stage's last state; give the step that comes next."""
        saved = checkpoints.find(stage)
        if saved is None:
            return 0
        checkpoint.restore_module("average", self.average, saved.tensors)
        if not saved.done:
            checkpoint.restore_module("trained", self.trained, saved.tensors)
            checkpoint.restore_optimizer("optimizer", self.optimizer, saved.tensors)
        self.done = saved.done
        return saved.step

    def finish(self, pixels: Pixels, checkpoints: Checkpoints, stage: str) -> Student:
        """The averaged student, fit for use."""
        with torch.no_grad():
            for mine, averaged in zip(list(self.trained)[1:], list(self.average)[1:], strict=True):
                mine.load_state_dict(averaged.state_dict())
                mine.eval()
        average = self.average[0]
        assert isinstance(average, Student)
        recalibrate(average, pixels)
        if not self.done:
            state = checkpoint.module_state("average", self.average)
            checkpoints.save(stage, state, step=self.options.steps, done=True)
        return _fit_for_use(average)


def _fit_for_use(average: Student) -> Student:
    average.fold()
    # Safetensors refuses the strides that training was fast with.
    return average.to(memory_format=torch.contiguous_format).eval()


@torch.no_grad()
def recalibrate(student: Student, pixels: Pixels, batch_size: int = RECALIBRATION_BATCH) -> None:
    """Recompute BatchNorm statistics on clean training images, which are what it will be shown."""
    norms = [m for m in student.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    student.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
        norm.train()
    for images in clean_batches(pixels, batch_size, student.mean.device):
        if len(images) > 1 or len(pixels) == 1:
            student(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    student.eval()
