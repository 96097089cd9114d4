"""An order: looked at without a trace, or checked by the same checks and placed."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.access import quotas
from app.jobs import service
from app.jobs.idempotency import Idempotency
from app.jobs.service import View
from app.models import Job
from app.plans import checks, estimates
from app.plans.checks import Order
from app.plans.findings import Finding
from app.settings import Settings
from tdmr.wire.plans import DryRunOut, Estimate


def dry_run(session: Session, owner: str, order: Order, settings: Settings) -> DryRunOut:
    """Everything there is to say of an order, errors first. Writes nothing."""
    found = checks.certain(session, owner, order, settings)
    estimate = estimated(session, owner, order, settings) if not _unknown(found) else None
    ok = not found
    found += checks.possible(session, owner, order, estimate, settings)
    return DryRunOut(ok=ok, findings=[each.out() for each in found], estimate=estimate)


def place(
    session: Session,
    *,
    owner: str,
    order: Order,
    metadata: dict[str, str],
    idempotency: Idempotency,
    settings: Settings,
    retry_of: Job | None = None,
) -> View:
    """Queue a job.

    Raises QuotaExceededError, UnknownModelError, InvalidError or DatasetNotReadyError: that of
    the gravest finding, which tells of the others too.
    """
    quotas.alone(session, owner)
    checks.refuse(checks.certain(session, owner, order, settings))
    return service.create(
        session,
        owner=owner,
        dataset_id=order.dataset_id,
        spec=order.spec,
        terms=order.terms,
        metadata=metadata,
        idempotency=idempotency,
        settings=settings,
        retry_of=retry_of,
        estimate=estimates.kept(estimated(session, owner, order, settings)),
    )


def estimated(session: Session, owner: str, order: Order, settings: Settings) -> Estimate | None:
    """What an order will take."""
    dataset = checks.dataset_of(session, owner, order.dataset_id)
    if dataset is None:
        return None
    return estimates.make(session, order.spec, dataset, order.terms.queue, settings)


def _unknown(found: list[Finding]) -> bool:
    return any(each.code == "unknown_model" for each in found)
