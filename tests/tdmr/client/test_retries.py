"""Trouble that may pass is met with patience; a refusal isn't, nor what would count twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.served import Running
from tdmr.client import (
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RateLimitedError,
    UnauthorizedError,
    UnavailableError,
    UnexpectedAnswerError,
)
from tdmr.client.errors import retry_after
from tdmr.client.retries import Backoff
from tests.app.live import ready_dataset
from tests.tdmr.client import answers
from tests.tdmr.client.conftest import Ask
from tests.tdmr.client.misbehaving import LOST, Reply, hands_on, misbehaving, refuses, says

JOB = says(answers.job())


def submit(client: Any) -> Any:
    return client.submit("ds_1", "letters_vit", "test_resnet", options={"seed": 3})


def show(client: Any) -> Any:
    return client.job("job_1")


def test_back_off_doubles_up_to_a_limit_and_ends_with_patience() -> None:
    moments = iter([0.0, *(float(n) for n in range(20))])
    backoff = Backoff(9.0, clock=lambda: next(moments), dice=lambda low, high: high)
    assert [backoff.pause() for _ in range(6)] == [0.2, 0.4, 0.8, 1.6, 3.2, None]
    thrown: list[tuple[float, float]] = []
    backoff = Backoff(1e6, dice=lambda *ends: thrown.append(ends) or 0.0)  # type: ignore[func-returns-value]  # the list's None is wanted
    assert [backoff.pause() for _ in range(12)] == [0.0] * 12
    assert thrown[0] == (0.0, 0.2)
    assert thrown[-1] == (0.0, 10.0)
    backoff.restart()
    backoff.pause()
    assert thrown[-1] == (0.0, 0.2)


DATE = "Sat, 21 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Sat, 21 Nov 2026 10:02:00 GMT", "Date": DATE}, 120.0),
        ({"Retry-After": "Sat, 21 Nov 2026 09:00:00 GMT", "Date": DATE}, 0.0),
        ({"Retry-After": "Saturday, 21-Nov-26 10:00:09 GMT", "Date": DATE}, 9.0),
        ({"Retry-After": "Sat, 01 Jan 2000 00:00:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "٣"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_of_the_servers_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    encoded = {name: value.encode() for name, value in headers.items()}
    assert retry_after(httpx.Response(503, headers=encoded)) == seconds  # type: ignore[arg-type]  # what is given is meant to vary


def test_the_server_is_asked_again_when_it_says(ask: Ask) -> None:
    with misbehaving(refuses(429, Retry_After="1"), JOB) as server:
        assert ask(server.address, show).id == "job_1"
    first, second = server.asked
    assert second.at - first.at >= 1.0


@pytest.mark.parametrize("trouble", [LOST, *map(refuses, (429, 502, 503, 504))])
def test_what_only_reads_is_tried_again(ask: Ask, trouble: Reply) -> None:
    with misbehaving(trouble, trouble, JOB) as server:
        assert ask(server.address, show).step == 10
    assert len(server.asked) == 3


@pytest.mark.parametrize("trouble", [LOST, refuses(503), Reply(200, b"{" * 99, cut=5)])
@pytest.mark.parametrize("do", [submit, lambda client: client.retry("job_1", priority=1)])
def test_an_order_is_sent_again_with_the_same_key(
    ask: Ask, do: Callable[[Any], Any], trouble: Reply
) -> None:
    with misbehaving(trouble, says(answers.job("queued"), 201)) as server:
        assert ask(server.address, do).status == "queued"
    one, other = server.header("Idempotency-Key")
    assert one == other is not None
    assert server.asked[0].body == server.asked[1].body


def test_two_orders_have_two_keys(ask: Ask) -> None:
    with misbehaving(JOB, JOB) as server:
        ask(server.address, submit)
        ask(server.address, submit)
    assert len(set(server.header("Idempotency-Key"))) == 2


def test_an_order_whose_answer_was_lost_is_made_once(ask: Ask, server: Running) -> None:
    dataset_id = ready_dataset(server)
    way = server.address
    with misbehaving(hands_on(way, lost=True), hands_on(way), hands_on(way)) as line:

        def order(client: Any) -> Any:
            return client.submit(dataset_id, "letters_vit", "test_resnet")

        made = ask(line.address, order, server.key)
    found = ask(server.address, lambda client: client.jobs(), server.key)
    assert [job.id for job in found if job.dataset_id == dataset_id] == [made.id]


@pytest.mark.parametrize("act", ["cancel", "pause", "resume"])
@pytest.mark.parametrize("trouble", [LOST, refuses(503)])
def test_what_would_count_twice_is_sent_once(ask: Ask, act: str, trouble: Reply) -> None:
    with (
        misbehaving(trouble, JOB) as server,
        pytest.raises((httpx.TransportError, UnavailableError)),
    ):
        ask(server.address, lambda client: getattr(client, act)("job_1"))
    assert len(server.asked) == 1


def test_predictions_are_sent_again(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    rows = [{"classes": [{"name": "cat", "probability": 0.5}]}]
    told = {"student_id": "stu_1", "file": "model.onnx", "temperature": 1.0, "predictions": rows}
    with misbehaving(refuses(503), says(told)) as server:
        found = ask(server.address, lambda client: client.predict("stu_1", [tmp_path / "a.png"]))
    assert found[0].classes[0].name == "cat"
    assert b"picture" in server.asked[1].body


def test_many_images_are_sent_in_turns(ask: Ask, tmp_path: Path) -> None:
    images = [tmp_path / f"{number}.png" for number in range(17)]
    for image in images:
        image.write_bytes(image.stem.encode())

    def told(count: int) -> Reply:
        rows = [{"classes": [{"name": str(count), "probability": 1.0}]}] * count
        return says({"student_id": "s", "file": "f", "temperature": 1.0, "predictions": rows})

    with misbehaving(told(16), told(1)) as server:
        found = ask(server.address, lambda client: client.predict("stu_1", images))
    assert [row.classes[0].name for row in found] == ["16"] * 16 + ["1"]
    assert [asked.body.count(b'name="image"') for asked in server.asked] == [16, 1]


REFUSALS: list[tuple[int, type[ApiError]]] = [
    (400, ApiError),
    (401, UnauthorizedError),
    (403, ForbiddenError),
    (404, NotFoundError),
    (409, ConflictError),
    (422, InvalidError),
    (500, ApiError),
]


@pytest.mark.parametrize(("status", "kind"), REFUSALS)
def test_a_refusal_is_an_error_of_its_own_and_final(
    ask: Ask, status: int, kind: type[ApiError]
) -> None:
    with misbehaving(refuses(status, "why"), JOB) as server, pytest.raises(kind) as caught:
        ask(server.address, show)
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code, len(server.asked)) == (status, "why", 1)


def test_a_refusal_lists_what_is_wrong(ask: Ask) -> None:
    item = {"pointer": "/student", "code": "unknown", "detail": "Try resnet18.", "new": 1}
    problem = {"code": "invalid", "detail": "Wrong.", "errors": [item, "nonsense"]}
    with misbehaving(says(problem, 422)) as server, pytest.raises(InvalidError) as caught:
        ask(server.address, submit)
    (found,) = caught.value.errors
    assert (found.pointer, found.detail) == ("/student", "Try resnet18.")
    assert str(caught.value) == "422 invalid: Wrong.\n  /student: Try resnet18."


def test_patience_ends(ask: Ask) -> None:
    with misbehaving(refuses(429, Retry_After="3600"), JOB) as server:
        with pytest.raises(RateLimitedError) as caught:
            ask(server.address, show, patience=30.0)
        assert caught.value.retry_after == 3600.0
    with misbehaving(LOST, JOB) as server, pytest.raises(httpx.TransportError):
        ask(server.address, show, patience=0.0)
    assert len(server.asked) == 1


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b"[]", b"{}", b"\xff"])
def test_an_answer_of_something_else_is_told(ask: Ask, body: bytes) -> None:
    with misbehaving(Reply(200, body)) as server, pytest.raises(UnexpectedAnswerError):
        ask(server.address, show)


@pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"[1]", b"\xff"])
def test_a_refusal_that_isnt_a_problem_is_told_too(ask: Ask, body: bytes) -> None:
    with misbehaving(Reply(502, body)) as server, pytest.raises(UnavailableError) as caught:
        ask(server.address, show, patience=0.0)
    assert caught.value.code == ""


def test_ids_lead_nowhere_else(ask: Ask) -> None:
    with misbehaving(JOB) as server:
        ask(server.address, lambda client: client.job("../models?x=1#"))
    assert server.asked[0].path == "/v1/jobs/..%2Fmodels%3Fx%3D1%23"
