"""`tdmr students` and `tdmr models`: looked at, fetched, used, chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.served import Running
from tdmr import catalog
from tests.app.live import publish
from tests.app.networks import CLASSES, Networks, exported
from tests.shapes import draw
from tests.tdmr.commands.conftest import Call, said

FILES = {"config.json": b"{}\n", "model.safetensors": bytes(range(256))}


@pytest.fixture(scope="module")
def student_id(server: Running) -> str:
    """A student that can predict."""
    return publish(server, {**FILES, "model.onnx": Networks().onnx()}, exported("model.onnx"))


def test_students_are_listed_and_shown(call: Call, here: Running, student_id: str) -> None:
    in_json = call("students", "list", "--json").out
    assert json.loads(in_json) == said(here, "students")["data"]
    assert f"│ {student_id} │ test_resnet  │ letters_vit │ 0.900" in call("students", "list").out
    shown = call("students", "show", student_id).out
    assert f"student       {student_id}\n" in shown
    assert "parameters    1,000\n" in shown
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in shown.splitlines()
        if "│" in line
    ]
    assert ["scratch", "0.800", "0.700 to 0.900"] in rows
    assert ["tdmr", "0.900", "0.800 to 0.950"] in rows
    files = json.loads(call("students", "show", student_id, "--json").out)["files"]
    assert [[row["name"], f"{row['bytes']:,}", row["sha256"]] for row in files] == rows[
        -len(files) :
    ]


def test_a_student_is_fetched_once(
    call: Call, here: Running, student_id: str, tmp_path: Path
) -> None:
    done = call("students", "download", student_id, tmp_path / "one", "--json")
    assert json.loads(done.out) == {"student_id": student_id, "folder": str(tmp_path / "one")}
    assert "fetched" in done.error
    assert {name: (tmp_path / "one" / name).read_bytes() for name in FILES} == FILES
    again = call("students", "download", student_id, tmp_path / "one")
    assert (again.status, again.out) == (2, "")
    assert "exists already" in again.error
    assert call("students", "download", "stu_none", tmp_path / "two").status == 3


def test_a_student_says_what_images_show(
    call: Call, here: Running, student_id: str, tmp_path: Path
) -> None:
    images = [tmp_path / f"{label}.png" for label in ("circle", "square")]
    for image in images:
        draw(image.stem, 1).save(image)
    done = call("students", "predict", student_id, *images, "--top", "3", "--json")
    found = json.loads(done.out)
    assert [row["image"] for row in found] == [str(image) for image in images]
    assert {each["name"] for each in found[0]["classes"]} == set(CLASSES)
    assert sum(each["probability"] for each in found[0]["classes"]) == pytest.approx(1, abs=1e-5)
    table = call("students", "predict", student_id, images[0], "--top", "1").out
    best = found[0]["classes"][0]
    assert f"{best['name']} " in table
    assert f"{best['probability']:.3f}" in table
    assert call("students", "predict", student_id, tmp_path / "none.png").status == 2


def test_models_of_the_server_and_of_this_installation(call: Call, here: Running) -> None:
    listed = json.loads(call("models", "list", "--role", "student", "--json").out)
    assert listed == said(here, "models", role="student")["data"]
    own = json.loads(call("models", "--role", "student", "--json").out)
    assert [row["name"] for row in own] == [row["name"] for row in listed]
    assert own[0] == catalog.entries("student")[0].model_dump(mode="json")
    assert "374" not in call("models", "list", "--role", "foundation").out
    assert call("models", "list", "--role", "teacher").status == 2


def test_recommendations_name_the_reason(call: Call, here: Running) -> None:
    limits = ("--max-params", "500000", "--max-latency-ms", "5.5", "--max-file-bytes", "9000000")
    done = call("models", "recommend", *limits, "--json")
    query = {"max_params": 500000, "max_latency_ms": 5.5, "max_file_bytes": 9000000}
    assert json.loads(done.out) == said(here, "models/recommendations", **query)
    table = call("models", "recommend", *limits).out
    assert "test_resnet" in table
    assert "not measured" in table
    unknown = call("models", "recommend", "--machine", "abacus")
    assert unknown.status == 3
    assert "/query/machine" in unknown.error
