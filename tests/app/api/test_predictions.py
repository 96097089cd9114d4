"""/v1/students/{id}/predict: a real network's answers, what isn't taken, and the bounds."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image

from app.access.scopes import Scope
from app.api.core import Core
from app.students.network import Network
from tests.app.conftest import MakeKey
from tests.app.networks import CLASSES, TEMPERATURE, Networks, by_script, endless, exported
from tests.app.service import BUNDLE, METRICS, Service
from tests.shapes import draw
from tests.support import wait_until

PNG = {"Content-Type": "image/png"}


def encoded(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(draw("cross", 505, 80).crop((0, 0, 80, 50)), "JPEG", exif=exif)


PICTURES = {
    "square.png": encoded(draw("circle", 501)),
    "wide.png": encoded(draw("cross", 502, 97).crop((0, 10, 97, 71))),
    "tall.jpg": encoded(draw("square", 503, 131).crop((20, 0, 96, 131)), "JPEG", quality=90),
    "thin.webp": encoded(draw("circle", 504, 33).resize((33, 201)), "WEBP", lossless=True),
    "turned.jpg": turned(),
    "palette.png": encoded(draw("square", 506, 64).quantize(16)),
    "grey.png": encoded(draw("circle", 507, 64).convert("L")),
    "small.png": encoded(draw("square", 508, 9)),
}
SQUARE = PICTURES["square.png"]


@pytest.fixture
def student(service: Service, networks: Networks) -> str:
    """A student's address."""
    return f"/v1/students/{service.student(*networks.bundle())['id']}/predict"


def form(*images: bytes, name: str = "image") -> list[tuple[str, tuple[str, bytes]]]:
    return [(name, (f"{place}.png", image)) for place, image in enumerate(images)]


def chances(prediction: dict[str, Any]) -> dict[str, float]:
    return {row["name"]: row["probability"] for row in prediction["classes"]}


@pytest.mark.parametrize("channels", [3, 1])
def test_it_answers_as_the_bundles_own_script(
    service: Service, networks: Networks, tmp_path: Path, channels: int
) -> None:
    made = service.student(*networks.bundle(channels=channels))
    response = service.client.post(
        f"/v1/students/{made['id']}/predict", files=form(*PICTURES.values())
    )
    assert response.status_code == 200, response.text
    found = response.json()
    assert found["student_id"] == made["id"]
    assert (found["file"], found["temperature"]) == ("model.onnx", TEMPERATURE)
    assert len({str(prediction) for prediction in found["predictions"]}) == len(PICTURES)
    content = networks.onnx(channels=channels)
    for (name, data), prediction in zip(PICTURES.items(), found["predictions"], strict=True):
        (tmp_path / name).write_bytes(data)
        script = by_script(content, tmp_path / name, tmp_path)
        assert list(chances(prediction)) == list(script)
        assert chances(prediction) == pytest.approx(script, abs=2e-6)
        assert sum(chances(prediction).values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "image/webp", "Image/PNG; q=1"])
def test_one_image_is_the_body_and_its_bytes_say_what_it_is(
    service: Service, student: str, kind: str
) -> None:
    alone = service.client.post(student, content=SQUARE, headers={"Content-Type": kind}).json()
    both = service.client.post(student, files=form(PICTURES["tall.jpg"], SQUARE)).json()
    assert alone["predictions"] == both["predictions"][1:]


def test_only_the_best_classes(service: Service, student: str) -> None:
    (whole,) = service.client.post(student, content=SQUARE, headers=PNG).json()["predictions"]
    assert sorted(chances(whole)) == CLASSES
    for top in (1, 2, 3, 1000):
        response = service.client.post(f"{student}?top={top}", content=SQUARE, headers=PNG)
        (found,) = response.json()["predictions"]
        assert found["classes"] == whole["classes"][:top]
    for top in ("0", "1001", "x"):
        response = service.client.post(f"{student}?top={top}", content=SQUARE, headers=PNG)
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == "/query/top"


def test_it_takes_a_scope_of_its_own(
    anonymous: TestClient, make_key: MakeKey, student: str
) -> None:
    """Who may classify needn't see a student, and who sees it may not spend the server's time."""
    for scope, status in ((Scope.STUDENTS_PREDICT, 200), (Scope.STUDENTS_READ, 403)):
        headers = {**PNG, "Authorization": f"Bearer {make_key('ana', scope)}"}
        assert anonymous.post(student, content=SQUARE, headers=headers).status_code == status


def problem(response: Response) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


def test_what_has_no_onnx_file_says_why(service: Service) -> None:
    reason = "it agrees on 0.5000 of the images, less than 0.99"
    scenes = {
        "before there were": METRICS,
        "asked for none": exported(),
        f"model.onnx: {reason}.": exported(refused={"model.onnx": reason}),
    }
    for words, metrics in scenes.items():
        made = service.student(metrics=metrics)
        response = service.client.post(
            f"/v1/students/{made['id']}/predict", content=SQUARE, headers=PNG
        )
        assert problem(response) == (409, "no_onnx")
        assert words in response.json()["detail"]


def test_the_quantised_file_answers_where_there_is_no_other(
    service: Service, networks: Networks
) -> None:
    metrics = exported("model.int8.onnx", refused={"model.onnx": "it drifts"})
    made = service.student({**BUNDLE, "model.int8.onnx": networks.onnx()}, metrics)
    response = service.client.post(
        f"/v1/students/{made['id']}/predict", content=SQUARE, headers=PNG
    )
    assert response.json()["file"] == "model.int8.onnx"


BOMB = encoded(Image.new("L", (6000, 6000)))
WRONG = {
    "unsupported_image": [b"hello", b"GIF89a....", BUNDLE["model.safetensors"], b"\xff"],
    "unreadable_image": [SQUARE[:200], b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + bytes(99)],
    "image_too_large": [BOMB],
}


@pytest.mark.parametrize("code", WRONG)
def test_an_image_that_cant_be_taken(service: Service, student: str, code: str) -> None:
    for content in WRONG[code]:
        response = service.client.post(student, content=content, headers=PNG)
        assert problem(response) == (422, "bad_images")
        (error,) = response.json()["errors"]
        assert (error["pointer"], error["code"]) == ("/0", code)
        assert error["detail"].startswith("Image 0 ")
        assert error["detail"].count(". ") == 1  # what is wrong, and what to do


def test_all_images_that_cant_be_taken_are_listed(service: Service, student: str) -> None:
    images = [SQUARE, b"hello", SQUARE, SQUARE[:200], b""]
    response = service.client.post(student, files=form(*images))
    assert problem(response) == (422, "bad_images")
    assert [(error["pointer"], error["code"]) for error in response.json()["errors"]] == [
        ("/1", "unsupported_image"),
        ("/3", "unreadable_image"),
        ("/4", "unsupported_image"),
    ]


def test_a_file_that_is_too_large_isnt_decoded(service: Service, student: str) -> None:
    settings = service.core.settings
    object.__setattr__(settings, "max_prediction_image_bytes", len(SQUARE))
    response = service.client.post(student, files=form(SQUARE, SQUARE + b"\0"))
    assert problem(response) == (422, "bad_images")
    (error,) = response.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/1", "image_too_large")


def test_too_many_too_much_or_nothing(service: Service, student: str) -> None:
    client, settings = service.client, service.core.settings
    most = settings.max_prediction_images
    assert client.post(student, files=form(*[SQUARE] * most)).status_code == 200
    assert problem(client.post(student, files=form(*[SQUARE] * (most + 1)))) == (422, "bad_images")
    large = bytes(settings.max_prediction_bytes + 1)
    assert problem(client.post(student, content=large, headers=PNG)) == (413, "too_large")
    assert problem(client.post(student, headers=PNG)) == (422, "empty_body")
    for kind in ("text/plain", "application/json", "image/gif", ""):
        response = client.post(student, content=SQUARE, headers={"Content-Type": kind})
        assert problem(response) == (415, "unsupported_media_type")
    response = client.post(student, files=form(SQUARE, name="file"))
    assert problem(response) == (422, "bad_images")
    assert response.json()["errors"][0]["allowed"] == ["image"]
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert problem(client.post(student, content=b"?", headers=broken)) == (400, "bad_request")


def test_twenty_at_once(service: Service, student: str) -> None:
    expected = service.client.post(student, files=form(*PICTURES.values())).json()["predictions"]
    barrier = threading.Barrier(20)

    def ask(place: int) -> dict[str, Any]:
        barrier.wait()
        data = list(PICTURES.values())[place % len(PICTURES)]
        response = service.client.post(student, content=data, headers=PNG)
        assert response.status_code == 200, response.text
        (found,) = response.json()["predictions"]
        return found

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(ask, range(20)))
    assert found == [expected[place % len(PICTURES)] for place in range(20)]


class Gate:
    """Holds every classification up until it's opened, or the request is stopped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inside, self.most = 0, 0
        self.opened, self._lock = threading.Event(), threading.Lock()
        classify = Network.classify

        def held(network: Network, image: Image.Image, stop: Any) -> Any:
            with self._lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            try:
                while not self.opened.wait(0.01):
                    stop.check()
                return classify(network, image, stop)
            finally:
                with self._lock:
                    self.inside -= 1

        monkeypatch.setattr(Network, "classify", held)


def test_no_more_than_may_be_are_worked_on_and_taken(
    service: Service, student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = service.core.settings
    gate = Gate(monkeypatch)
    room = settings.max_predictions + settings.max_waiting_predictions

    def ask(_: int) -> Response:
        return service.client.post(student, content=SQUARE, headers=PNG)

    with ThreadPoolExecutor(room + 1) as pool:
        asked = [pool.submit(ask, place) for place in range(room)]
        wait_until(lambda: gate.inside == settings.max_predictions)
        wait_until(lambda: not service.core.pool._places)
        refused = ask(0)
        gate.opened.set()
        assert {each.result().status_code for each in asked} == {200}
    assert problem(refused) == (503, "busy")
    assert refused.headers["Retry-After"] == "1"
    assert gate.most == settings.max_predictions
    assert ask(0).status_code == 200


@pytest.fixture
def hurried(settings: Any) -> None:
    """A server whose predictions wait but shortly for their turn: asked for before `service`."""
    object.__setattr__(settings, "prediction_wait_seconds", 0.05)


@pytest.fixture
def impatient(settings: Any) -> None:
    """A server whose predictions work but shortly: asked for before `service`."""
    object.__setattr__(settings, "prediction_seconds", 0.5)


def test_a_turn_that_doesnt_come(
    hurried: None, service: Service, student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    at_once = service.core.settings.max_predictions

    def ask(_: int) -> Response:
        return service.client.post(student, content=SQUARE, headers=PNG)

    with ThreadPoolExecutor(at_once) as pool:
        asked = [pool.submit(ask, place) for place in range(at_once)]
        wait_until(lambda: gate.inside == at_once)
        refused = ask(0)
        gate.opened.set()
        assert [each.result().status_code for each in asked] == [200] * at_once
    assert problem(refused) == (503, "busy")
    assert "Retry-After" in refused.headers


def test_work_that_doesnt_end(
    impatient: None, service: Service, student: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    for _ in range(service.core.settings.max_predictions + 1):
        late = service.client.post(student, content=SQUARE, headers=PNG)
        assert problem(late) == (503, "prediction_timeout")
        assert "Retry-After" in late.headers
    gate.opened.set()
    works_again(service, student)


def works_again(service: Service, student: str) -> None:
    """A slow machine needs more than the impatient server's time to load the student, once."""
    wait_until(lambda: service.client.post(student, content=SQUARE, headers=PNG).status_code == 200)


def test_a_network_that_doesnt_end_is_stopped(
    impatient: None, service: Service, student: str
) -> None:
    files = {**BUNDLE, "model.onnx": endless()}
    made = service.student(files, exported("model.onnx"))["id"]
    for _ in range(service.core.settings.max_predictions + 1):
        response = service.client.post(f"/v1/students/{made}/predict", content=SQUARE, headers=PNG)
        assert problem(response) == (503, "prediction_timeout")
    works_again(service, student)


def test_a_file_that_was_damaged_on_disk(
    service: Service, student: str, core: Core, networks: Networks
) -> None:
    (stored,) = core.storage.root.rglob("model.onnx")
    stored.write_bytes(networks.onnx()[:-1] + b"?")
    for damage in (lambda: None, stored.unlink):
        damage()
        response = service.client.post(student, content=SQUARE, headers=PNG)
        assert problem(response) == (500, "damaged_file")
        assert "model.onnx" in response.json()["detail"]
        assert str(core.storage.root) not in response.text
        assert "students/stu_" not in response.json()["detail"]
    stored.write_bytes(networks.onnx())
    assert service.client.post(student, content=SQUARE, headers=PNG).status_code == 200


def test_a_student_is_loaded_once_and_makes_room(
    service: Service, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    init = Network.__init__

    def noted(network: Network, content: bytes, threads: int) -> None:
        loaded.append(hash(content))
        init(network, content, threads)

    monkeypatch.setattr(Network, "__init__", noted)
    most = service.core.settings.max_sessions
    students = [service.student(*networks.bundle(seed=seed))["id"] for seed in range(most + 1)]

    def ask(student: str) -> Any:
        url = f"/v1/students/{student}/predict"
        return service.client.post(url, content=SQUARE, headers=PNG).json()["predictions"]

    first = [ask(student) for student in students[:most]]
    assert [ask(student) for student in students[:most]] == first
    assert len({str(each) for each in first}) == most == len(loaded)
    ask(students[most])
    assert len(service.core.pool.sessions.keys()) == most
    ask(students[1])
    assert len(loaded) == most + 1
    assert ask(students[0]) == first[0]
    assert len(loaded) == most + 2


def test_it_is_described(app: FastAPI) -> None:
    made = app.openapi()["paths"]["/v1/students/{student_id}/predict"]["post"]
    assert list(made["requestBody"]["content"]) == [
        "image/jpeg",
        "image/png",
        "image/webp",
        "multipart/form-data",
    ]
    assert made["security"] == [{"key": ["students:predict"]}]
