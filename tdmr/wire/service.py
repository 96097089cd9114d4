"""The service itself."""

from __future__ import annotations

from typing import Literal

from tdmr.wire.base import Out


class Health(Out):
    """The process runs."""

    status: Literal["ok"] = "ok"


class Ready(Out):
    """The service can take work, and work gets done."""

    status: Literal["ready"] = "ready"
    checks: dict[str, str]
