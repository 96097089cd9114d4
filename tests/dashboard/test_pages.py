"""Each page: for everybody, at every width, live, and of one's own things only."""

from __future__ import annotations

import hashlib
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, Route, expect

from app.access import keys
from app.access.scopes import Scope
from benchmarks.served import Running, serving
from tdmr.errors import Failure
from tests.app.datasets import zips
from tests.app.live import Worker, database_of, publish, ready_dataset
from tests.dashboard.browser import PHONE, Visitor, drop
from tests.support import free_port

NAMES = {
    "/": "Overview",
    "/datasets": "Datasets",
    "/datasets/{dataset}": "Dataset",
    "/new": "New job",
    "/jobs": "Jobs",
    "/jobs/{running}": "Job",
    "/jobs/{failed}": "Job",
    "/students": "Students",
    "/students/{student}": "Student",
    "/compare": "Compare",
    "/access": "Access",
}
GRAVE = ("serious", "critical")
STATUS = ".sheet .badge"
TOO_BIG = Failure(
    code="out_of_memory",
    user_error=True,
    stage="distil",
    detail="The batch doesn't fit.",
    suggestion="Set training.batch_size to 16.",
    change={"options": {"training": {"batch_size": 16}}},
    log=["allocating"],
)


class Scene:
    """A server without workers, and a thing of each kind on it."""

    def __init__(self, server: Running) -> None:
        self.server, self.worker = server, Worker(server)
        self.dataset = ready_dataset(server)
        self.student = publish(server, {"model.onnx": b"onnx", "README.md": b"# Card"})
        with server.client() as http:
            for job in http.get("/v1/jobs", params={"status": "queued"}).json()["data"]:
                http.post(f"/v1/jobs/{job['id']}/cancel")
        self.failed = self.order()
        self.worker.fail(self.worker.claim(), TOO_BIG)
        self.running = self.order()
        self.claim = self.worker.claim()
        self.worker.tell(self.claim, 3)

    def order(self) -> str:
        """A queued job."""
        order = {"dataset_id": self.dataset, "foundation": "letters_vit", "student": "test_resnet"}
        with self.server.client() as http:
            made = http.post("/v1/jobs", json=order)
        assert made.status_code == 201, made.text
        found: str = made.json()["id"]
        return found

    def path(self, form: str) -> str:
        """A page of one of the things."""
        return form.format(**{name: str(value) for name, value in vars(self).items()})


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("service")
    near = {"webhooks_may_reach_private_networks": "1"}
    with serving(folder, "--dashboard", "--no-worker", **near) as server:
        yield Scene(server)


@pytest.fixture
def server(scene: Scene) -> Running:
    return scene.server


def grave(page: Page) -> list[str]:
    """What axe-core calls serious or worse."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {node['html'][:160]}"
        for each in found
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


def test_the_judge_sees_a_fault(visitor: Visitor, scene: Scene) -> None:
    page = visitor.go("/jobs", "Jobs")
    page.evaluate("document.querySelector('.sheet').append(document.createElement('input'))")
    assert [said.partition(":")[0] for said in grave(page)] == ["label"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out(browser: Browser, scene: Scene, scheme: str) -> None:
    visitor = Visitor(browser, scene.server, color_scheme=scheme)
    visitor.page.goto(f"{scene.server.address}/dashboard/sign-in")
    found = {"/sign-in": grave(visitor.page)}
    visitor.sign_in()
    for form, title in NAMES.items():
        found[form] = grave(visitor.go(scene.path(form), title))
    visitor.context.close()
    assert {path: said for path, said in found.items() if said} == {}


def test_on_a_phone_nothing_is_cut_off(browser: Browser, scene: Scene) -> None:
    visitor = Visitor(browser, scene.server, viewport=PHONE).sign_in()
    wide = {}
    for form, title in NAMES.items():
        page = visitor.go(scene.path(form), title)
        wide[form] = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
    visitor.context.close()
    assert {path: over for path, over in wide.items() if over > 0} == {}


def test_nothing_is_asked_of_anybody_else(visitor: Visitor, scene: Scene) -> None:
    for form, title in NAMES.items():
        visitor.go(scene.path(form), title).wait_for_load_state("networkidle")
    assert visitor.strangers() == []
    assert visitor.complaints == []
    assert any("socket.io" in url for url in visitor.asked)


def test_by_keyboard_alone(visitor: Visitor, scene: Scene) -> None:
    page = visitor.go("/jobs", "Jobs")
    link = page.get_by_role("link", name="test_resnet from letters_vit").first
    for _ in range(30):
        page.keyboard.press("Tab")
        if link.evaluate("e => e === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Job")


def test_a_job_moves_without_reloading_and_without_a_jump(visitor: Visitor, scene: Scene) -> None:
    page = visitor.go(f"/jobs/{scene.running}", "Job")
    expect(page.locator(".facts")).to_contain_text("3 of 20")
    pause = page.get_by_role("button", name="Pause")
    pause.focus()
    before = page.locator(".sheet").bounding_box()
    scene.worker.tell(scene.claim, 7)
    expect(page.locator(".facts")).to_contain_text("7 of 20")
    expect(pause).to_be_focused()
    assert page.locator(".sheet").bounding_box() == before


def test_tabs_that_show_the_same_share_what_is_asked(visitor: Visitor, scene: Scene) -> None:
    tabs = [visitor.page, visitor.tab(), visitor.tab()]
    for tab in tabs:
        tab.goto(f"{scene.server.address}/dashboard/jobs/{scene.running}")
    scene.worker.tell(scene.claim, 9)
    for tab in tabs:
        expect(tab.locator(".facts")).to_contain_text("9 of 20")


def test_a_failure_is_explained_and_retried_with_the_change(visitor: Visitor, scene: Scene) -> None:
    page = visitor.go(f"/jobs/{scene.failed}", "Job")
    trouble = page.get_by_role("alert")
    expect(trouble).to_contain_text("Failed in distil: out of memory")
    expect(trouble).to_contain_text("Set training.batch_size to 16.")
    expect(page.locator(".log")).to_contain_text("allocating")
    trouble.get_by_role("button", name="Retry with the change").click()
    expect(page.locator(STATUS).first).to_have_text("○ queued")
    assert page.url != f"{scene.server.address}/dashboard/jobs/{scene.failed}"
    with scene.server.client() as http:
        made = http.get(f"/v1/jobs/{page.url.rpartition('/')[2]}").json()
    assert (made["retry_of"], made["options"]["training"]["batch_size"]) == (scene.failed, 16)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(STATUS).first).to_have_text("— cancelled")


def test_what_would_be_refused_cant_be_submitted(visitor: Visitor, scene: Scene) -> None:
    page = visitor.go("/new", "New job")
    said = page.get_by_role("complementary")
    expect(said).to_contain_text("It would be taken.")
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Image size, pixels").fill("5000")
    page.get_by_label("Image size, pixels").blur()
    expect(said).to_contain_text("less than or equal to 1024")
    expect(page.get_by_role("button", name="Submit")).to_be_disabled()


def test_several_students_are_a_sweep(visitor: Visitor, scene: Scene) -> None:
    page = visitor.go("/new", "New job")
    page.get_by_role("checkbox", name=re.compile("^resnet18 ")).check()
    expect(page.get_by_role("complementary")).to_contain_text("It would be taken.")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sweep")
    lines = page.get_by_role("table", name="Jobs of the sweep").locator("tbody tr")
    expect(lines).to_have_count(2)
    expect(page.locator(".sheet")).to_contain_text("None has been made yet.")
    assert grave(page) == []
    page.get_by_role("button", name="Cancel").click()
    expect(lines.nth(0)).to_contain_text("cancelled")
    expect(lines.nth(1)).to_contain_text("cancelled")
    visitor.go("/jobs", "Jobs").get_by_role("link", name="2 students from letters_vit").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sweep")
    page.get_by_role("link", name="resnet18", exact=True).click()
    page.get_by_role("link", name="its sweep").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sweep")


def test_what_was_broken_off_goes_on_where_it_was(visitor: Visitor, scene: Scene) -> None:
    content = zips.pack({"train/a/noise.png": random.Random(7).randbytes(5000)})
    page = visitor.go("/datasets", "Datasets")
    page.evaluate("tdmr.PIECE = 1000")
    sent: list[int] = []

    def cut(route: Route, request: Request) -> None:
        sent.append(int(request.headers["upload-offset"]))
        route.abort() if len(sent) > 2 else route.continue_()

    page.route("**/v1/uploads/*", lambda route, request: (
        cut(route, request) if request.method == "PATCH" else route.continue_()
    ))  # fmt: skip
    drop(page, "cut.zip", content)
    expect(page.locator(".uploads li")).to_contain_text("broken off; trying again")
    assert sent[:3] == [0, 1000, 2000]
    page.unroute("**/v1/uploads/*")
    page.on(
        "request", lambda r: r.method == "PATCH" and sent.append(int(r.headers["upload-offset"]))
    )
    sent.clear()
    page.reload()
    drop(page, "cut.zip", content)
    expect(page.locator(".uploads li")).to_have_text("cut.zip: uploaded; it is being checked")
    assert [offset for offset in sent if offset >= 0] == [2000]
    with scene.server.client() as http:
        newest = http.get("/v1/datasets").json()["data"][0]
    assert (newest["name"], newest["upload_sha256"]) == ("cut", hashlib.sha256(content).hexdigest())


def test_another_owner_sees_nothing_of_it(browser: Browser, scene: Scene) -> None:
    visitor = Visitor(browser, scene.server).sign_in(key_of(scene.server, "bob"))
    for form in ("/datasets/{dataset}", "/jobs/{running}", "/students/{student}"):
        page = visitor.go(scene.path(form), NAMES[form])
        expect(page.get_by_role("alert")).to_contain_text("There is no such")
    for path in ("/jobs", "/students", "/datasets"):
        page = visitor.go(path, NAMES[path])
        expect(page.locator(".sheet")).to_contain_text("yet.")
    visitor.context.close()


def test_a_key_that_may_not_says_so_and_shows_no_buttons(browser: Browser, scene: Scene) -> None:
    key = key_of(scene.server, "owner", [Scope.JOBS_READ])
    visitor = Visitor(browser, scene.server).sign_in(key)
    page = visitor.go(f"/jobs/{scene.running}", "Job")
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    page = visitor.go("/datasets", "Datasets")
    expect(page.get_by_role("alert")).to_contain_text("lacks the scope datasets:read")
    visitor.context.close()


def test_a_revoked_key_ends_what_is_open(browser: Browser, scene: Scene) -> None:
    key = key_of(scene.server, "carl")
    visitor = Visitor(browser, scene.server).sign_in(key)
    visitor.go("/jobs", "Jobs")
    with database_of(scene.server) as database, database.write() as session:
        caller = keys.authenticate(session, keys.digest(key))
        keys.revoke(session, caller.key_id)
    expect(visitor.page.get_by_label("Access key")).to_be_visible()
    visitor.context.close()


def test_signing_out_in_one_tab_ends_the_others(visitor: Visitor, scene: Scene) -> None:
    other = visitor.tab()
    other.goto(f"{scene.server.address}/dashboard/jobs/{scene.running}")
    expect(other.get_by_role("button", name="Cancel")).to_be_visible()
    visitor.page.get_by_role("button", name="Sign out").click()
    expect(visitor.page.get_by_label("Access key")).to_be_visible()
    expect(other.get_by_label("Access key")).to_be_visible()


def test_a_webhook_is_added_tried_and_removed(visitor: Visitor, scene: Scene) -> None:
    page = visitor.go("/access", "Access")
    page.get_by_text("New webhook", exact=True).click()
    nobody = f"http://127.0.0.1:{free_port()}/hook"
    page.get_by_label("Address (https)").fill(nobody)
    page.get_by_label("Address (https)").blur()
    page.get_by_label("job.succeeded", exact=True).check()
    page.get_by_role("button", name="Add the webhook").click()
    expect(page.locator(".secret")).to_have_text(re.compile("^whsec_"))
    row = page.get_by_role("row", name=nobody)
    expect(row).to_contain_text("job.succeeded")
    row.get_by_role("button", name="Test").click()
    expect(page.get_by_text("A ping is on its way.")).to_be_visible()
    row.get_by_role("button", name="Deliveries").click()
    expect(page.get_by_role("row", name=re.compile("^ping "))).to_be_visible()
    row.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(row).to_have_count(0)


def test_keys_are_made_shown_once_and_revoked(visitor: Visitor, scene: Scene) -> None:
    page = visitor.go("/access", "Access")
    page.get_by_text("New key", exact=True).click()
    page.get_by_label("New key's name").fill("nightly")
    page.get_by_label("New key's name").blur()
    page.get_by_label("jobs:read", exact=True).check()
    page.get_by_role("button", name="Make the key").click()
    token = page.locator(".secret").inner_text()
    with scene.server.client() as http:
        headers = {"Authorization": f"Bearer {token}"}
        assert http.get("/v1/jobs", headers=headers).status_code == 200
        row = page.get_by_role("row", name=re.compile("^nightly"))
        row.get_by_role("button", name="Revoke").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(row).to_contain_text("revoked")
        assert http.get("/v1/jobs", headers=headers).status_code == 401


def test_a_restarted_server_is_found_again(browser: Browser, tmp_path: Path) -> None:
    port = str(free_port())
    with serving(tmp_path, "--dashboard", "--no-worker", "--port", port) as server:
        key, dataset = server.key, ready_dataset(server)
        visitor = Visitor(browser, server).sign_in()
        page = visitor.go("/datasets", "Datasets")
        expect(page.locator(STATUS)).to_have_count(1)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
    with serving(tmp_path, "--dashboard", "--no-worker", "--port", port, key=key) as server:
        ready_dataset(server)
        expect(page.locator(STATUS)).to_have_count(2)  # signed in still, and nothing reloaded by us
        assert dataset in page.locator("tbody").inner_html()
    visitor.context.close()


def key_of(server: Running, owner: str, scopes: list[Scope] | None = None) -> str:
    """Another key."""
    with database_of(server) as database, database.write() as session:
        _, token = keys.create(session, owner=owner, name=owner, scopes=scopes or list(Scope))
    return token
