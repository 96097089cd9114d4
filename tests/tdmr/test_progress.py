"""Steps that are told in parts, and never go back."""

from __future__ import annotations

from tdmr.progress import Steps


def test_steps_in_parts() -> None:
    told: list[tuple[int, int]] = []
    steps = Steps(2, lambda done, total: told.append((done, total)))
    steps.begin()
    steps.part(1, 4)
    steps.part(4, 4)  # the step isn't done before the next one begins
    steps.begin()
    steps.part(1, 2)
    steps.end()
    assert told == [(0, 200), (25, 200), (99, 200), (100, 200), (150, 200), (200, 200)]
