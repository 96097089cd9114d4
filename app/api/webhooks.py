"""/v1/webhook-endpoints: where you want to be told of what happens, and what was told there."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Query, Response
from pydantic import ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.access.scopes import Scope
from app.api import idempotency, pages
from app.api.core import CallerDep, Core, CoreDep
from app.api.guard import fails, needs, router
from app.api.pages import After, Limit
from app.api.schemas import Printable
from app.errors import (
    ConflictError,
    ErrorItem,
    IdempotencyKeyReusedError,
    InvalidError,
    TooManyEndpointsError,
)
from app.jobs.idempotency import Idempotency
from app.webhooks import service
from app.webhooks.addresses import MAX_URL, RefusedError
from app.webhooks.tables import WebhookDelivery, WebhookEndpoint
from tdmr.config import Strict
from tdmr.wire.base import Page
from tdmr.wire.webhooks import (
    DeliveryOut,
    DeliveryStatus,
    EventType,
    WebhookEndpointOut,
    WebhookSecretOut,
)

routes = router()

PATH = "/v1/webhook-endpoints"

Url = Annotated[
    str, Field(max_length=MAX_URL, description="https, on the public internet, port 443 or 8443.")
]
Description = Annotated[str, StringConstraints(max_length=500), Printable]
Events = Annotated[
    list[EventType] | None,
    Field(min_length=1, max_length=50, description="Null: all, those to come included."),
]


class WebhookEndpointIn(Strict):
    """An address to be told of events."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"url": "https://hooks.example.com/tdmr", "events": ["job.succeeded", "job.failed"]}
            ]
        },
    )

    url: Url
    events: Events = None
    description: Description = ""


class WebhookEndpointPatch(Strict):
    """What to change of an endpoint; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})

    # Factories, because a default would be part of the API's description.
    url: Url = Field(default_factory=str)
    events: Events = None
    description: Description = Field(default_factory=str)
    enabled: bool = Field(default_factory=bool)


@routes.post("/webhook-endpoints", status_code=201)
@needs(Scope.WEBHOOKS_WRITE)
@fails(IdempotencyKeyReusedError, TooManyEndpointsError)
async def create_webhook_endpoint(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    wanted: WebhookEndpointIn,
    idempotency_key: idempotency.Key = None,
) -> WebhookSecretOut:
    """Name an address that is told of what happens. Its secret is in this answer alone."""
    content = json.dumps(wanted.model_dump(mode="json"), sort_keys=True)
    asked = idempotency.asked(idempotency_key, f"POST {PATH}", content)
    if not await run_in_threadpool(_known, core, caller.owner, asked):
        await _check(core, wanted.url)

    def make(session: Session) -> WebhookEndpoint:
        return service.create(
            session,
            owner=caller.owner,
            url=wanted.url,
            description=wanted.description,
            event_types=_types(wanted.events),
            idempotency_key=asked.key,
            request_sha256=asked.request_sha256,
            most=core.settings.max_webhook_endpoints,
        )

    endpoint, replayed = await run_in_threadpool(
        idempotency.once, core, caller.owner, asked, make, lambda _, found: found, _earlier
    )
    response.headers["Location"] = f"{PATH}/{endpoint.id}"
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return _with_secret(endpoint)


@routes.get("/webhook-endpoints")
@needs(Scope.WEBHOOKS_READ)
def list_webhook_endpoints(
    response: Response, core: CoreDep, caller: CallerDep, limit: Limit = 20, after: After = None
) -> Page[WebhookEndpointOut]:
    """Your endpoints, the newest first."""
    with core.database.read() as session:
        found = service.newest(session, caller.owner, pages.after_id(after), limit + 1)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(rows[-1].id) if has_more else None
    if cursor is not None:
        pages.link_next(response, PATH, {"limit": limit, "after": cursor})
    return Page(data=[_described(row) for row in rows], has_more=has_more, next_cursor=cursor)


@routes.get("/webhook-endpoints/{endpoint_id}")
@needs(Scope.WEBHOOKS_READ)
def get_webhook_endpoint(core: CoreDep, caller: CallerDep, endpoint_id: str) -> WebhookEndpointOut:
    """An endpoint: what it is told of, and whether it takes it."""
    with core.database.read() as session:
        return _described(service.get(session, caller.owner, endpoint_id))


@routes.patch("/webhook-endpoints/{endpoint_id}")
@needs(Scope.WEBHOOKS_WRITE)
async def change_webhook_endpoint(
    core: CoreDep, caller: CallerDep, endpoint_id: str, patch: WebhookEndpointPatch
) -> WebhookEndpointOut:
    """Change an endpoint, or enable it again: what has waited for it is sent then."""
    changes = patch.model_dump(mode="json", exclude_unset=True)
    if "events" in changes:
        changes["events"] = _types(patch.events)

    def change(more: dict[str, Any]) -> WebhookEndpoint:
        with core.database.write() as session:
            return service.change(session, caller.owner, endpoint_id, more)

    await run_in_threadpool(change, {})  # whose it is comes before what is wrong with the URL
    if "url" in changes:
        await _check(core, patch.url)
    endpoint = await run_in_threadpool(change, changes)
    core.sender.nudge()
    return _described(endpoint)


@routes.delete("/webhook-endpoints/{endpoint_id}", status_code=204)
@needs(Scope.WEBHOOKS_WRITE)
def delete_webhook_endpoint(core: CoreDep, caller: CallerDep, endpoint_id: str) -> None:
    """Forget an endpoint and its deliveries; nothing more is sent there."""
    with core.database.write() as session:
        service.delete(session, caller.owner, endpoint_id)


@routes.post("/webhook-endpoints/{endpoint_id}/rotate-secret")
@needs(Scope.WEBHOOKS_WRITE)
def rotate_webhook_secret(core: CoreDep, caller: CallerDep, endpoint_id: str) -> WebhookSecretOut:
    """Make a new secret, in this answer alone. The one before signs beside it for 24 hours."""
    with core.database.write() as session:
        return _with_secret(service.rotate(session, caller.owner, endpoint_id))


@routes.post("/webhook-endpoints/{endpoint_id}/test", status_code=202)
@needs(Scope.WEBHOOKS_WRITE)
@fails(ConflictError)
def ping_webhook_endpoint(core: CoreDep, caller: CallerDep, endpoint_id: str) -> DeliveryOut:
    """Send a `ping`, once; the list of deliveries says how it went."""
    with core.database.write() as session:
        made = service.ping(session, caller.owner, endpoint_id)
    core.sender.nudge()
    return _delivery(made)


@routes.get("/webhook-endpoints/{endpoint_id}/deliveries")
@needs(Scope.WEBHOOKS_READ)
def list_deliveries(
    response: Response,
    core: CoreDep,
    caller: CallerDep,
    endpoint_id: str,
    limit: Limit = 20,
    after: After = None,
    status: Annotated[DeliveryStatus | None, Query(description="Only those that stand so.")] = None,
) -> Page[DeliveryOut]:
    """What was told to an endpoint, the newest first, with every attempt."""
    with core.database.read() as session:
        before = pages.after_id(after)
        found = service.deliveries(session, caller.owner, endpoint_id, before, status, limit + 1)
    rows, has_more = pages.cut(found, limit)
    cursor = pages.encode(rows[-1].id) if has_more else None
    if cursor is not None:
        query: dict[str, str | int | None] = {"limit": limit, "after": cursor, "status": status}
        pages.link_next(response, f"{PATH}/{endpoint_id}/deliveries", query)
    return Page(data=[_delivery(row) for row in rows], has_more=has_more, next_cursor=cursor)


@routes.post("/webhook-endpoints/{endpoint_id}/deliveries/{delivery_id}/replay", status_code=202)
@needs(Scope.WEBHOOKS_WRITE)
@fails(ConflictError)
def replay_delivery(
    core: CoreDep, caller: CallerDep, endpoint_id: str, delivery_id: str
) -> DeliveryOut:
    """Send a message once more, under the same `webhook-id`, whatever became of it before."""
    with core.database.write() as session:
        found = service.replay(session, caller.owner, endpoint_id, delivery_id)
    core.sender.nudge()
    return _delivery(found)


def _earlier(session: Session, owner: str, asked: Idempotency) -> WebhookEndpoint | None:
    return service.earlier(session, owner, asked.key, asked.request_sha256)


def _known(core: Core, owner: str, asked: Idempotency) -> bool:
    """Whether an equal request has made an endpoint already."""
    with core.database.read() as session:
        return _earlier(session, owner, asked) is not None


async def _check(core: Core, url: str) -> None:
    """Raise InvalidError for an address that nothing would be sent to."""
    try:
        await core.sender.network.guard.check(url)
    except RefusedError as error:
        item = ErrorItem(pointer="/url", code=error.code, detail=error.detail)
        raise InvalidError("Webhooks can't be sent to this URL.", [item]) from error


def _types(events: list[EventType] | None) -> list[str] | None:
    return None if events is None else sorted(set(events))


def _described(endpoint: WebhookEndpoint) -> WebhookEndpointOut:
    names = WebhookEndpointOut.model_fields
    return WebhookEndpointOut.model_validate({name: getattr(endpoint, name) for name in names})


def _with_secret(endpoint: WebhookEndpoint) -> WebhookSecretOut:
    told = _described(endpoint).model_dump()
    return WebhookSecretOut.model_validate({**told, "secret": service.secret_of(endpoint)})


def _delivery(row: WebhookDelivery) -> DeliveryOut:
    names = DeliveryOut.model_fields
    told = {name: getattr(row, name) for name in names}
    if row.status != "pending":
        told["next_attempt_at"] = None
    return DeliveryOut.model_validate(told)
