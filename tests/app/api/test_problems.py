"""Every error of every layer is a problem, and tells nothing of the server."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from app import logs
from app.api.middleware import Envelope
from app.api.problems import Problem, pointer
from app.errors import AppError
from tests.app.service import Service

FIELDS = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}


def problem_of(response: Any) -> Problem:
    """The problem in an answer, checked against the answer."""
    assert response.headers["Content-Type"] == "application/problem+json"
    assert set(response.json()) >= FIELDS
    problem = Problem.model_validate(response.json())
    assert problem.status == response.status_code
    assert problem.request_id == response.headers["X-Request-Id"]
    assert problem.type == f"/docs#{problem.code}"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    return problem


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/jobs/", "/v2/jobs", "/%00", "//", "/a/.."]
)
def test_an_unknown_address_is_404(client: TestClient, path: str) -> None:
    problem = problem_of(client.get(path))
    assert (problem.status, problem.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/jobs", "GET, HEAD, POST"),
        ("PUT", "/v1/datasets/ds_x", "DELETE, GET, HEAD"),
        ("GET", "/v1/jobs/job_x/cancel", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("OPTIONS", "/v1/jobs", "GET, HEAD, POST"),
        ("BREW", "/v1/models", "GET, HEAD, POST"),
    ],
)
def test_a_wrong_method_is_405_and_says_which_are_right(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    assert problem_of(response).code == "method_not_allowed"
    assert response.headers["Allow"] == allowed


def test_a_parameter_that_isnt_there_is_named(client: TestClient) -> None:
    problem = problem_of(client.get("/v1/models?rôle=student&limits=1"))
    assert [each.pointer for each in problem.errors] == ["/query/limits", "/query/rôle"]
    assert problem.errors[0].allowed == ["after", "limit", "owned", "role"]


def test_a_flaw_of_ours_tells_nothing(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("tdmr.catalog.entries", broken)
    with capture_logs(processors=[logs.add_request]) as logged:
        response = client.get("/v1/models", headers={"X-Request-Id": "mine-1"})
    problem = problem_of(response)
    assert (problem.status, problem.code, problem.request_id) == (500, "internal", "mine-1")
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert [(each["event"], each["request_id"]) for each in logged] == [("unhandled", "mine-1")]
    assert logged[0]["exc_info"]


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("database or disk is full", 507, "insufficient_storage"),
        ("database is locked", 503, "unavailable"),
        ("connection refused to secret", 503, "unavailable"),
    ],
)
def test_a_database_in_trouble(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, text: str, status: int, code: str
) -> None:
    def broken(*_: object) -> None:
        raise OperationalError("SELECT secret", {}, Exception(text))

    monkeypatch.setattr("app.jobs.service.newest", broken)
    response = client.get("/v1/jobs")
    problem = problem_of(response)
    assert (problem.status, problem.code) == (status, code)
    assert "secret" not in response.text
    if status == 503:
        assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("given", ["x" * 65, "a b", "\u00fc", ""])
def test_a_strange_request_id_is_replaced(client: TestClient, given: str) -> None:
    response = client.get("/healthz", headers={"X-Request-Id": given.encode("latin-1")})
    assert len(response.headers["X-Request-Id"]) == 16


def test_a_json_pointer_is_escaped() -> None:
    assert pointer(["a/b", "c~d", 0]) == "/a~1b/c~0d/0"
    assert pointer([]) == ""


def test_every_error_has_a_status_and_a_code_of_its_own() -> None:
    def below(error: type[AppError]) -> list[type[AppError]]:
        return [error, *(each for sub in error.__subclasses__() for each in below(sub))]

    errors = below(AppError)
    assert len({error.code for error in errors}) == len(errors)
    assert all(error.status >= 400 and error.title and error.__doc__ for error in errors)


def test_every_get_has_an_etag_and_knows_it_again(service: Service) -> None:
    student = service.student()
    paths = ["/healthz", "/readyz", "/docs", "/openapi.json", "/v1/models"]
    paths += ["/v1/datasets", "/v1/jobs", "/v1/students"]
    paths += [f"/v1/datasets/{student['dataset_id']}", f"/v1/students/{student['id']}"]
    paths += [f"/v1/jobs/{student['job_id']}", f"/v1/jobs/{student['job_id']}/events"]
    for path in paths:
        first = service.client.get(path)
        assert first.status_code == 200
        etag = first.headers["ETag"]
        assert etag.startswith('"')
        again = service.client.get(path, headers={"If-None-Match": etag})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
        head = service.client.head(path)
        assert (head.status_code, head.content, head.headers["ETag"]) == (200, b"", etag)
        assert head.headers["Content-Length"] == str(len(first.content))


def test_a_change_changes_the_etag(service: Service) -> None:
    path = f"/v1/jobs/{service.job()['id']}"
    etag = service.client.get(path).headers["ETag"]
    service.claim("distil")
    changed = service.client.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


def test_a_body_that_stops_coming_is_408(app: FastAPI, make_key: Any) -> None:
    sent: list[dict[str, Any]] = []
    key = make_key("ana")

    async def receive() -> dict[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        headers = [(b"authorization", f"Bearer {key}".encode())]
        headers.append((b"content-type", b"application/json"))
        scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": headers}
        scope |= {"query_string": b"", "scheme": "http", "root_path": ""}
        with anyio.fail_after(10):
            await Envelope(app, receive_seconds=0.1)(scope, receive, send)

    anyio.run(run)
    assert sent[0]["status"] == 408
    assert b"request_timeout" in sent[1]["body"]
