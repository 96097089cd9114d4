"""What the demo says at its end: a table for people, and a report for machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from tdmr.client import Job, Student

ROWS = {
    "probe": "foundation's probe",
    "scratch": "student alone",
    "kd": "plain distillation",
}


def report(student: Student, job: Job, bundle: Path, seconds: float) -> dict[str, Any]:
    """The content of demo/report.json."""
    metrics = student.metrics
    return {
        **{name: metrics["baselines"][name]["accuracy"] for name in ROWS},
        "tdmr": metrics["accuracy"],
        "interval": metrics["interval"],
        "student_params": metrics["student"]["params"],
        "student_bytes": metrics["student"]["bytes"],
        "seconds": round(seconds, 1),
        "job_id": job.id,
        "bundle": str(bundle),
    }


def table(metrics: dict[str, Any]) -> Table:
    """Held-out accuracy, size and time of the student and of what it is compared with."""
    shown = Table(
        "model", "accuracy", "95 % interval", "params", "file", "seconds",
        title=f"{metrics['images']} held-out images, {metrics['dataset']['train_images']} to train",
    )  # fmt: skip
    student, foundation = metrics["student"], metrics["foundation"]
    ours = {**metrics, "seconds": metrics["seconds"]["total"]}
    rows = [(label, metrics["baselines"][name]) for name, label in ROWS.items()]
    for label, row in [*rows, ("TDMR student", ours)]:
        of = foundation if label == ROWS["probe"] else student
        low, high = row["interval"]
        style = "bold" if row is ours else None
        shown.add_row(
            label,
            f"{row['accuracy']:.3f}",
            f"{low:.3f}-{high:.3f}",
            f"{of['params']:,}",
            f"{of['bytes'] / 1e6:.2f} MB",
            f"{row['seconds']:.1f}",
            style=style,
        )
    return shown
