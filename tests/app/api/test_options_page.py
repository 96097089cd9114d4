"""docs/options.md: its tables are the models, and its examples are orders that would be taken."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from app.api.schemas import JobIn
from tests.app.service import Service

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "scripts"))

import make_options  # noqa: E402 - the scripts are not a package

sys.path.remove(str(ROOT / "scripts"))

PAGE = make_options.PAGE.read_text(encoding="utf-8")
EXAMPLES = [json.loads(each) for each in re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)]


def test_the_page_has_the_models_as_they_are() -> None:
    assert make_options.rewritten(PAGE) == PAGE, "run `make options`, and look at the difference"


def test_every_option_is_there() -> None:
    def leaves(fields: dict[str, Any]) -> int:
        return sum(leaves(each) if isinstance(each, dict) else 1 for each in fields.values())

    order = JobIn.model_validate({"dataset_id": "d", "foundation": "f", "student": "s"})
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| [^|]* \| \S[^|]* \|$", PAGE, re.M)
    fields = order.model_dump(mode="json", exclude={"metadata"})
    assert len(rows) == leaves(fields) + 2  # the metadata, and what is in the budget


def test_bounds_and_defaults_are_in_words() -> None:
    assert "| `label_smoothing` | number | `0.1` | from 0 to under 1 |" in PAGE
    assert "| `max_seconds` | number | needed | over 0 to 31,536,000 |" in PAGE


@pytest.mark.parametrize("example", EXAMPLES, ids=["few", "many", "latency"])
def test_the_examples_would_be_taken(service: Service, example: dict[str, Any]) -> None:
    where = "/v1/sweeps" if "students" in example else "/v1/jobs"
    order = {**example, "dataset_id": service.dataset()["id"]}
    response = service.client.post(f"{where}?dry_run=true", json=order)
    assert (response.status_code, response.json()["ok"]) == (200, True), response.text
    assert "options" not in {each["code"] for each in response.json()["findings"]}
