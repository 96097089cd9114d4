"""/openapi.json and /docs: complete, and asking nothing of any other machine."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api.guard import GuardedRoute
from app.datasets import formats
from app.errors import AppError, NotJsonError


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


def test_every_operation_tells_of_its_problems(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        content = operation["responses"]["default"]["content"]
        assert list(content) == ["application/problem+json"]
        assert "422" not in operation["responses"]
        assert operation["description"]
    assert {"Problem", "ErrorItem", "JobIn", "JobOut"} <= set(document["components"]["schemas"])


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'#/components/schemas/([^']+)'", str(document)))
    assert references <= set(document["components"]["schemas"])


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
