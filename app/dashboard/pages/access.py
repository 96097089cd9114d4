"""/access: keys, webhooks with what became of their messages, and the log of who did what."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as field_of
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, get_args

from app.access.scopes import Scope
from app.dashboard.forms import field, label, member, select, sure, tick
from app.dashboard.frame import page
from app.dashboard.parts import ago, button, row, table, tag
from app.dashboard.visit import Visit
from tdmr.wire.access import ApiKeyOut, AuditOut
from tdmr.wire.base import Page
from tdmr.wire.webhooks import DeliveryOut, EventType, WebhookEndpointOut

SHOWN = 50
LIVES = {"1": "a day", "30": "30 days", "365": "a year", "0": "for ever"}


@dataclass
class NewKey:
    """A key as far as it's filled in."""

    name: str = ""
    scopes: set[str] = field_of(default_factory=set)
    days: str = "30"

    def body(self) -> dict[str, Any]:
        """As the API takes it."""
        made: dict[str, Any] = {"name": self.name, "scopes": sorted(self.scopes)}
        if int(self.days):
            made["expires_at"] = (datetime.now(UTC) + timedelta(days=int(self.days))).isoformat()
        return made


@dataclass
class NewWebhook:
    """A webhook as far as it's filled in."""

    url: str = ""
    events: set[str] = field_of(default_factory=set)


@page("/access", "Access")
async def access(visit: Visit) -> None:
    """What this visitor's key may see of it."""
    if visit.may(Scope.KEYS_READ):
        await Keys(visit).show()
    if visit.may(Scope.WEBHOOKS_READ):
        await Webhooks(visit).show()
    if visit.may(Scope.AUDIT_READ):
        await _audit_log(visit)


class Keys:
    """Access keys: what there is, a new one, rotation and revocation."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        with tag("section", "card"):
            tag("h2", text="Access keys")
            self._secret = tag("div").props('role="status"')
            columns = ["Name", "Allows", "Made", "Last used", "Until", ""]
            self._body = table("Access keys", columns)
            if visit.may(Scope.KEYS_WRITE):
                self._form()

    async def show(self) -> None:
        """Show the keys as they are now."""
        found = await self._visit.get(Page[ApiKeyOut], "/v1/api-keys", limit=SHOWN)
        self._body.clear()
        with self._body:
            for key in found.data:
                self._row(key)

    def _row(self, key: ApiKeyOut) -> None:
        until = (
            "revoked" if key.revoked_at else f"{key.expires_at:%Y-%m-%d}" if key.expires_at else "—"
        )
        scopes = "everything" if len(key.scopes) == len(Scope) else ", ".join(key.scopes)
        over = key.revoked_at is not None or not self._visit.may(Scope.KEYS_WRITE)
        cells = [key.name, scopes, ago(key.created_at), ago(key.last_used_at), until]
        with row([*cells]), tag("td"):
            if not over:
                button("Rotate", partial(self._rotate, key), "plain")
                button("Revoke", partial(self._revoke, key), "danger")

    def _form(self) -> None:
        new = NewKey()
        with tag("details"):
            tag("summary", text="New key")
            field("key-name", "New key's name", partial(setattr, new, "name"))
            with tag("fieldset"):
                tag("legend", text="Allows")
                with tag("div", "pairs"):
                    for scope in Scope:
                        if self._visit.may(scope):
                            tick(scope.value, member(new.scopes, scope.value))
            label("key-days", "Works for")
            days = select(LIVES, new.days, partial(setattr, new, "days"))
            days.props('id="key-days"').style("width:auto")
            button("Make the key", partial(self._make, new))

    async def _make(self, new: NewKey) -> None:
        said = "The key is made."
        await self._told(await self._visit.attempt("POST", "/v1/api-keys", said, new.body()))

    async def _rotate(self, key: ApiKeyOut) -> None:
        path, said = f"/v1/api-keys/{key.id}/rotate", "Rotated; the old key works for a day."
        await self._told(await self._visit.attempt("POST", path, said, {}))

    async def _revoke(self, key: ApiKeyOut) -> None:
        if await sure(f"Revoke {key.name}? What uses it stops working at once.", "Revoke"):
            await self._visit.attempt("DELETE", f"/v1/api-keys/{key.id}", "Revoked.")
            await self.show()

    async def _told(self, made: Any) -> None:
        if made is None:
            return
        self._secret.clear()
        with self._secret:
            tag("p", text=f"The key {made['name']!r}, shown this once:")
            tag("code", "secret", made["token"])
        await self.show()


class Webhooks:
    """Addresses that are told of events, and how each message went."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        with tag("section", "card"):
            tag("h2", text="Webhooks")
            self._secret = tag("div").props('role="status"')
            self._body = table("Webhooks", ["Address", "Events", "State", "Made", ""])
            self._deliveries = tag("div")
            if visit.may(Scope.WEBHOOKS_WRITE):
                self._form()

    async def show(self) -> None:
        """Show the addresses as they are now."""
        path = "/v1/webhook-endpoints"
        found = await self._visit.get(Page[WebhookEndpointOut], path, limit=SHOWN)
        self._body.clear()
        with self._body:
            for each in found.data:
                self._row(each)

    def _row(self, each: WebhookEndpointOut) -> None:
        state = "enabled" if each.enabled else f"disabled {each.disabled_reason or ''}".strip()
        events = "all" if each.events is None else ", ".join(each.events)
        with row([each.url, events, state, ago(each.created_at)]), tag("td"):
            button("Deliveries", partial(self._show_deliveries, each.id), "plain")
            if self._visit.may(Scope.WEBHOOKS_WRITE):
                button("Test", partial(self._test, each.id), "plain")
                button("Remove", partial(self._remove, each), "danger")

    def _form(self) -> None:
        new = NewWebhook()
        with tag("details"):
            tag("summary", text="New webhook")
            field("hook-url", "Address (https)", partial(setattr, new, "url"), "url")
            with tag("fieldset"):
                tag("legend", text="Events (none chosen: all)")
                with tag("div", "pairs"):
                    for name in get_args(EventType):
                        tick(name, member(new.events, name))
            button("Add the webhook", partial(self._make, new))

    async def _make(self, new: NewWebhook) -> None:
        order = {"url": new.url, "events": sorted(new.events) or None}
        made = await self._visit.attempt("POST", "/v1/webhook-endpoints", "Added.", order)
        if made is None:
            return
        self._secret.clear()
        with self._secret:
            tag("p", text="Its secret, shown this once:")
            tag("code", "secret", made["secret"])
        await self.show()

    async def _test(self, endpoint_id: str) -> None:
        path = f"/v1/webhook-endpoints/{endpoint_id}/test"
        await self._visit.attempt("POST", path, "A ping is on its way.")

    async def _remove(self, each: WebhookEndpointOut) -> None:
        if await sure(f"Remove {each.url}?", "Remove"):
            path = f"/v1/webhook-endpoints/{each.id}"
            await self._visit.attempt("DELETE", path, "Removed.")
            await self.show()

    async def _show_deliveries(self, endpoint_id: str) -> None:
        path = f"/v1/webhook-endpoints/{endpoint_id}/deliveries"
        found = await self._visit.get(Page[DeliveryOut], path, limit=SHOWN)
        self._deliveries.clear()
        with self._deliveries:
            tag("h3", text="Deliveries")
            if not found.data:
                tag("p", "hint", "Nothing was to be told yet.")
                return
            body = table("Deliveries", ["Event", "Status", "Tries", "Last answer", "When", ""])
            with body:
                for each in found.data:
                    self._delivery(path, each)

    def _delivery(self, path: str, each: DeliveryOut) -> None:
        last = each.attempts[-1] if each.attempts else None
        answer = "—" if last is None else str(last.status_code or last.error)
        cells = [each.event_type, each.status, str(len(each.attempts)), answer]
        with row([*cells, ago(each.created_at)]), tag("td"):
            if each.status != "pending" and self._visit.may(Scope.WEBHOOKS_WRITE):
                target = f"{path}/{each.id}/replay"
                button(
                    "Send again",
                    partial(self._visit.attempt, "POST", target, "Sent again."),
                    "plain",
                )


async def _audit_log(visit: Visit) -> None:
    found = await visit.get(Page[AuditOut], "/v1/audit-log", limit=SHOWN)
    with tag("section", "card"):
        tag("h2", text="Audit log")
        body = table("Audit log", ["When", "What", "To what", "Key", "From"])
        with body:
            for each in found.data:
                key = each.key_id or "the operator"
                subject = each.subject_id or "—"
                cells = [
                    f"{each.at:%Y-%m-%d %H:%M:%S}",
                    each.action.replace("_", " "),
                    subject,
                    key,
                ]
                row([*cells, each.address or "—"])
