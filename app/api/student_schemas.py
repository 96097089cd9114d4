"""What comes out where students are used, and where they are recommended."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from app.api.schemas import ModelOut, Moment, Out


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
        extra="forbid",
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


class LatencyOut(Out):
    """How fast a model is: single images through its ONNX file."""

    p50_ms: float
    p95_ms: float
    input_size: int
    machine: str
    device: str
    runtime: str
    measured_at: Moment


class ReasonOut(Out):
    """How a model stands to one limit."""

    limit: Literal["max_params", "max_latency_ms", "max_file_bytes"]
    allowed: float
    found: float | None = Field(description="Null: not measured yet.")
    fits: bool | None = Field(description="Null: not measured yet.")
    detail: str


class RecommendedOut(Out):
    """A model, and whether it fits."""

    rank: int
    model: ModelOut
    verdict: Literal["fits", "does_not_fit", "not_measured"]
    reasons: list[ReasonOut]
    latency: LatencyOut | None = Field(description="Null: not measured yet.")
    file_bytes: int | None = Field(description="Of the measured ONNX file.")


class RecommendationsOut(Out):
    """Students ranked: those that fit by their p50, then those that don't, then the unmeasured."""

    machine: str | None = Field(description="Where they were measured; null: nowhere yet.")
    machines: list[str] = Field(description="All machines that there are measurements of.")
    data: list[RecommendedOut]
