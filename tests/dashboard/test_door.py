"""The dashboard's door: who may pass, by what, and from where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Send
from starlette.types import Scope as Connection
from starlette.websockets import WebSocketDisconnect

from app import audit, migrate
from app.access import keys, sessions
from app.access.scopes import ALL
from app.api.guard import GuardedRoute
from app.dashboard.door import COOKIE, Door
from app.db import Database
from app.main import create_app
from app.models import BrowserSession, Upload
from app.settings import Settings

HOST = "http://tdmr.test"
SOCKET = "ws://tdmr.test/dashboard/_nicegui_ws/socket.io/"
OURS = {"Origin": HOST}
OTHERS = (
    {},
    {"Origin": "http://evil.test"},
    {"Origin": "null"},
    {"Origin": "http://tdmr.test.evil.test"},
    {"Origin": "http://tdmr.test:8080"},
    {"Origin": "http://evil.test/http://tdmr.test"},
)


async def pages(scope: Connection, receive: Receive, send: Send) -> None:
    """Pages that say who looks at them."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 1000})
        return
    who = Request(scope).state.who
    await PlainTextResponse(f"page of {who.caller.owner}")(scope, receive, send)


class House:
    """A server with its door, and two owners' keys."""

    def __init__(self, settings: Settings) -> None:
        migrate.upgrade(settings.url)
        self.app = create_app(settings)
        self.database: Database = self.app.state.core.database
        self.keys = {owner: self._key(owner) for owner in ("ana", "bob")}

    def _key(self, owner: str) -> str:
        with self.database.write() as session:
            return keys.create(session, owner=owner, name="test", scopes=ALL)[1]

    def browser(self) -> TestClient:
        """A browser that follows nothing by itself."""
        door = Door(self.app, pages)
        return TestClient(door, base_url=HOST, follow_redirects=False)

    def signed_in(self, owner: str = "ana") -> TestClient:
        browser = self.browser()
        form = {"key": self.keys[owner]}
        assert browser.post("/dashboard/sign-in", data=form, headers=OURS).status_code == 303
        return browser

    def count(self, table: type[Any]) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0


@pytest.fixture
def house(settings: Settings) -> Iterator[House]:
    found = House(settings)
    with TestClient(found.app):
        yield found


def test_without_a_session_every_page_leads_to_the_form(house: House) -> None:
    browser = house.browser()
    for path in ("/dashboard", "/dashboard/", "/dashboard/jobs/job_1", "/dashboard/_nicegui/x.js"):
        answer = browser.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/dashboard/sign-in?next={path}"
    form = browser.get("/dashboard/sign-in")
    assert form.status_code == 200
    assert "<script" not in form.text
    assert "script-src" not in form.headers["content-security-policy"]
    assert form.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_key_opens_a_session_and_its_cookie_tells_nothing(house: House) -> None:
    browser = house.browser()
    form = {"key": f" {house.keys['ana']}\n"}
    answer = browser.post("/dashboard/sign-in?next=/dashboard/jobs", data=form, headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/jobs")
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(
        rf"{COOKIE}=[\w-]{{43}}; HttpOnly; Max-Age=43200; Path=/dashboard; SameSite=lax", cookie
    )
    assert house.keys["ana"] not in cookie
    assert browser.get("/dashboard/").text == "page of ana"
    with house.database.read() as session:
        row = session.scalars(select(BrowserSession)).one()
        found = audit.newest(session, "ana", None, 10)
    assert row.sha256 == keys.digest(browser.cookies[COOKIE])
    assert [(entry.action, entry.address) for entry in found] == [("sign_in", "testclient")]


def test_over_tls_the_cookie_stays_there(house: House) -> None:
    door = Door(house.app, pages)
    browser = TestClient(door, base_url="https://tdmr.test", follow_redirects=False)
    form = {"key": house.keys["ana"]}
    headers = {"Origin": "https://tdmr.test"}
    answer = browser.post("/dashboard/sign-in", data=form, headers=headers)
    assert "; Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "wrong", "tdmr_" + "A" * 43])
def test_a_wrong_key_opens_nothing(house: House, key: str) -> None:
    answer = house.browser().post("/dashboard/sign-in", data={"key": key}, headers=OURS)
    assert answer.status_code == 401
    assert 'role="alert"' in answer.text
    assert "set-cookie" not in answer.headers
    assert house.count(BrowserSession) == 0


def test_guessing_is_limited(settings: Settings) -> None:
    house = House(settings.model_copy(update={"rate_failures": "3/minute"}))
    with TestClient(house.app):
        browser = house.browser()
        codes = [
            browser.post("/dashboard/sign-in", data={"key": "x"}, headers=OURS).status_code
            for _ in range(5)
        ]
        assert codes == [401, 401, 401, 429, 429]
        assert house.signed_in().get("/dashboard/").status_code == 200


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.test/dashboard/",
        "//evil.test/dashboard/",
        "/dashboard//evil.test",
        "/dashboard/\\evil.test",
        "/v1/jobs",
        "javascript:alert(1)",
        "",
    ],
)
def test_signing_in_leads_to_no_other_place(house: House, target: str) -> None:
    form = {"key": house.keys["ana"]}
    where = {"next": target}
    browser = house.browser()
    answer = browser.post("/dashboard/sign-in", params=where, data=form, headers=OURS)
    assert answer.headers["location"] == "/dashboard/"
    assert "evil" not in browser.get("/dashboard/sign-in", params=where).text


@pytest.mark.parametrize("origin", OTHERS)
@pytest.mark.parametrize("path", ["sign-in", "sign-out", "v1/uploads", "v1/students/s/predict"])
def test_what_changes_something_comes_from_our_pages(
    house: House, path: str, origin: dict[str, str]
) -> None:
    browser = house.signed_in()
    form = {"key": house.keys["bob"]}
    answer = browser.post(f"/dashboard/{path}", data=form, headers=origin)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    assert "set-cookie" not in answer.headers
    assert browser.get("/dashboard/").text == "page of ana"
    assert house.count(BrowserSession) == 1


@pytest.mark.parametrize("origin", OTHERS)
def test_a_socket_comes_from_our_pages(house: House, origin: dict[str, str]) -> None:
    browser = house.signed_in()
    with pytest.raises(WebSocketDisconnect) as refused:
        browser.websocket_connect(SOCKET, headers=origin).__enter__()
    assert refused.value.code == 1008


def test_a_socket_needs_a_session(house: House) -> None:
    with pytest.raises(WebSocketDisconnect) as refused:
        house.browser().websocket_connect(SOCKET, headers=OURS).__enter__()
    assert refused.value.code == 1008
    with house.signed_in().websocket_connect(SOCKET, headers=OURS) as socket:
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
        assert closed.value.code == 1000


def test_the_api_looks_at_no_cookie(house: House) -> None:
    browser = house.signed_in()
    cookie = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}", **OURS}
    for path in ("/v1/jobs", "/v1/datasets", "/v1/api-keys"):
        assert browser.get(path, headers=cookie).status_code == 401


class Spy:
    """Stands for the server behind the door, and notes what gets there."""

    def __init__(self, app: FastAPI) -> None:
        self.state, self.seen = app.state, list[tuple[str, str]]()

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        self.seen.append((scope["method"], scope["path"]))
        assert COOKIE not in str(scope["headers"])
        await PlainTextResponse("")(scope, receive, send)


def test_only_what_pages_need_is_lent(house: House) -> None:
    spy = Spy(house.app)
    browser = TestClient(Door(cast("FastAPI", spy), pages), base_url=HOST, follow_redirects=False)
    browser.cookies = house.signed_in().cookies
    for route in house.app.routes:
        assert isinstance(route, GuardedRoute)
        path = re.sub(r"\{[^}]+\}", "1", route.path)
        for method in {*(route.methods or ()), "HEAD"}:
            browser.request(method, f"/dashboard{path}", headers=OURS)
    assert sorted({*spy.seen}) == [
        ("DELETE", "/v1/uploads/1"),
        ("GET", "/v1/datasets/1/images/1"),
        ("GET", "/v1/students/1/archive"),
        ("GET", "/v1/students/1/files/1"),
        ("HEAD", "/v1/datasets/1/images/1"),
        ("HEAD", "/v1/students/1/archive"),
        ("HEAD", "/v1/students/1/files/1"),
        ("HEAD", "/v1/uploads/1"),
        ("OPTIONS", "/v1/uploads"),
        ("PATCH", "/v1/uploads/1"),
        ("POST", "/v1/students/1/predict"),
        ("POST", "/v1/uploads"),
    ]


def test_what_is_lent_speaks_for_the_one_who_signed_in_alone(house: House) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "5", **OURS}
    ana, bob = house.signed_in("ana"), house.signed_in("bob")
    made = ana.post("/dashboard/v1/uploads", headers=headers)
    assert made.status_code == 201
    place = f"/dashboard{made.headers['location'].removeprefix(HOST)}"
    mine = ana.head(place, headers={"Tus-Resumable": "1.0.0"})
    assert (mine.status_code, mine.headers["upload-offset"]) == (200, "0")
    assert bob.head(place, headers={"Tus-Resumable": "1.0.0"}).status_code == 404
    with house.database.read() as session:
        assert session.scalars(select(Upload.owner)).all() == ["ana"]
        (entry, *_) = audit.newest(session, "ana", None, 10)
    assert entry.action == "create_upload"
    stranger = house.browser().head(place, headers={"Tus-Resumable": "1.0.0"})
    assert stranger.status_code == 401
    both = {**headers, "Authorization": f"Bearer {house.keys['bob']}"}
    ana.post("/dashboard/v1/uploads", headers=both)
    with house.database.read() as session:
        assert session.scalars(select(Upload.owner)).all() == ["ana", "ana"]


def test_signing_out_ends_the_session_for_good(house: House) -> None:
    browser = house.signed_in()
    cookie = browser.cookies[COOKIE]
    answer = browser.post("/dashboard/sign-out", headers=OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/sign-in")
    again = house.browser()
    again.cookies.set(COOKIE, cookie)
    assert again.get("/dashboard/").status_code == 303
    assert house.count(BrowserSession) == 0


def test_a_session_ends_with_its_time_and_is_forgotten(house: House) -> None:
    browser = house.signed_in()
    with house.database.write() as session:
        session.execute(update(BrowserSession).values(expires_at=BrowserSession.created_at))
    assert browser.get("/dashboard/").status_code == 303
    house.signed_in()
    assert house.count(BrowserSession) == 1


def test_a_session_ends_with_its_key(house: House) -> None:
    browser = house.signed_in()
    with house.database.write() as session:
        caller = keys.authenticate(session, keys.digest(house.keys["ana"]))
        keys.revoke(session, caller.key_id)
    assert browser.get("/dashboard/").status_code == 303


def test_a_cookie_that_was_made_up_opens_nothing(house: House) -> None:
    for cookie in ("x", "A" * 43, keys.digest(house.keys["ana"])):
        browser = house.browser()
        browser.cookies.set(COOKIE, cookie)
        assert browser.get("/dashboard/").status_code == 303


def test_a_form_is_read_to_its_limit(house: House) -> None:
    form = {"key": "x" * 5000}
    answer = house.browser().post("/dashboard/sign-in", data=form, headers=OURS)
    assert answer.status_code == 413


def test_everything_else_has_the_strict_policy(house: House) -> None:
    browser = house.signed_in()
    page = browser.get("/dashboard/").headers["content-security-policy"]
    assert "unsafe-eval" in page
    assert "frame-ancestors 'none'" in page
    assert not re.search(r"https?:|\*", page)
    for path in ("/dashboard/sign-in", "/dashboard/static/dashboard.css", "/healthz", "/v1/jobs"):
        policy = browser.get(path).headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy


def test_static_files_are_ours_alone(house: House) -> None:
    browser = house.browser()
    assert browser.get("/dashboard/static/dashboard.js").status_code == 200
    for path in ("../door.py", "%2e%2e/door.py", "..%2fdoor.py", "nothing.js"):
        assert browser.get(f"/dashboard/static/{path}").status_code in (303, 404)


def test_sessions_are_found_by_their_digest_alone(house: House) -> None:
    house.signed_in()
    with house.database.read() as session:
        row = session.scalars(select(BrowserSession)).one()
        assert sessions.find(session, row.sha256) is None
        found = sessions.find_by_digest(session, row.sha256)
        assert found is not None
        assert found.caller.owner == "ana"
