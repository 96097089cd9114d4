"""What a training leaves: a folder that a bundle is made from, without training or foundation.

model.safetensors    the student's weights, as the bundle has them
trained.json         a `Trained`: whatever else the bundle needs

Loading this module loads no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tdmr.config import JobSpec
from tdmr.errors import TrainedResultError

if TYPE_CHECKING:
    from tdmr.models import Student

WEIGHTS, RECORD = "model.safetensors", "trained.json"
COLOURS = {1: "grey (luma, as Pillow's mode L)", 3: "RGB"}
CHUNK = 1 << 20


class Export(BaseModel):
    """A student on disk: size and SHA-256 of its weights, and what else makes a model of them.

    `timm` is the timm folder's config.json, `preprocessing` how an image becomes the model's input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: int
    sha256: str
    timm: dict[str, Any]
    preprocessing: dict[str, Any]
    classes: list[str]


class Trained(BaseModel):
    """trained.json: the student, the job that it was made by, and how good it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    student: Export
    spec: JobSpec
    metrics: dict[str, Any]


def export(student: Student, folder: Path, classes: Sequence[str]) -> Export:
    """Write the student's weights into `folder`, and say what makes a model of them."""
    from timm.models import save_for_hf

    folder.mkdir(parents=True, exist_ok=True)
    mean, std = (buffer.flatten().tolist() for buffer in (student.mean, student.std))
    data = {
        "input_size": (student.channels, student.size, student.size),
        "mean": tuple(round(value, 6) for value in mean),
        "std": tuple(round(value, 6) for value in std),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    save_for_hf(
        student.model.cpu().eval(),
        str(folder),
        model_config={"label_names": list(classes)},
        data_config=data,
        safe_serialization=True,
    )
    config = folder / "config.json"
    timm = json.loads(config.read_bytes())
    config.unlink()
    steps = [
        f"apply the EXIF orientation and convert to {COLOURS[student.channels]}",
        f"resize the shorter side to {student.size} pixels, bicubic with antialiasing",
        f"crop the centre to {student.size} x {student.size}",
        "divide by 255, subtract `mean`, divide by `std`; channels first",
    ]
    weights = folder / WEIGHTS
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Export(
        bytes=weights.stat().st_size,
        sha256=digest,
        timm=timm,
        preprocessing={"steps": steps, **data},
        classes=list(classes),
    )


def complete(folder: Path, student: Export, spec: JobSpec, metrics: dict[str, Any]) -> None:
    """Add to `folder`, which has the student's weights, all the rest."""
    trained = Trained(student=student, spec=spec, metrics=metrics)
    (folder / RECORD).write_text(trained.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Trained:
    """What trained.json says. Raises TrainedResultError where it, or the weights, can't be it."""
    path = folder / RECORD
    try:
        found = Trained.model_validate_json(path.read_bytes())
        size = (folder / WEIGHTS).stat().st_size
    except OSError as error:
        name = Path(error.filename or folder).name
        raise TrainedResultError(f"{name} can't be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("trained", *map(str, first["loc"])))
        raise TrainedResultError(f"{RECORD} is damaged: {where}: {first['msg']}.") from error
    if size != found.student.bytes:
        raise TrainedResultError(
            f"{WEIGHTS} is damaged: it has {size:,} bytes instead of {found.student.bytes:,}."
        )
    return found


def copy_weights(
    folder: Path, student: Export, target: Path, on_bytes: Callable[[int, int], None]
) -> None:
    """Copy the weights of `student` in `folder` to the file `target`.

    `on_bytes(done, total)` is told of every piece. Raises TrainedResultError where they are others.
    """
    digest, done = hashlib.sha256(), 0
    with (folder / WEIGHTS).open("rb") as source, target.open("wb") as copy:
        while piece := source.read(CHUNK):
            digest.update(piece)
            copy.write(piece)
            done += len(piece)
            on_bytes(done, student.bytes)
    if digest.hexdigest() != student.sha256:
        raise TrainedResultError(f"{WEIGHTS} is damaged: its SHA-256 is another one.")
