"""What a check found: as data, so that a program and a person can both act on it."""

from __future__ import annotations

from tdmr.wire.datasets import Finding
from tdmr.wire.plans import Severity

LIMIT = 1000  # findings kept; the rest are counted
NAME_LENGTH = 300


class Findings:
    """Every finding of one check, errors first; beyond `LIMIT` they are only counted."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: dict[Severity, list[Finding]] = {"error": [], "warning": []}
        self._counts: dict[Severity, int] = {"error": 0, "warning": 0}

    def error(self, code: str, detail: str, advice: str, file: str | None = None) -> None:
        """Something that makes the upload invalid."""
        self.add(_finding("error", code, detail, advice, file))

    def warn(self, code: str, detail: str, advice: str, file: str | None = None) -> None:
        """Something to know that doesn't stand in the way."""
        self.add(_finding("warning", code, detail, advice, file))

    def add(self, finding: Finding) -> None:
        """A finding that was made elsewhere."""
        self._counts[finding.severity] += 1
        if len(self._kept[finding.severity]) < self._limit:
            self._kept[finding.severity].append(finding)

    @property
    def ok(self) -> bool:
        """No error so far."""
        return not self._counts["error"]

    def all(self) -> list[Finding]:
        """Errors, then warnings, at most `LIMIT` of them, and a last one that counts the rest."""
        kept = (self._kept["error"] + self._kept["warning"])[: self._limit]
        left_out = sum(self._counts.values()) - len(kept)
        if left_out:
            kept.append(
                Finding(
                    code="more_findings",
                    severity="warning",
                    detail=f"{left_out} more findings aren't listed.",
                    advice="Fix the ones above first.",
                )
            )
        return kept


def _finding(severity: Severity, code: str, detail: str, advice: str, file: str | None) -> Finding:
    return Finding(
        code=code,
        severity=severity,
        file=None if file is None else shown(file),
        detail=detail,
        advice=advice,
    )


def shown(name: str) -> str:
    """A name from an upload as it may stand in a report: printable, and not endless."""
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)
    return clean if len(clean) <= NAME_LENGTH else clean[: NAME_LENGTH - 1] + "…"
