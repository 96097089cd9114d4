"""What students are compared by: latencies of one machine alone."""

from __future__ import annotations

from dataclasses import replace

from app.dashboard.pages.compare import Figures, machine_of, plane

HERE = Figures("stu_1", "one", 0.9, [0.8, 0.95], "here", 4.0, 2e6, 1e6)
SMALLER = replace(HERE, id="stu_2", name="two", accuracy=0.85, latency_ms=2.0)
WORSE = replace(HERE, id="stu_3", name="three", accuracy=0.8, latency_ms=3.0, params=5e5)
ELSEWHERE = replace(HERE, id="stu_4", name="four", machine="elsewhere", latency_ms=1.0)
UNMEASURED = replace(HERE, id="stu_5", name="five", machine=None, latency_ms=None)
ALL = [HERE, SMALLER, WORSE, ELSEWHERE, UNMEASURED]


def test_the_machine_is_the_one_that_measured_the_most() -> None:
    assert machine_of(ALL) == "here"
    assert machine_of([UNMEASURED]) is None


def test_latencies_of_another_machine_have_no_place() -> None:
    points = [each.point("latency_ms", "here") for each in ALL]
    assert points == [(0.9, 4.0), (0.85, 2.0), (0.8, 3.0), None, None]
    assert HERE.point("file_bytes", "elsewhere") == (0.9, 2.0)


def test_the_front_is_drawn_as_a_line_from_cheap_to_dear() -> None:
    points = [each.point("latency_ms", "here") for each in ALL]
    front, students = plane(ALL, points, "latency_ms")["series"]
    assert front["data"] == [[2.0, 85.0], [4.0, 90.0]]
    assert [dot["name"] for dot in students["data"]] == ["one", "two", "three"]
