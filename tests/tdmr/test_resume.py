"""A run that was stopped at any step and gone on with equals one that wasn't, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from torch import Tensor

import tdmr
from tdmr import checkpoint, training
from tdmr.baselines import Scratch
from tdmr.cache import ViewFeatures
from tdmr.checkpoint import Checkpoints
from tdmr.config import (
    DistillOptions,
    ExportOptions,
    JobSpec,
    ReprogramOptions,
    TrainingOptions,
    ViewOptions,
)
from tdmr.errors import CheckpointError, Stopped
from tdmr.jobdir import ProgressLine, Reporter
from tdmr.methods import train_method
from tdmr.models import Student
from tdmr.reprogram import Teacher
from tdmr.store import ArrayStore
from tdmr.task import Task, cache_views, prepare, teach

STEPS = 5
SIDE = 32
CPU = torch.device("cpu")


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, strides and bytes."""
    hashed = sha256()
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name} {tensor.dtype} {tensor.stride()} ".encode())
        hashed.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


@dataclass
class Recorder(Checkpoints):
    """Remembers the whole state after every step, and stops before step `stop`."""

    stop: int | None = None
    seen: dict[int, str] = field(default_factory=dict)

    def after_step(self, stage: str, step: int, state: Callable[[], Mapping[str, Tensor]]) -> None:
        self.seen[step] = digest(state())
        self.stopping = lambda: step == self.stop
        super().after_step(stage, step, state)


Train = Callable[[Checkpoints], str]


def same_after_every_stop(run: Train, folder: Path) -> bool:
    """Stop `run` before each step in turn, go on, and compare every state from there on."""
    whole = Recorder()
    final = run(whole)
    assert list(whole.seen) == list(range(1, STEPS))
    for stop in range(1, STEPS):
        kept = folder / str(stop)
        with pytest.raises(Stopped) as stopped:
            run(Recorder(kept, stop=stop))
        assert stopped.value.step == stop
        rest = Recorder(kept)
        left = {step: seen for step, seen in whole.seen.items() if step > stop}
        if run(rest) != final or rest.seen != left:
            return False
    return True


@pytest.fixture(scope="module")
def job(foundation_folder: Path) -> JobSpec:
    return JobSpec(
        foundation=f"local-dir:{foundation_folder}",
        student="test_resnet",
        options=DistillOptions(
            image_size=SIDE,
            views=ViewOptions(count=2),
            reprogram=ReprogramOptions(mode="trained", proxy_dim=16, steps=STEPS, batch_size=8),
            training=TrainingOptions(steps=STEPS, batch_size=7),
            exports=ExportOptions(formats=()),
            audit=False,
        ),
    )


@pytest.fixture(scope="module")
def stage_1(
    job: JobSpec, shapes: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Task, ViewFeatures, Teacher]:
    silent = Reporter(None, ["prepare"])
    store = ArrayStore(tmp_path_factory.mktemp("cache"))
    made, _ = prepare(job, shapes, store, CPU, silent)
    features = cache_views(made, store, silent)
    return made, features, teach(made, features, silent)


def test_stage_1(stage_1: tuple[Task, ViewFeatures, Teacher], tmp_path: Path) -> None:
    made, features, _ = stage_1

    def run(checkpoints: Checkpoints) -> str:
        teacher = teach(made, features, Reporter(None, ["prepare"]), checkpoints)
        heads = {"ridge": teacher.ridge.full.weight, "probe": teacher.probe.full.weight}
        return digest({**teacher.space.state_dict(), **heads})

    assert same_after_every_stop(run, tmp_path)


@pytest.mark.parametrize(
    ("method", "student"),
    [
        ("distil", "test_resnet"),
        ("distil", "test_vit"),
        ("distil", "test_coatnet"),
        ("scratch", "test_efficientnet"),
        ("kd", "test_resnet"),
        ("kd_online", "test_vit"),
        ("fitnet", "test_resnet"),
        ("simkd", "test_vit"),
        ("aft", "test_resnet"),
        ("rd", "test_resnet"),
    ],
)
def test_stage_2_and_every_baseline(
    stage_1: tuple[Task, ViewFeatures, Teacher], tmp_path: Path, method: str, student: str
) -> None:
    made, _, teacher = stage_1
    made = replace(made, spec=made.spec.model_copy(update={"student": student}))

    def run(checkpoints: Checkpoints) -> str:
        trained = train_method(method, made, teacher, checkpoints=checkpoints)
        states = [trained.student.state_dict()]
        states += [module.state_dict() for module in trained.objective.modules()]
        return digest({f"{n}.{k}": t for n, state in enumerate(states) for k, t in state.items()})

    assert same_after_every_stop(run, tmp_path)


@pytest.mark.parametrize("student", ["test_resnet", "test_vit", "test_coatnet"])
def test_stage_2_with_a_reused_head(
    stage_1: tuple[Task, ViewFeatures, Teacher], tmp_path: Path, student: str
) -> None:
    made, _, teacher = stage_1
    distil = made.options.distil.model_copy(update={"head": "reused"})
    options = made.options.model_copy(update={"distil": distil})
    spec = made.spec.model_copy(update={"student": student, "options": options})
    made = replace(made, spec=spec)

    def run(checkpoints: Checkpoints) -> str:
        trained = train_method("distil", made, teacher, checkpoints=checkpoints)
        return digest(trained.student.state_dict())

    assert same_after_every_stop(run, tmp_path)


def noisy(made: Task, name: str) -> Train:
    """A training with dropout and stochastic depth."""

    def run(checkpoints: Checkpoints) -> str:
        torch.default_generator.manual_seed(0)
        model = timm.create_model(
            name, num_classes=3, img_size=SIDE, drop_rate=0.3, drop_path_rate=0.5
        )
        trained = training.train(
            Student(model, name, SIDE, 4),
            made.training_set(),
            Scratch(0.1),
            made.options.training,
            seed=0,
            stage="scratch",
            checkpoints=checkpoints,
        )
        return digest(trained.state_dict())

    return run


@pytest.mark.parametrize("name", ["test_vit", "test_coatnet"])
def test_dropout_and_stochastic_depth(
    stage_1: tuple[Task, ViewFeatures, Teacher], tmp_path: Path, name: str
) -> None:
    assert same_after_every_stop(noisy(stage_1[0], name), tmp_path)


def forget_optimizer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint, "restore_optimizer", lambda name, optimizer, tensors: None)


def forget_average(patch: pytest.MonkeyPatch) -> None:
    restore = checkpoint.restore_module

    def some(name: str, *rest: Any) -> None:
        if name != "average":
            restore(name, *rest)

    patch.setattr(checkpoint, "restore_module", some)


def forget_step(patch: pytest.MonkeyPatch) -> None:
    find = Checkpoints.find

    def without(self: Checkpoints, stage: str) -> checkpoint.Saved | None:
        saved = find(self, stage)
        return saved and checkpoint.Saved(saved.tensors, {**saved.facts, "step": saved.step - 1})

    patch.setattr(Checkpoints, "find", without)


def seed_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch, "manual_seed", lambda seed: None)


@pytest.mark.parametrize("harm", [forget_optimizer, forget_average, forget_step, seed_once])
def test_the_comparison_notices_what_is_missing(
    stage_1: tuple[Task, ViewFeatures, Teacher],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[pytest.MonkeyPatch], None],
) -> None:
    run = noisy(stage_1[0], "test_vit")
    harm(monkeypatch)
    assert run(Checkpoints()) == run(Checkpoints())  # nothing but a stop makes the difference
    assert not same_after_every_stop(run, tmp_path)


def weights(bundle: Path) -> str:
    return sha256((bundle / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def distil(job: JobSpec, shapes: Path, tmp_path: Path) -> Callable[..., tdmr.Distilled]:
    def call(**changes: Any) -> tdmr.Distilled:
        arguments = {
            "foundation": job.foundation,
            "student": job.student,
            "out": tmp_path / "out",
            "options": job.options,
            "baselines": ["kd"],
            "cache": tmp_path / "cache",
            "checkpoint": tmp_path / "checkpoint",
            "device": "cpu",
            **changes,
        }
        return tdmr.distill(arguments.pop("data", shapes), **arguments)

    return call


class UnpluggedError(Exception):
    """What no code expects."""


def unplug_in(stage: str) -> Callable[[ProgressLine], None]:
    def hear(line: ProgressLine) -> None:
        if line.stage and line.stage.name == stage:
            raise UnpluggedError

    return hear


def test_the_same_call_goes_on(distil: Callable[..., tdmr.Distilled], tmp_path: Path) -> None:
    whole = distil(out=tmp_path / "whole", checkpoint=None, cache=tmp_path / "other")
    assert not (tmp_path / "checkpoint").exists()
    with pytest.raises(UnpluggedError):
        distil(on_progress=unplug_in("kd"))
    assert not (tmp_path / "out").exists()
    spent = Checkpoints(tmp_path / "checkpoint", owner_of(tmp_path / "checkpoint"))
    spent.find("distil")
    lines: list[ProgressLine] = []
    rest = distil(on_progress=lines.append)
    assert weights(rest.bundle) == weights(whole.bundle)
    assert (
        rest.metrics["baselines"]["kd"]["accuracy"] == whole.metrics["baselines"]["kd"]["accuracy"]
    )
    steps = {line.stage.name for line in lines if line.stage and line.step}
    assert "kd" in steps
    assert not steps & {"reprogram", "distil"}  # they were done
    assert not (tmp_path / "checkpoint").exists()
    # What both processes did: every view once, and the live check of what was stored.
    assert whole.metrics["foundation"]["forwards"] == spent.earlier["forwards"] == 36
    assert rest.metrics["foundation"]["forwards"] == 36 + 1
    before, after = spent.earlier["seconds"], rest.metrics["seconds"]
    assert list(before) == ["prepare", "cache", "reprogram", "distil"]
    assert all(after[stage] > before[stage] > 0 for stage in before)
    assert after["total"] >= sum(before[s] for s in ("cache", "reprogram", "distil"))


def owner_of(folder: Path) -> str:
    with safe_open(folder / "distil.safetensors", framework="pt") as file:
        owner: str = json.loads(file.metadata()["facts"])["owner"]
    return owner


def another_seed(job: JobSpec, shapes: Path, folder: Path) -> dict[str, Any]:
    return {"options": job.options.model_copy(update={"seed": 1})}


def another_student(job: JobSpec, shapes: Path, folder: Path) -> dict[str, Any]:
    return {"student": "test_vit"}


def other_images(job: JobSpec, shapes: Path, folder: Path) -> dict[str, Any]:
    for path in shapes.rglob("*.png"):
        target = folder / path.relative_to(shapes)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name != "0.png" or path.parts[-3] == "test":
            target.write_bytes(path.read_bytes())
    return {"data": folder}


def other_weights(job: JobSpec, shapes: Path, folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file, save_file

    old = Path(job.foundation.removeprefix("local-dir:"))
    state = load_file(old / "model.safetensors")
    name = sorted(state)[0]
    save_file({**state, name: state[name] + 1}, folder / "model.safetensors")
    (folder / "config.json").write_bytes((old / "config.json").read_bytes())
    return {"foundation": f"local-dir:{folder}"}


@pytest.mark.parametrize("change", [another_seed, another_student, other_images, other_weights])
def test_a_checkpoint_of_another_run_is_refused(
    distil: Callable[..., tdmr.Distilled],
    job: JobSpec,
    shapes: Path,
    tmp_path: Path,
    change: Callable[[JobSpec, Path, Path], dict[str, Any]],
) -> None:
    with pytest.raises(UnpluggedError):
        distil(on_progress=unplug_in("distil"))
    (tmp_path / "other").mkdir()
    with pytest.raises(CheckpointError, match="another run"):
        distil(**change(job, shapes, tmp_path / "other"))
    assert (tmp_path / "checkpoint" / "reprogram.safetensors").exists()
