"""Which students are worth having: none is both as accurate and as cheap, and better in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from app.models import Student
from app.students import latencies
from tdmr.wire.sweeps import CostAxis, SweepResult, SweepRow


@dataclass(frozen=True)
class Candidate:
    """A student by its figures; None for what wasn't measured."""

    student_id: str
    job_id: str
    student: str
    partial: bool
    accuracy: float | None
    interval: list[float] | None
    params: int | None
    file_bytes: int | None
    latency_p50_ms: float | None
    machine: str | None

    def cost(self, axis: CostAxis) -> float | None:
        """What it costs."""
        return self.latency_p50_ms if axis == "latency_p50_ms" else self.file_bytes


def of_student(student: Student) -> Candidate:
    """A published student's figures."""
    metrics = student.metrics
    measured = latencies.of_student(metrics)
    made = metrics.get("student") or {}
    return Candidate(
        student_id=student.id,
        job_id=student.job_id,
        student=student.architecture,
        partial=student.partial,
        accuracy=metrics.get("accuracy"),
        interval=metrics.get("interval"),
        params=made.get("params"),
        file_bytes=measured.file_bytes if measured else made.get("bytes"),
        latency_p50_ms=measured.p50_ms if measured else None,
        machine=measured.machine if measured else None,
    )


def table(candidates: Sequence[Candidate]) -> SweepResult:
    """The candidates, the most accurate first, and which of them are on the front.

    One cost for all: latencies compare on one machine alone, and only where all have one.
    """
    machines = {each.machine for each in candidates}
    axis: CostAxis = (
        "latency_p50_ms" if len(machines) == 1 and None not in machines else "file_bytes"
    )
    best = front([_point(each, axis) for each in candidates])
    rows = [
        SweepRow(**asdict(each), on_front=on_front)
        for each, on_front in zip(candidates, best, strict=True)
    ]
    return SweepResult(cost=axis, rows=sorted(rows, key=lambda row: -(row.accuracy or 0.0)))


Point = tuple[float, float]  # accuracy and cost


def front(points: Sequence[Point | None]) -> list[bool]:
    """Of each point, whether no other is as good in both and better in one; None never is."""
    known = [each for each in points if each is not None]
    return [each is not None and not any(_beats(other, each) for other in known) for each in points]


def _beats(other: Point, one: Point) -> bool:
    return other != one and other[0] >= one[0] and other[1] <= one[1]


def _point(each: Candidate, axis: CostAxis) -> Point | None:
    """None where one of both isn't known."""
    cost = each.cost(axis)
    return None if each.accuracy is None or cost is None else (each.accuracy, cost)
