"""The rows that were measured, one JSON object a line: a run that was cut short goes on here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Key = tuple[Any, ...]


class Ledger:
    """Appends rows, and knows which are there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            self.rows = [json.loads(line) for line in path.read_text().splitlines()]
        self._known = {self.key(row) for row in self.rows}

    @staticmethod
    def key(row: dict[str, Any]) -> Key:
        """What a row measures."""
        names = ("kind", "target", "foundation", "student", "shots", "seed", "method")
        return tuple(row.get(name) for name in names)

    def has(self, row: dict[str, Any]) -> bool:
        """Whether this has been measured."""
        return self.key(row) in self._known

    def add(self, row: dict[str, Any]) -> None:
        """Append one row, at once; of two of the same the first counts."""
        if self.has(row):
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
        self._known.add(self.key(row))
