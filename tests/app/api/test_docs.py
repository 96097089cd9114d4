"""/openapi.json and /docs: complete, and asking nothing of any other machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api import description, docs
from app.api.guard import GuardedRoute
from app.api.problems import Problem
from app.datasets import formats
from app.errors import AppError, MethodNotAllowedError, NotJsonError


@pytest.fixture
def document(anonymous: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = anonymous.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_route_is_described_with_the_scope_that_it_needs(
    app: FastAPI, document: dict[str, Any]
) -> None:
    described = {
        (path, method): operation.get("security")
        for method, path, operation in operations(document)
    }
    routes = [route for route in app.routes if isinstance(route, GuardedRoute)]
    expected = {
        (route.path, method.lower()): [{"key": [route.scope.value]}] if route.scope else None
        for route in routes
        if route.include_in_schema
        for method in route.methods or ()
    }
    assert described == expected


def test_every_operation_tells_of_its_problems(app: FastAPI, document: dict[str, Any]) -> None:
    scopes = {route.path: route.scope for route in app.routes if isinstance(route, GuardedRoute)}
    for _, path, operation in operations(document):
        answers = operation["responses"]
        assert "default" not in answers  # it would make everything right
        problems = {status: answer for status, answer in answers.items() if status >= "400"}
        expected = {"400", "422", "500", "503"}
        if scopes[path] is not None:
            expected |= {"401", "403", "429"}
        if "{" in path:
            expected.add("404")
        assert expected <= set(problems)
        for answer in problems.values():
            (content,) = answer["content"].items()
            assert content[0] == "application/problem+json"
            assert content[1]["examples"]
        assert operation["description"]
    assert {"Problem", "ErrorItem", "JobIn", "JobOut"} <= set(document["components"]["schemas"])


def test_every_problem_has_an_example_of_its_own(document: dict[str, Any]) -> None:
    examples = document["components"]["examples"]
    assert set(examples) == {error.code for error in description.every(AppError)}
    for code, example in examples.items():
        assert Problem.model_validate(example["value"]).code == code
    named = set(re.findall(r"'#/components/examples/([^']+)'", str(document)))
    assert named == set(examples) - {MethodNotAllowedError.code}


def test_what_is_made_leads_to_what_can_be_done_with_it(document: dict[str, Any]) -> None:
    links = document["paths"]["/v1/jobs"]["post"]["responses"]["201"]["links"]
    assert {"get_job", "cancel_job", "pause_job", "resume_job", "retry_job"} <= set(links)
    assert links["get_job"]["parameters"] == {"job_id": "$response.body#/id"}
    listed = document["paths"]["/v1/students"]["get"]["responses"]["200"]["links"]
    assert listed["get_student"]["parameters"] == {"student_id": "$response.body#/data/0/id"}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'#/components/schemas/([^']+)'", str(document)))
    assert references <= set(document["components"]["schemas"])


def test_the_file_in_the_repository_is_the_document(app: FastAPI) -> None:
    kept = Path(__file__).parents[3] / "docs" / "openapi.json"
    assert kept.read_text() == docs.text(app), "run `make openapi`, and look at the difference"


def test_an_upload_is_described_as_an_archive(document: dict[str, Any]) -> None:
    body = document["paths"]["/v1/datasets"]["post"]["requestBody"]
    assert list(body["content"]) == list(formats.MEDIA_TYPES)


def test_the_page_lists_everything_and_needs_nobody(anonymous: TestClient) -> None:
    response = anonymous.get("/docs")
    page = response.text
    assert response.headers["Content-Type"].startswith("text/html")
    assert "GET /v1/jobs/{job_id}" in page
    assert f"id={NotJsonError.code}" in page
    assert f"id={AppError.code}" in page
    assert not re.search(r"https?://|<script|@import|url\(", page)
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
