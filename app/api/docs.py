"""/openapi.json and /docs: the API's description, for programs and for people.

The page is plain HTML made from the document: it asks nothing of any other machine.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from app.api import description
from app.api.guard import GuardedRoute, public
from app.errors import AppError

routes = APIRouter(route_class=GuardedRoute)

DESCRIPTION = (
    "Distil a frozen vision foundation model into a small student for your classes. "
    "Upload a dataset, order a job, download the student. "
    "Every request but health and documentation carries `Authorization: Bearer tdmr_…`."
)
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#8882;padding:.1em .3em;border-radius:.2em}td,th{text-align:left;"
    "padding:.2rem 1rem .2rem 0;vertical-align:top}h2{margin-top:2rem}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"


@routes.get("/openapi.json", include_in_schema=False)
@public
async def openapi(request: Request) -> dict[str, Any]:
    """The OpenAPI document."""
    app: FastAPI = request.app
    return app.openapi()


@routes.get("/docs", include_in_schema=False, response_class=Response)
@public
async def docs(request: Request) -> Response:
    """What there is, on one page."""
    app: FastAPI = request.app
    return Response(
        page(app.openapi()), media_type="text/html", headers={"Content-Security-Policy": _POLICY}
    )


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document."""
    return description.document(app, DESCRIPTION)


def page(made: dict[str, Any]) -> str:
    """The document as a page."""
    rows = "".join(
        _operation(method, path, operation)
        for path, methods in made["paths"].items()
        for method, operation in methods.items()
    )
    codes = "".join(_code(error) for error in sorted(description.every(AppError), key=_place))
    title = escape(made["info"]["title"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{_STYLE}</style><h1>{title}</h1><p>{escape(made['info']['description'])}</p>"
        "<p>The machine-readable description is <a href=/openapi.json>/openapi.json</a>.</p>"
        f"<h2>Operations</h2>{rows}<h2>Problems</h2>"
        "<p>Every answer of 400 and above is <code>application/problem+json</code>; its "
        "<code>errors</code> point into the body, or at <code>/query/…</code> and "
        "<code>/header/…</code>.</p>"
        f"<table><tr><th>code<th>status<th>meaning{codes}</table></html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    scopes = [scope for each in operation.get("security", []) for scope in each["key"]]
    needs = f"needs the scope {scopes[0]}" if scopes else "open to everybody"
    parameters = "".join(
        f"<tr><td><code>{escape(each['name'])}</code><td>{escape(each['in'])}"
        f"<td>{escape(each.get('description', ''))}"
        for each in operation.get("parameters", [])
    )
    return (
        f"<h3><code>{method.upper()} {escape(path)}</code></h3>"
        f"<p>{escape(operation.get('description', ''))} <small>({needs})</small></p>"
        f"<table>{parameters}</table>"
    )


def _place(error: type[AppError]) -> tuple[int, str]:
    return error.status, error.code


def _code(error: type[AppError]) -> str:
    return (
        f"<tr id={error.code}><td><code>{error.code}</code><td>{error.status}"
        f"<td>{escape(error.title)}"
    )


def text(app: FastAPI) -> str:
    """The OpenAPI document as the repository keeps it."""
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"
