"""The Pareto table: who is beaten by nobody, and what accuracy is weighed against."""

from __future__ import annotations

from app.plans.pareto import Candidate, table


def student(
    name: str, accuracy: float | None, ms: float | None, size: int, **more: str
) -> Candidate:
    return Candidate(
        student_id=name,
        job_id="job",
        student=name,
        partial=False,
        accuracy=accuracy,
        interval=None,
        params=1,
        file_bytes=size,
        latency_p50_ms=ms,
        machine=more.get("machine", "m") if ms is not None else None,
    )


def front(*candidates: Candidate) -> tuple[str, list[tuple[str, bool]]]:
    found = table(candidates)
    return found.cost, [(row.student, row.on_front) for row in found.rows]


def test_the_front_of_accuracy_against_latency() -> None:
    found = front(
        student("slow", 0.9, 30.0, 1),
        student("beaten", 0.7, 20.0, 1),
        student("fast", 0.6, 1.0, 9),
        student("middle", 0.8, 10.0, 5),
    )
    rows = [("slow", True), ("middle", True), ("beaten", False), ("fast", True)]
    assert found == ("latency_p50_ms", rows)


def test_equals_are_both_on_it_and_a_tie_in_one_decides_by_the_other() -> None:
    found = front(student("a", 0.9, 5.0, 1), student("b", 0.9, 5.0, 1), student("c", 0.9, 6.0, 1))
    assert found[1] == [("a", True), ("b", True), ("c", False)]


def test_without_every_latency_size_is_weighed() -> None:
    known, none = student("known", 0.8, 1.0, 100), student("none", 0.9, None, 50)
    assert front(known, none) == ("file_bytes", [("none", True), ("known", False)])
    elsewhere = student("there", 0.9, 0.5, 50, machine="other")
    assert front(known, elsewhere)[0] == "file_bytes"


def test_what_wasnt_measured_is_on_no_front_and_beats_nobody() -> None:
    found = front(student("a", None, 1.0, 1), student("b", 0.5, 2.0, 2))
    assert found[1] == [("b", True), ("a", False)]
    assert table([]).rows == []
