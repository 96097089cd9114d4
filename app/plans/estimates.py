"""How long an order will take, by what finished jobs took; and how good such estimates were.

Nothing is invented: what no finished job tells of has no seconds. A stage's seconds per unit are
those of jobs with the same model at the same size; without any, those of the nearest models, scaled
by GMACs. All work in the caller's transaction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.db import new_id, now
from app.foundations import service as foundations
from app.jobs import fleet, queue
from app.models import Dataset, Job, Json
from app.plans import load as loads
from app.plans.load import Load
from app.plans.tables import Throughput
from app.settings import Settings
from tdmr import catalog
from tdmr.config import MAX_DEVICES, JobSpec
from tdmr.stages import OURS, trained
from tdmr.wire.plans import Basis, Estimate, JobEstimate, StageEstimate

REST = "rest"
OF_FOUNDATION = ("prepare", "cache", "reprogram", REST)
# Trained like ours, with another loss; online distillation runs the foundation as well.
LIKE_OURS = ("scratch", "kd", "fitnet", "simkd", "aft", "rd")
NEWEST, OTHERS, NEAREST = 20, 200, 5  # measurements that are looked at; of others, the nearest
HISTORY = 1000
ENOUGH = 3
# How far from what was measured an estimate may be: by enough of the same, by few, by others.
SURE, FAIR, VAGUE = 1.25, 1.5, 3.0


@dataclass(frozen=True)
class Stage:
    """A stage to come: which model it runs on what, and how much of it."""

    name: str
    model: str
    side: int | None
    batch_size: int
    units: int

    @property
    def weight(self) -> float | None:
        """What a unit costs against others'; None for a model of unknown size."""
        return _weight(self.name, self.model, self.side, self.batch_size)


def make(
    session: Session,
    spec: JobSpec,
    dataset: Dataset,
    queue_name: str,
    settings: Settings,
    *,
    warm: bool = False,
) -> Estimate | None:
    """What an order would take; None where models or dataset aren't known.

    `warm` says that another job will have filled the cache by then.
    """
    load, ordered = loads.of(spec, dataset), spec
    spec = foundations.as_known(session, dataset.owner, spec)
    if load is None or None in (catalog.find(spec.foundation), catalog.find(spec.student)):
        return None
    devices = spec.options.devices
    kind, where = _kind(session, queue_name, devices, settings)
    device = None if kind is None else _named(kind, devices)
    key = loads.views_key(ordered, dataset, load)
    warm = warm or _was_shown(session, key, kind)
    found = [_stage(session, each, device) for each in stages(spec, load, warm=warm)]
    counted = [each.measurements for each in found if each.units]
    return Estimate(
        seconds=_total([each.seconds for each in found]),
        low=_total([each.low for each in found]),
        high=_total([each.high for each in found]),
        measurements=min(counted),
        basis=_weakest(each.basis for each in found),
        stages=found,
        foundation_forwards=0 if warm else load.shown,
        other_forwards=loads.other_forwards(spec, load),
        cache="warm" if warm else "cold",
        cache_bytes=loads.entry_bytes(spec, load, _bytes_of_a_view(session, spec)),
        memory_bytes=loads.memory_bytes(spec),
        assumes=[WARM if warm else COLD, where, APART],
    )


WARM = "The features are in the cache already; a worker on another machine has to make them anew."
COLD = "The cache is cold: the foundation is shown every view."
SHARED = (
    "The first job fills the cache for the others; on another machine each has to fill it anew."
)
APART = "Waiting in the queue and packaging the student come on top."


def stages(spec: JobSpec, load: Load, *, warm: bool = False) -> list[Stage]:
    """The stages of an order, in their order, with what each has to do."""
    training = spec.options.training
    foundation = (spec.foundation, loads.foundation_side(spec), 0)
    student = (spec.student, loads.student_side(spec), training.batch_size)
    shown = load.shown
    return [
        Stage("prepare", *foundation, load.images),
        Stage("cache", *foundation, 0 if warm else shown),
        Stage("reprogram", *foundation, shown),
        *(Stage(name, *student, training.steps) for name in trained(spec.baselines)),
        Stage(REST, *foundation, 1),
    ]


def total(found: Sequence[Estimate]) -> Estimate:
    """What jobs that are ordered together take in all: one that finds the cache warm adds none."""
    names = dict.fromkeys(stage.stage for each in found for stage in each.stages)
    merged = [
        _merged([stage for each in found for stage in each.stages if stage.stage == name])
        for name in names
    ]
    cold = [each for each in found if each.cache == "cold"]
    bytes_ = [each.cache_bytes for each in cold or found[:1]]
    memory = [each.memory_bytes for each in found if each.memory_bytes is not None]
    said = [line for each in found for line in each.assumes]
    return Estimate(
        seconds=_total([each.seconds for each in found]),
        low=_total([each.low for each in found]),
        high=_total([each.high for each in found]),
        measurements=min(each.measurements for each in found),
        basis=_weakest(each.basis for each in found),
        stages=merged,
        foundation_forwards=sum(each.foundation_forwards for each in found),
        other_forwards=sum(each.other_forwards for each in found),
        cache="cold" if cold else "warm",
        cache_bytes=None if None in bytes_ else sum(each or 0 for each in bytes_),
        memory_bytes=max(memory, default=None),
        assumes=[*dict.fromkeys(SHARED if cold and line == WARM else line for line in said)],
    )


def _merged(stages: Sequence[StageEstimate]) -> StageEstimate:
    """One stage of many jobs."""
    return StageEstimate(
        stage=stages[0].stage,
        units=sum(each.units for each in stages),
        seconds=_total([each.seconds for each in stages]),
        low=_total([each.low for each in stages]),
        high=_total([each.high for each in stages]),
        measurements=min((each.measurements for each in stages if each.units), default=0),
        basis=_weakest(each.basis for each in stages),
    )


def _weakest(found: Iterable[Basis]) -> Basis:
    order: tuple[Basis, ...] = ("none", "scaled", "same")
    return min(found, key=order.index)


def kept(estimate: Estimate | None) -> Json | None:
    """What a job's row keeps of its estimate."""
    if estimate is None:
        return None
    names = set(JobEstimate.model_fields) - {"actual_seconds", "error"}
    return JobEstimate(**estimate.model_dump(include=names)).model_dump(mode="json")


def record(session: Session, job: Job, metrics: Json) -> None:
    """Write down what each stage of a job that is trained took, and how far its estimate was off.

    `metrics` are the job's own (`tdmr.run.conclude`). What was gone on with, or found in the cache,
    says nothing of a whole stage, and isn't written.
    """
    actual = round(job.spent_seconds, 3)
    if job.estimate is not None and actual > 0:
        seconds = job.estimate["seconds"]
        job.estimate_error = None if seconds is None else round(seconds / actual - 1, 4)
        more = {"actual_seconds": actual, "error": job.estimate_error}
        job.estimate = {**job.estimate, **more}
    took = {name: s for name, s in metrics.get("seconds", {}).items() if name != "total"}
    if took and job.attempt == 1 and job.retry_of is None:
        _write(session, job, metrics, {**took, REST: actual - sum(took.values())})
    session.flush()


def _write(session: Session, job: Job, metrics: Json, took: dict[str, float]) -> None:
    ordered, dataset = JobSpec.model_validate(job.spec), session.get_one(Dataset, job.dataset_id)
    spec = foundations.as_known(session, job.owner, ordered)
    load, cache, moment = loads.of(spec, dataset), metrics["cache"], now(session)
    if load is None:
        return
    sides = {True: metrics["foundation"]["input_size"], False: metrics["student"]["input_size"]}
    for stage in stages(spec, load):
        seconds, made = took.get(stage.name, 0.0), stage.name == "cache"
        if seconds <= 0 or (made and cache["reused"]):
            continue
        session.add(
            Throughput(
                id=new_id("thr"),
                job_id=job.id,
                device=_named(metrics["device"], spec.options.devices),
                stage=stage.name,
                model=stage.model,
                side=sides[stage.name in OF_FOUNDATION],
                batch_size=stage.batch_size,
                units=stage.units,
                seconds=seconds,
                entry_bytes=cache["bytes"] if made else None,
                views_key=loads.views_key(ordered, dataset, load) if made else None,
                measured_at=moment,
            )
        )


def history(session: Session, owner: str, before: str | None, limit: int) -> list[Job]:
    """An owner's jobs whose estimate has met them, the newest first, beginning behind `before`."""
    query = select(Job).where(Job.owner == owner, Job.estimate_error.is_not(None))
    if before is not None:
        query = query.where(Job.id < before)
    return list(session.scalars(query.order_by(Job.id.desc()).limit(limit)))


def count(session: Session, owner: str) -> int:
    """How many such jobs there are."""
    met = select(func.count()).where(Job.owner == owner, Job.estimate_error.is_not(None))
    return session.scalar(met) or 0


def errors(session: Session, owner: str) -> list[float]:
    """The relative errors of an owner's newest estimates."""
    query = select(Job.estimate_error).where(Job.owner == owner, Job.estimate_error.is_not(None))
    found = session.scalars(query.order_by(Job.id.desc()).limit(HISTORY))
    return [error for error in found if error is not None]


def _named(kind: str, devices: int) -> str:
    """What measurements call so many devices of a kind: they tell nothing of other numbers."""
    return kind if devices == 1 else f"{kind} x {devices}"


def _kind(
    session: Session, queue_name: str, devices: int, settings: Settings
) -> tuple[str | None, str]:
    """The kind of device that a job will run on, None if nobody can tell, and that in words."""
    workers = fleet.takers(session, queue_name, queue.LONG, settings.worker_patience, devices)
    kinds = {worker.device.partition(":")[0] for worker in workers}
    if len(kinds) == 1 and "auto" not in kinds:
        (kind,) = kinds
        return kind, f"It runs on {kind}, as the workers of this queue say."
    newest = session.scalar(
        select(Throughput.device).order_by(Throughput.measured_at.desc(), Throughput.id).limit(1)
    )
    if newest is None:
        return None, "No job has been measured on this service yet."
    kind = newest.partition(" ")[0]
    return kind, f"It runs on {kind}, as the last job did: the workers don't say."


def _was_shown(session: Session, key: str, kind: str | None) -> bool:
    """Whether a job on such devices, however many, has left these views' features in the cache."""
    names = [] if kind is None else [_named(kind, n) for n in range(1, MAX_DEVICES + 1)]
    made = select(Throughput.id).where(Throughput.views_key == key, Throughput.device.in_(names))
    return session.scalar(made.limit(1)) is not None


def _bytes_of_a_view(session: Session, spec: JobSpec) -> float | None:
    """Bytes of one view's features, by the newest job that stored this foundation's."""
    row = session.execute(
        select(Throughput, Job.spec)
        .join(Job, Job.id == Throughput.job_id)
        .where(Throughput.stage == "cache", Throughput.model == spec.foundation)
        .order_by(Throughput.measured_at.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    measured, then = row[0], JobSpec.model_validate(row[1]).options.reprogram.taps
    each: float = (measured.entry_bytes or 0) / measured.units
    return each / then * spec.options.reprogram.taps


def _stage(session: Session, stage: Stage, device: str | None) -> StageEstimate:
    if stage.units == 0:
        return _said(stage, [0.0], "same", 1.0)
    of_model = [Throughput.model == stage.model, Throughput.batch_size == stage.batch_size]
    if stage.side is not None:
        of_model.append(Throughput.side == stage.side)
    same = _newest(session, stage.name, device, NEWEST, *of_model)
    if same:
        each = [row.seconds / row.units for row in same]
        return _said(stage, each, "same", SURE if len(each) >= ENOUGH else FAIR)
    others = _newest(session, stage.name, device, OTHERS)
    if not others and stage.name in LIKE_OURS:
        others = _newest(session, OURS, device, OTHERS)
    scaled = _scaled(others, stage)
    return _said(stage, scaled, "scaled" if scaled else "none", VAGUE)


def _newest(
    session: Session, name: str, device: str | None, limit: int, *which: ColumnElement[bool]
) -> Sequence[Throughput]:
    query = select(Throughput).where(Throughput.stage == name, Throughput.device == device, *which)
    return session.scalars(query.order_by(Throughput.measured_at.desc()).limit(limit)).all()


def _scaled(rows: Sequence[Throughput], stage: Stage) -> list[float]:
    """Seconds per unit by the models nearest in cost, as if this one cost as much per GMAC."""
    wanted = stage.weight
    if not wanted:
        return []
    found = []
    for row in rows:
        weight = _weight(stage.name, row.model, row.side, row.batch_size)
        if weight:
            ratio = wanted / weight
            found.append((abs(math.log(ratio)), row.seconds / row.units * ratio))
    return [each for _, each in sorted(found)[:NEAREST]]


def _weight(stage: str, model: str, side: int | None, batch_size: int) -> float | None:
    """GMACs of a unit. What isn't a model's work, such as decoding, weighs the same for all."""
    if stage in OF_FOUNDATION and stage != "cache":
        return 1.0
    each = None if side is None else loads.gmacs(model, side)
    return None if each is None else each * max(batch_size, 1)


def _said(stage: Stage, each: list[float], basis: Basis, margin: float) -> StageEstimate:
    """`each` are seconds per unit; nothing measured is said to be so."""
    counted = len(each) if stage.units else 0
    if not each:
        return StageEstimate(
            stage=stage.name,
            units=stage.units,
            seconds=None,
            low=None,
            high=None,
            measurements=0,
            basis="none",
        )
    return StageEstimate(
        stage=stage.name,
        units=stage.units,
        seconds=round(median(each) * stage.units, 3),
        low=round(min(each) / margin * stage.units, 3),
        high=round(max(each) * margin * stage.units, 3),
        measurements=counted,
        basis=basis,
    )


def _total(parts: list[float | None]) -> float | None:
    """The sum; None where a part isn't known."""
    known = [part for part in parts if part is not None]
    return round(sum(known), 3) if len(known) == len(parts) else None
