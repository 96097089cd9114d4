"""A finding about an order: data for a dry run, and an error for an order that it forbids."""

from __future__ import annotations

from dataclasses import dataclass

from app.errors import AppError, ErrorItem
from tdmr.wire.plans import PlanFinding, Severity


@dataclass(frozen=True)
class Finding:
    """One thing about an order; `refusal` is what a real one is refused with."""

    pointer: str
    code: str
    severity: Severity
    detail: str
    advice: str
    allowed: list[str] | None = None
    limit: float | None = None
    used: float | None = None
    refusal: AppError | None = None

    @property
    def said(self) -> str:
        """What a problem says of it."""
        return self.refusal.detail if self.refusal is not None else self.detail

    def item(self) -> ErrorItem:
        """The finding inside a problem."""
        return ErrorItem(
            pointer=self.pointer,
            code=self.code,
            detail=self.said,
            allowed=self.allowed,
            limit=self.limit,
            used=self.used,
        )

    def out(self) -> PlanFinding:
        """The finding in the answer to a dry run."""
        names = set(PlanFinding.model_fields)
        return PlanFinding(**{name: getattr(self, name) for name in names})


def error(
    refusal: type[AppError],
    pointer: str,
    code: str,
    detail: str,
    advice: str,
    *,
    allowed: list[str] | None = None,
    headers: dict[str, str] | None = None,
) -> Finding:
    """A finding that a real order is refused with, as `refusal`."""
    refused = refusal(f"{detail} {advice}", headers=headers)
    return Finding(pointer, code, "error", detail, advice, allowed, refusal=refused)


def refused(kind: type[AppError], finding: Finding, detail: str, advice: str) -> AppError:
    """The error of one finding, in other words."""
    said = f"{detail} {advice}"
    item = finding.item().model_copy(update={"detail": said})
    return kind(said, [item])


def warning(pointer: str, code: str, detail: str, advice: str) -> Finding:
    """A finding that a real order is taken with."""
    return Finding(pointer, code, "warning", detail, advice)
