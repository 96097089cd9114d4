"""A packaged student's evaluation on a dataset with all three splits; and what stays as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from tdmr.config import ExportOptions, JobSpec
from tdmr.jobdir import Reporter
from tdmr.run import owner
from tdmr.store import ArrayStore
from tdmr.task import prepare
from tests.shapes import draw_dataset
from tests.tdmr.jobs import Jobs

CPU = torch.device("cpu")


def test_the_temperature_is_fitted_on_the_validation_split(spec: JobSpec, tmp_path: Path) -> None:
    data = tmp_path / "data"
    draw_dataset(data, {"train": 4, "val": 5, "test": 3})
    job = Jobs(spec, data, tmp_path).run().job
    found = json.loads((job.out / "evaluation.json").read_text())
    assert (found["split"], found["images"]) == ("test", 9)
    about = found["calibration"]
    assert (about["fitted_on"], about["fitting_images"]) == ("val", 15)
    card = " ".join((job.out / "README.md").read_text().split())
    assert "It was fitted on 15 images of the validation split, which are not among those." in card
    assert (job.out / "exports.json").exists()
    assert not (job.out / "predict_onnx.py").exists()


def test_formats_are_no_matter_of_a_training_s_checkpoints(
    spec: JobSpec, shapes: Path, tmp_path: Path
) -> None:
    """A job that goes on with other formats goes on from the same checkpoint."""
    owners = []
    for formats in ((), ("onnx",)):
        options = spec.options.model_copy(update={"exports": ExportOptions(formats=formats)})
        changed = spec.model_copy(update={"options": options})
        store = ArrayStore(tmp_path / "cache")
        task, _ = prepare(changed, shapes, store, CPU, Reporter(None, ["prepare"]))
        owners.append(owner(task))
    assert owners[0] == owners[1]


def test_an_option_of_a_newer_version_leaves_checkpoints_as_they_are(
    spec: JobSpec, shapes: Path, tmp_path: Path
) -> None:
    class Newer(JobSpec):
        novelty: int = 0

    store = ArrayStore(tmp_path / "cache")
    task, _ = prepare(spec, shapes, store, CPU, Reporter(None, ["prepare"]))
    before, *after = (
        owner(replace(task, spec=each))
        for each in (spec, *(Newer(**dict(spec), novelty=novelty) for novelty in (0, 1)))
    )
    assert [each == before for each in after] == [True, False]
