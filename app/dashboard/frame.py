"""What every page stands in: the way to the others, who is signed in, and a place for trouble."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nicegui import app as pages
from nicegui import context, ui
from starlette.requests import Request

from app.access.sessions import SignedIn
from app.api.core import Core
from app.dashboard.inside import Inside, RefusedError
from app.dashboard.live import Live
from app.dashboard.parts import link, tag
from app.dashboard.paths import SIGN_OUT, within
from app.dashboard.visit import Visit

Build = Callable[..., Awaitable[None]]

PLACES = (
    ("Overview", "/"),
    ("Datasets", "/datasets"),
    ("New job", "/new"),
    ("Jobs", "/jobs"),
    ("Students", "/students"),
    ("Compare", "/compare"),
    ("Access", "/access"),
)
BUILD_SECONDS = 60.0  # that making a page may take
HEAD = f"""
<link rel="stylesheet" href="{within("/static/dashboard.css")}">
<link rel="icon" href="{within("/static/icon.svg")}">
<script src="{within("/static/dashboard.js")}"></script>
"""
SIGN_OUT_FORM = f"""<form method="post" action="{within(SIGN_OUT)}">
<button type="submit" class="quiet">Sign out</button></form>"""


@dataclass
class Office:
    """What pages are made with; one for the process, put there when the server starts."""

    core: Core
    inside: Inside
    live: Live


def page(path: str, title: str) -> Callable[[Build], Build]:
    """Make `build(visit, …)` a page of the dashboard; the other parameters are the path's."""

    def mark(build: Build) -> Build:
        async def shown(request: Request, **parameters: str) -> None:
            visit = _visit(request)
            with _framed(visit, path, title):
                try:
                    await build(visit, **parameters)
                except RefusedError as refused:
                    trouble(refused)

        given = [p for p in inspect.signature(build).parameters.values() if p.name != "visit"]
        asked = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
        named = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=str) for p in given]
        shown.__signature__ = inspect.Signature([asked, *named])  # type: ignore[attr-defined]  # what the framework reads
        ui.page(
            path,
            title=f"{title} · TDMR",
            dark=None,
            language="en-US",
            response_timeout=BUILD_SECONDS,
        )(shown)
        return build

    return mark


def trouble(refused: RefusedError) -> None:
    """Say why there is nothing to see."""
    problem = refused.problem
    with tag("section", "card trouble").props('role="alert"'):
        tag("h2", text=problem.title)
        tag("p", text=problem.detail)


def _visit(request: Request) -> Visit:
    office: Office = pages.state.office
    who: SignedIn = request.scope["state"]["who"]
    return Visit(who, office.core, office.inside, office.live, context.client)


def _framed(visit: Visit, path: str, title: str) -> Any:
    ui.add_head_html(HEAD)
    context.client.content.classes(remove="nicegui-content", add="page")
    layout = context.client.layout
    with layout, tag("header", "top") as header:
        link("TDMR", "/", "brand")
        with tag("nav").props('aria-label="Pages"'):
            for name, target in PLACES:
                here = link(name, target)
                if target == path:
                    here.props('aria-current="page"')
        with tag("div", "who"):
            tag("span", "hint", visit.who.caller.owner)
            dark = tag("button", "quiet theme").props('type="button" aria-label="Dark or light"')
            dark.on("click", js_handler="() => tdmr.switchTheme()")
            with dark:
                tag("span", text="◐").props('aria-hidden="true"')
            ui.html(SIGN_OUT_FORM, sanitize=False)
    header.move(layout, 0)  # before what the framework makes the page's main part
    sheet = tag("div", "sheet")
    with sheet:
        tag("h1", text=title)
    return sheet
