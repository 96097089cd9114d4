"""A job's log as it is written: sent by the server, or in pages."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from benchmarks.served import Running
from tdmr.client import NotFoundError, UnexpectedAnswerError
from tdmr.client.sse import Parser, Sent
from tests.app.live import Worker, ready_dataset
from tests.tdmr.client import answers
from tests.tdmr.client.conftest import Ask
from tests.tdmr.client.misbehaving import LOST, Reply, misbehaving, refuses, says

LINES = (
    "\ufeff: hello\r\nid: 1\r\nevent: progress\r\ndata: {\r\ndata:}\r\n\r\n"
    "id: 2\ndata:  two\n\n:heartbeat\n\nevent: nothing\n\ndata\n\nretry: 5\r"
    "event: last\rid: 3\0\rdata: ü\r\rdata: never ended"
)
SENT = [
    Sent("progress", "{\n}", "1"),
    Sent("message", " two", "2"),
    Sent("message", "", "2"),
    Sent("last", "ü", "2"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_in_whatever_pieces_they_come(size: int) -> None:
    parser, content = Parser(), LINES.encode()
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    assert [sent for piece in pieces for sent in parser.feed(piece)] == SENT


def stream(client: Any) -> Any:
    return client.stream("job_1", every=0.0)


def sends(*events: int, end: bool = False, cut: int | None = None) -> Reply:
    """A stream of events, with heartbeats."""
    text = "".join(
        f": heartbeat\n\nid: {seq}\nevent: progress\ndata: {json.dumps(answers.event(seq))}\n\n"
        for seq in events
    )
    text += "event: end\ndata: {}\n\n" if end else ""
    return Reply(200, text.encode(), {"Content-Type": "text/event-stream; charset=utf-8"}, cut)


def numbers(found: Any) -> list[int]:
    return [event.seq for event in found]


def test_a_stream_is_read_to_its_end(ask: Ask) -> None:
    with misbehaving(sends(1, 2, 3, end=True)) as server:
        assert numbers(ask(server.address, stream)) == [1, 2, 3]
    (accept,) = server.header("Accept")
    assert accept is not None
    assert accept.startswith("text/event-stream")


def test_a_broken_stream_goes_on_behind_its_last_event(ask: Ask) -> None:
    script = (sends(1, 2), LOST, refuses(503), sends(2, 3, cut=300), sends(4, end=True))
    with misbehaving(*script) as server:
        assert numbers(ask(server.address, stream)) == [1, 2, 3, 4]
    assert server.header("Last-Event-ID") == [None, "2", "2", "2", "3"]


def test_it_can_begin_later(ask: Ask) -> None:
    with misbehaving(sends(7, 8, end=True)) as server:
        found = ask(server.address, lambda client: client.stream("job_1", after=6))
    assert (numbers(found), server.header("Last-Event-ID")) == ([7, 8], ["6"])


def test_a_stream_that_only_breaks_ends_with_patience(ask: Ask) -> None:
    with misbehaving(sends(1)) as server, pytest.raises(httpx.TransportError):
        ask(server.address, stream, patience=0.0)
    with misbehaving(LOST) as server, pytest.raises(httpx.TransportError):
        ask(server.address, stream, patience=0.0)
    with misbehaving(refuses(404)) as server, pytest.raises(NotFoundError):
        ask(server.address, stream)
    nonsense = Reply(200, b"data: ?\n\n", sends().headers)
    with misbehaving(nonsense) as server, pytest.raises(UnexpectedAnswerError):
        ask(server.address, stream)


def test_pages_are_asked_for_until_the_job_has_ended(ask: Ask) -> None:
    """The last page is one that was asked for when the job was known to have ended."""
    script = (
        says(answers.page(answers.event(1), answers.event(2), cursor="two", more=True)),
        says(answers.page(answers.event(3), cursor="three")),
        says(answers.job("running")),
        says(answers.page(cursor="three")),
        says(answers.job("succeeded")),
        says(answers.page(answers.event(4), cursor="four", more=True)),
        says(answers.page(answers.event(5), cursor="five")),
    )
    with misbehaving(*script) as server:
        assert numbers(ask(server.address, stream)) == [1, 2, 3, 4, 5]
    asked = [each.path.partition("?after=")[2] for each in server.asked if "events" in each.path]
    assert asked == ["", "two", "three", "three", "four"]


def test_the_log_of_a_real_server(ask: Ask, server: Running) -> None:
    dataset_id = ready_dataset(server)

    def order(client: Any) -> Any:
        return client.submit(dataset_id, "letters_vit", "test_resnet")

    job, worker = ask(server.address, order, server.key), Worker(server)
    claim = worker.claim()
    for step in (5, 10):
        worker.tell(claim, step)
    student_id = worker.succeed(claim, {"config.json": b"{}"})
    found = ask(server.address, lambda client: client.stream(job.id), server.key)
    types = ["submitted", "started", "progress", "progress", "trained", "succeeded"]
    assert [(event.seq, event.type) for event in found] == list(enumerate(types, 1))
    assert found[3].data["step"] == 10
    assert found[-1].data["student_id"] == student_id
    assert ask(server.address, lambda client: client.stream(job.id, 2), server.key) == found[2:]
    assert ask(server.address, lambda client: client.events(job.id, 4), server.key) == found[4:]
