"""The workers: which are there, what each takes, and when it was last heard of."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db import now
from app.models import Worker


def contradiction(device: str, devices: int) -> str | None:
    """What is wrong with a worker's device and their number, if anything is."""
    if devices > 1 and ":" in device:
        return (
            f"--devices {devices} needs --device cuda, cpu or auto: CUDA_VISIBLE_DEVICES says which"
        )
    return None


def report(
    session: Session,
    worker: str,
    *,
    host: str,
    pid: int,
    device: str,
    queues: list[str],
    kinds: list[str],
    memory_bytes: int | None = None,
    devices: int = 1,
) -> None:
    """Note that `worker` is there."""
    moment = now(session)
    row = session.get(Worker, worker)
    if row is None:
        row = Worker(id=worker, started_at=moment)
        session.add(row)
    row.host, row.pid, row.device, row.queues, row.kinds = host, pid, device, queues, kinds
    row.seen_at, row.memory_bytes, row.devices = moment, memory_bytes, devices


def leave(session: Session, worker: str) -> None:
    """Note that `worker` is gone."""
    session.execute(delete(Worker).where(Worker.id == worker))


def forget(session: Session, patience: float) -> None:
    """Forget the workers that weren't heard of for `patience` seconds."""
    past = now(session) - timedelta(seconds=patience)
    session.execute(delete(Worker).where(Worker.seen_at < past))


def present(session: Session, patience: float) -> list[Worker]:
    """The workers heard of in the last `patience` seconds."""
    past = now(session) - timedelta(seconds=patience)
    return list(session.scalars(select(Worker).where(Worker.seen_at >= past).order_by(Worker.id)))


def takers(
    session: Session, queue: str, kind: str, patience: float, devices: int = 1
) -> list[Worker]:
    """The workers that are there and take such jobs, on so many devices."""
    return [
        worker
        for worker in present(session, patience)
        if queue in worker.queues and kind in worker.kinds and devices <= worker.devices
    ]
