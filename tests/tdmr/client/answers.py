"""Answers of the service, as JSON."""

from __future__ import annotations

import hashlib
from typing import Any

from tdmr.config import DistillOptions

MOMENT = "2026-11-21T10:00:00.000Z"


def job(status: str = "running", **more: Any) -> dict[str, Any]:
    """A job."""
    return {
        "id": "job_1",
        "dataset_id": "ds_1",
        "status": status,
        "foundation": "letters_vit",
        "student": "test_resnet",
        "options": DistillOptions().model_dump(mode="json"),
        "baselines": ["scratch"],
        "metadata": {},
        "stage": {"name": "distil", "index": 4, "count": 6, "progress": 0.5},
        "step": 10,
        "steps": 20,
        "losses": {"loss": 1.5},
        "eta_seconds": 3.0,
        "queue": "default",
        "queue_position": None,
        "waiting_reason": None,
        "priority": 0,
        "budget": {"max_seconds": 60.0},
        "spent_seconds": 4.0,
        "checkpoint": {"stage": "distil", "step": 8},
        "attempt": 1,
        "max_attempts": 3,
        "failure": None,
        "student_id": None,
        "partial": None,
        "retry_of": None,
        **dict.fromkeys(("created_at", "started_at"), MOMENT),
        **dict.fromkeys(("ended_at", "cancel_requested_at", "pause_requested_at")),
        **more,
    }


def student(**files: bytes) -> dict[str, Any]:
    """A student with these files."""
    rows = [
        {
            "name": name,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "media_type": "application/octet-stream",
            "url": f"/v1/students/stu_1/files/{name}",
        }
        for name, data in files.items()
    ]
    return {
        "id": "stu_1",
        "job_id": "job_1",
        "dataset_id": "ds_1",
        "dataset_version": "1" * 64,
        "foundation": "letters_vit",
        "architecture": "test_resnet",
        "accuracy": 0.9,
        "interval": [0.8, 0.95],
        "params": 1000,
        "partial": False,
        "created_at": MOMENT,
        "baselines": {},
        "metrics": {},
        "files": rows,
        "archive_url": "/v1/students/stu_1/archive",
    }


def dataset(status: str = "ready") -> dict[str, Any]:
    """A dataset."""
    return {
        "id": "ds_1",
        "name": "shapes",
        "status": status,
        "version": "1" * 64,
        "upload_bytes": 10,
        "upload_sha256": "2" * 64,
        "created_at": MOMENT,
        "settled_at": MOMENT,
        "classes": [{"name": "circle", "images": 3}],
        "splits": {"train": {"circle": 3}},
        "findings": [
            {"code": "few_images", "severity": "warning", "detail": "Few.", "advice": "Add some."}
        ],
        "check": {
            "status": "succeeded",
            "stage": {"name": "write", "index": 2, "count": 2, "progress": 1.0},
            "eta_seconds": None,
            "attempt": 1,
        },
    }


def event(seq: int, type_: str = "progress") -> dict[str, Any]:
    """An entry of a job's log."""
    return {"seq": seq, "at": MOMENT, "type": type_, "data": {"step": seq}}


def page(*rows: Any, cursor: str | None = None, more: bool = False) -> dict[str, Any]:
    """A page of a list."""
    return {"data": list(rows), "has_more": more, "next_cursor": cursor}
