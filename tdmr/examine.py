"""What is found out about a trained student before it is handed over: evaluation and formats."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tdmr.data.index import DatasetIndex, IndexedImage, load_index
from tdmr.data.pixels import Pixels, decode, pixel_store
from tdmr.errors import DatasetWarning, TrainedResultError
from tdmr.evaluation import pictures, report
from tdmr.evaluation.report import Evaluation, Judged
from tdmr.export import classifier, int8
from tdmr.export.classifier import Classifier
from tdmr.export.publish import Making, publish, steps_of
from tdmr.export.verify import Reference
from tdmr.progress import Steps
from tdmr.store import ArrayStore
from tdmr.trained import Trained

EVALUATION, EXPORTS = "evaluation.json", "exports.json"
WORK = ".work"
CALIBRATION_BATCH = 8


@dataclass(frozen=True)
class Subject:
    """A student that is packaged in `out` (a timm folder), and its dataset in `data`."""

    found: Trained
    out: Path
    data: Path
    store: ArrayStore
    steps: Steps
    warn: Callable[[str], None]


def steps_for(found: Trained) -> int:
    """How many steps `examine` takes."""
    return 1 + steps_of(found.spec.options.exports)


def examine(subject: Subject) -> dict[str, Any]:
    """Evaluate the student, publish its formats; what metrics.json says of both.

    Writes evaluation.json and its pictures, exports.json, and the files of the formats into `out`.
    Raises TrainedResultError for another dataset than that of the training, DatasetError for one
    that can't be read, and what `publish` does.
    """
    index = _index(subject)
    student = classifier.load(subject.out)
    subject.steps.begin()
    pixels = _pixels(subject, index.held_out, student)
    logits = classifier.logits_of(student, pixels, subject.steps.part)
    labels = _labels(index.held_out, index)
    evaluation = _evaluate(subject, index, student, Judged.of(logits, labels, index.held_out))
    student.temperature = evaluation.temperature
    report.write(subject.out / EVALUATION, evaluation.content)
    pictures.draw(evaluation.content, subject.out)
    reference = Reference(student, pixels, labels, logits)
    return {"evaluation": evaluation.summary, "exports": _publish(subject, index, reference)}


def _index(subject: Subject) -> DatasetIndex:
    trained_on = subject.found.metrics["dataset"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)  # the training has told them
        index = load_index(subject.data)
    if (index.version, index.classes) != (trained_on["version"], trained_on["classes"]):
        raise TrainedResultError("The dataset isn't the one that the student was trained on.")
    return index


def _evaluate(
    subject: Subject, index: DatasetIndex, student: Classifier, held_out: Judged
) -> Evaluation:
    """On the held-out split; the temperature is the validation images', where there are others."""
    split, val = index.held_out[0].split, None
    images = index.split("val")
    assert split is not None
    if split != "val" and images:
        logits = classifier.logits_of(student, _pixels(subject, images, student))
        val = Judged.of(logits, _labels(images, index), images)
    return report.evaluate(
        held_out,
        index.classes,
        split=split,
        val=val,
        seed=subject.found.spec.options.seed,
        baselines={
            name: {k: row[k] for k in ("accuracy", "interval", "images")}
            for name, row in subject.found.metrics["baselines"].items()
        },
    )


def _publish(subject: Subject, index: DatasetIndex, reference: Reference) -> dict[str, Any]:
    found, options = subject.found, subject.found.spec.options
    student = reference.classifier

    def calibration() -> list[npt.NDArray[np.float32]]:
        chosen = int8.sample(index.split("train"), options.exports.calibration_images, options.seed)
        pixels = np.stack([decode(subject.data / image.file, student.side) for image in chosen])
        return [batch.numpy() for batch in student.inputs(pixels, CALIBRATION_BATCH)]

    work = subject.out / WORK
    work.mkdir(exist_ok=True)
    making = Making(
        reference=reference,
        out=subject.out,
        work=work,
        facts={
            "classes": found.student.classes,
            "preprocessing": of_exports(found.student.preprocessing),
            "temperature": str(student.temperature),
        },
        calibration=calibration,
        options=options.exports,
    )
    exports = publish(making, subject.steps, subject.warn)
    shutil.rmtree(work)
    return exports


def of_exports(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """How an image becomes the input of an exported format, which normalises it itself."""
    kept = {k: v for k, v in preprocessing.items() if k not in ("mean", "std")}
    return {**kept, "steps": [*preprocessing["steps"][:-1], "divide by 255; channels first"]}


def _pixels(subject: Subject, images: list[IndexedImage], student: Classifier) -> Pixels:
    return pixel_store(subject.data, images, student.side, subject.store, subject.steps.part)


def _labels(images: list[IndexedImage], index: DatasetIndex) -> npt.NDArray[np.int64]:
    places = {name: place for place, name in enumerate(index.classes)}
    return np.array([places[image.label] for image in images], dtype=np.int64)
