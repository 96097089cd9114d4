"""The API holds to its own OpenAPI document: `make fuzz`, shorter."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contract.__main__ import run

CASES = 2500


def test_every_answer_is_as_the_document_says(tmp_path: Path) -> None:
    found = run(tmp_path, CASES, seed=0)
    assert found["found"] == [], found["printed"]
    assert found["complete"], found["printed"]
    assert found["cases"] >= CASES
    assert (found["server_errors"], found["undocumented"]) == (0, 0)
