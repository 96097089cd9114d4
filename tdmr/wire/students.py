"""Students, their files and their predictions."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from tdmr.wire.base import Moment, Out


class FileOut(Out):
    """A file of a student."""

    name: str
    bytes: int
    sha256: str
    media_type: str
    url: str


class StudentSummary(Out):
    """A student, in a list."""

    id: str
    job_id: str
    dataset_id: str
    dataset_version: str
    foundation: str
    architecture: str
    accuracy: float | None
    interval: list[float] | None = Field(description="95 % interval of the accuracy.")
    params: int | None
    partial: bool = Field(description="Its training ended early: the best that there was.")
    created_at: Moment


class StudentOut(StudentSummary):
    """A student: how good it is, against what, and its files."""

    baselines: dict[str, Any]
    metrics: dict[str, Any]
    files: list[FileOut]
    archive_url: str


class ClassProbability(Out):
    """A class, and how probable it is by the student's calibrated judgement."""

    name: str
    probability: float


class PredictionOut(Out):
    """What one image shows: the most probable class first."""

    classes: list[ClassProbability]


class PredictionsOut(Out):
    """A student's answers, in the order of the images."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "student_id": "stu_01aa5b3c1d2e0123456789abcdef01",
                    "file": "model.onnx",
                    "temperature": 1.37,
                    "predictions": [
                        {
                            "classes": [
                                {"name": "cat", "probability": 0.93125},
                                {"name": "dog", "probability": 0.06875},
                            ]
                        }
                    ],
                }
            ]
        },
    )

    student_id: str
    file: str = Field(description="Which of the student's files has answered.")
    temperature: float = Field(description="What the logits were divided by before the softmax.")
    predictions: list[PredictionOut]
