"""The soak at the size of a test: seconds and two kills; what takes an hour to show is left out."""

from __future__ import annotations

from pathlib import Path

from benchmarks import soak


def test_a_little_load_leaves_nothing_behind(tmp_path: Path) -> None:
    found = soak.soak(tmp_path, minutes=0.2, every_seconds=5.0)
    assert (found["errors"], found["orphans"]) == (0, 0), found["first_errors"]
    assert found["kills"] >= 2
    assert found["answers"]["POST 201"] > 0


def test_growth_is_found_once_the_server_is_warm() -> None:
    minute = [(number / 60, number) for number in range(600)]
    leaking = [(at, 10**8 + 2**20 * number, 50 + number // 100) for at, number in minute]
    grown = soak._grown(leaking)
    assert grown["memory_slope_bytes_per_minute"] == 60 * 2**20
    assert grown["descriptors_grown"] > soak.BOUNDS["descriptors_grown"]
    warming = [(at, 10**8 + 10**6 * min(number, 150), 50) for at, number in minute]
    steady = soak._grown(warming)
    assert (steady["memory_slope_bytes_per_minute"], steady["descriptors_grown"]) == (0, 0)
    assert soak.missed({**steady, "orphans": 1, "errors": 0}) == ["orphans"]
    assert grown["course"]["descriptors"] == [50, 50, 51, 51, 52, 52, 53, 53, 54, 54, 55, 55]
    assert len(grown["course"]["memory_mebibytes"]) == 12
