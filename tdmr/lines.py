"""What a job's process says on standard error of where it is, under the ids that it was given.

A worker gives them by the environment: TDMR_JOB_ID, TDMR_ATTEMPT, and TDMR_REQUEST_ID, the id of
the request that ordered the job. Without the first nothing is said: whoever runs this by hand sees
bars.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from tdmr.jobdir import ProgressLine

VARIABLES = {
    "job_id": "TDMR_JOB_ID",
    "attempt": "TDMR_ATTEMPT",
    "request_id": "TDMR_REQUEST_ID",
    "traceparent": "TRACEPARENT",
}


def environment(**ids: object) -> dict[str, str]:
    """What a process is given for it to say these ids; those that are None are left out."""
    return {VARIABLES[name]: str(value) for name, value in ids.items() if value is not None}


def teller() -> Callable[[ProgressLine], None]:
    """A listener that writes a line of JSON for each stage, and for how it ended."""
    ids = {name: os.environ[key] for name, key in VARIABLES.items() if key in os.environ}
    stage: str | None = None

    def tell(line: ProgressLine) -> None:
        nonlocal stage
        if line.event == "checkpoint" or "job_id" not in ids:
            return
        now = line.stage.name if line.stage else None
        if line.event == "progress" and now == stage:
            return
        stage = now if line.event == "progress" else stage
        said = {"event": "stage" if line.event == "progress" else line.event, "stage": stage}
        moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        print(json.dumps({**said, **ids, "timestamp": moment}), file=sys.stderr, flush=True)  # noqa: T201 - its log

    return tell
