"""An old order with changes: what a retry asks for."""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from app.api.schemas import JobIn
from app.models import Job


def patched(job: Job, changes: dict[str, Any]) -> JobIn:
    """The order that `job` was, with a JSON merge patch (RFC 7396) applied.

    A null takes a field back to its default. Raises RequestValidationError for an order that
    can't be taken, as if it had come as a body.
    """
    order = {
        **job.spec,
        "dataset_id": job.dataset_id,
        "priority": job.priority,
        "queue": job.queue,
        "budget": None if job.max_seconds is None else {"max_seconds": job.max_seconds},
    }
    try:
        return JobIn.model_validate(merge(order, changes))
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        raise RequestValidationError(found) from error


def merge(target: Any, patch: Any) -> Any:
    """RFC 7396: objects are merged, null removes a member, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged
