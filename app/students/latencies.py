"""How fast models are, as machines have measured it: written once, and compared on one machine.

Functions with a session work in the caller's transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db import now
from app.models import Json, Latency

CPU = "cpu"  # the only device that formats are measured on


@dataclass(frozen=True)
class Measured:
    """Milliseconds of single images through an ONNX file, and what they belong to."""

    machine: str
    device: str
    model: str
    input_size: int
    p50_ms: float
    p95_ms: float
    file_bytes: int
    params: int
    runtime: str


def of_command(found: Json) -> Measured:
    """What `tdmr latency` printed."""
    return _measured(found["model"], found["input_size"], found["params"], found, found["machine"])


def of_student(metrics: Json) -> Measured | None:
    """What a packaged student's metrics say of its model.onnx; None where there is none."""
    exports = metrics.get("exports") or {}
    row = exports.get("formats", {}).get("onnx", {})
    if not row.get("published") or not row.get("latency"):
        return None
    student = metrics["student"]
    return _measured(
        student["architecture"], student["input_size"], student["params"], row, exports["machine"]
    )


def _measured(model: str, size: int, params: int, row: Json, machine: Json) -> Measured:
    """`row` has the file's `bytes` and `latency`, as rows of exports.json do."""
    latency = row["latency"]
    threads = latency["threads"]
    return Measured(
        machine=name_of(machine),
        device=CPU,
        model=model,
        input_size=size,
        p50_ms=latency["p50_ms"],
        p95_ms=latency["p95_ms"],
        file_bytes=row["bytes"],
        params=params,
        runtime=f"onnxruntime {machine['onnxruntime']}, {_count(threads, 'thread')}",
    )


def name_of(machine: Json) -> str:
    """A machine by what its speed depends on (`tdmr.export.machine`), not by its own name."""
    return f"{machine['cpu']}, {_count(machine['cores'], 'core')}, {machine['system']}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def record(session: Session, measured: Measured, owner: str | None) -> bool:
    """Write a measurement down unless there is one already; whether it was written."""
    row = Latency(
        id=identity(measured, owner), owner=owner, measured_at=now(session), **asdict(measured)
    )
    with suppress(IntegrityError), session.begin_nested():  # another may write the same one now
        session.add(row)
        session.flush()
        return True
    return False


def forget(session: Session, measured: Measured, owner: str | None) -> None:
    """Remove the measurement that stands in the way of a newer one."""
    row = session.get(Latency, identity(measured, owner))
    if row is not None:
        session.delete(row)
        session.flush()


def identity(measured: Measured, owner: str | None) -> str:
    """One row for each owner, machine, device, model and size."""
    what: Sequence[Any] = (measured.machine, measured.device, measured.model, measured.input_size)
    return hashlib.sha256(repr((owner, *what)).encode()).hexdigest()


def known(session: Session, owner: str | None) -> list[Latency]:
    """What an owner may know of: the catalog's and their own; the oldest first."""
    query = select(Latency).where(or_(Latency.owner.is_(None), Latency.owner == owner))
    return list(session.scalars(query.order_by(Latency.measured_at, Latency.id)))
