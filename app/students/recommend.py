"""Which model of the catalog fits a budget: by what was measured, and nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from app.models import Latency
from tdmr.catalog import CatalogEntry

Limits = dict[str, float]  # max_params, max_latency_ms, max_file_bytes: those that there are


@dataclass(frozen=True)
class Reason:
    """How a model stands to a limit; `found` and `fits` are None for what isn't measured."""

    limit: str
    allowed: float
    found: float | None
    fits: bool | None
    detail: str


@dataclass(frozen=True)
class Recommended:
    """A model with its reasons, and the measurement that they rest on."""

    entry: CatalogEntry
    reasons: list[Reason]
    latency: Latency | None

    @property
    def verdict(self) -> str:
        """`fits`, `does_not_fit`, or `not_measured` where only a measurement could tell."""
        if any(reason.fits is False for reason in self.reasons):
            return "does_not_fit"
        return "fits" if self.latency is not None else "not_measured"


def machines(rows: Iterable[Latency]) -> list[str]:
    """The machines that there are measurements of, those with the most models first."""
    return [name for name, _ in Counter(row.machine for row in rows).most_common()]


def rank(
    entries: Sequence[CatalogEntry], rows: Sequence[Latency], machine: str | None, limits: Limits
) -> list[Recommended]:
    """Those that fit by their p50, then those that don't, then those that weren't measured there.

    `rows` are measurements; those on other machines, and at other sizes, count for nothing.
    """
    found: dict[tuple[str, int], Latency] = {}
    for row in rows:
        key = (row.model, row.input_size)
        # The catalog's, of ten classes, before a student's own: they compare with each other.
        if row.machine == machine and (key not in found or row.owner is None):
            found[key] = row
    judged = [_judge(entry, found.get((entry.name, entry.input_size)), limits) for entry in entries]
    return sorted(judged, key=_place)


def _place(each: Recommended) -> tuple[bool, bool, float]:
    slow = each.entry.params if each.latency is None else each.latency.p50_ms
    return each.latency is None, each.verdict == "does_not_fit", slow


def _judge(entry: CatalogEntry, row: Latency | None, limits: Limits) -> Recommended:
    params = entry.params if row is None else row.params
    whose = "with the catalog's head" if row is None else "as measured"
    values: dict[str, tuple[float | None, str]] = {
        "max_params": (params, f"{params:,} parameters {whose}"),
        "max_latency_ms": (None, ""),
        "max_file_bytes": (None, ""),
    }
    if row is not None:
        when = f"{row.measured_at:%Y-%m-%d}"
        values["max_latency_ms"] = (
            row.p95_ms,
            f"95 % of single images take at most {row.p95_ms:g} ms, measured on {row.machine} "
            f"on {when}",
        )
        values["max_file_bytes"] = (row.file_bytes, f"its ONNX file has {row.file_bytes:,} bytes")
    reasons = [_reason(limit, allowed, *values[limit]) for limit, allowed in limits.items()]
    return Recommended(entry, reasons, row)


def _reason(limit: str, allowed: float, found: float | None, words: str) -> Reason:
    if found is None:
        return Reason(limit, allowed, None, None, "Not measured yet.")
    fits = found <= allowed
    verdict = "within" if fits else "more than"
    return Reason(
        limit, allowed, found, fits, f"{words[0].upper()}{words[1:]}: {verdict} {allowed:,.15g}."
    )
