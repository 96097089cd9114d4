"""What an order needs of machines, networks and licences: warnings, for most of it is reckoned."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from app.jobs import fleet, queue
from app.jobs.service import Terms
from app.plans.findings import Finding, warning
from app.settings import Settings
from tdmr import catalog
from tdmr.catalog import CatalogEntry
from tdmr.config import JobSpec
from tdmr.wire.plans import Estimate

PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "cc0-1.0", "cc-by-4.0")
UNKNOWN = (None, "unknown")


def models(spec: JobSpec, *, own_foundation: bool = False) -> Iterator[Finding]:
    """The pair's sizes, their licences, and whether their weights are here.

    An own foundation's weights are here, and under what licence they are its owner knows.
    """
    foundation, student = catalog.find(spec.foundation), catalog.find(spec.student)
    if foundation and student and foundation.params < student.params:
        yield warning(
            "/foundation",
            "foundation_smaller",
            f"The foundation has {foundation.params:,} parameters, the student "
            f"{student.params:,}: it may have little to teach.",
            "Choose a larger foundation or a smaller student.",
        )
    weighed = [] if own_foundation else [("/foundation", foundation)]
    if spec.options.student_pretrained:
        weighed.append(("/student", student))
    for pointer, entry in weighed:
        if entry is not None:
            yield from _licence(pointer, entry)
            yield from _network(pointer, entry)


def _licence(pointer: str, entry: CatalogEntry) -> Iterator[Finding]:
    if entry.licence in PERMISSIVE:
        return
    known = entry.licence not in UNKNOWN
    yield warning(
        pointer,
        "licence_restricted" if known else "licence_unknown",
        f"The weights of {entry.name!r} are under {entry.licence!r}."
        if known
        else f"The licence of {entry.name!r}'s weights isn't known.",
        "Read it before you use the student for more than a try, or choose another model.",
    )


def _network(pointer: str, entry: CatalogEntry) -> Iterator[Finding]:
    if not entry.offline:
        yield warning(
            pointer,
            "needs_network",
            f"The weights of {entry.name!r} aren't part of the service: the worker fetches them "
            "unless it has done so before.",
            "See that the worker reaches the model hub, or choose a model that is `offline`.",
        )


def workers(
    session: Session, terms: Terms, devices: int, settings: Settings, estimate: Estimate | None
) -> Iterator[Finding]:
    """Whether somebody takes the queue's jobs, on devices that they fit on."""
    name = terms.queue
    if name not in settings.queues:
        return
    there = fleet.takers(session, name, queue.LONG, settings.worker_patience)
    if not there:
        yield warning(
            "/queue",
            "no_worker",
            f"No worker takes jobs of the queue {name!r} now: it would wait for one.",
            "Start a worker for it, or choose another queue.",
        )
    elif not (there := [worker for worker in there if devices <= worker.devices]):
        yield warning(
            "/options/devices",
            "no_worker",
            f"No worker of the queue {name!r} has {devices} devices now: it would wait for one.",
            f"Lower options.devices, or start a worker with --devices {devices}.",
        )
    sizes = [worker.memory_bytes for worker in there if worker.memory_bytes is not None]
    needed = estimate.memory_bytes if estimate else None
    if sizes and needed is not None and needed > max(sizes):
        yield warning(
            "/options/training/batch_size",
            "memory",
            f"By a rough estimate it takes {_gib(needed)} of memory; the largest worker's device "
            f"has {_gib(max(sizes))}.",
            "Lower the batch size or the image size. A job that doesn't fit says which does.",
        )


def disk(settings: Settings, estimate: Estimate | None) -> Iterator[Finding]:
    """Whether the cache has room where this server's workers keep theirs."""
    if estimate is None or estimate.cache_bytes is None or estimate.cache == "warm":
        return
    free = shutil.disk_usage(_there(settings.work_dir)).free
    if estimate.cache_bytes > free:
        yield warning(
            "/options/views/count",
            "disk",
            f"By estimate the cache takes {_gib(estimate.cache_bytes)}; {_gib(free)} are free on "
            "the server's disk.",
            "Lower options.views.count, or free some space where the workers are.",
        )


def budget(max_seconds: float | None, estimate: Estimate | None) -> Iterator[Finding]:
    """Whether the work fits into its budget, as far as that is known."""
    least = estimate.low if estimate else None
    if max_seconds is not None and least is not None and least > max_seconds:
        yield warning(
            "/budget/max_seconds",
            "budget_short",
            f"By estimate it takes at least {least:.3g} seconds; {max_seconds:.3g} are allowed.",
            "Allow more, or expect the student so far.",
        )


def _there(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
