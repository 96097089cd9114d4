"""`tdmr datasets`: images sent, and what was found."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from app.models import Dataset
from benchmarks.served import Running
from tests.app.live import database_of, ready_dataset
from tests.shapes import draw_dataset
from tests.tdmr.client import answers
from tests.tdmr.client.misbehaving import misbehaving, says
from tests.tdmr.commands.conftest import Call, said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of class folders."""
    draw_dataset(tmp_path / "my shapes", {"train": 2})
    (tmp_path / "my shapes" / "train" / "circle" / "ö.txt").write_text("no image")
    return tmp_path / "my shapes"


def test_a_folder_is_packed_as_it_is_and_sent(call: Call, here: Running, folder: Path) -> None:
    done = call("datasets", "upload", folder, "--json")
    assert done.status == 0, done.error
    found = json.loads(done.out)
    assert found["name"] == "my shapes"
    assert found == said(here, f"datasets/{found['id']}") | {"check": found["check"]}
    (stored,) = (here.data / "storage").rglob(f"*{found['id']}*")
    with zipfile.ZipFile(io.BytesIO(stored.read_bytes())) as packed:
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        assert {info.filename for info in packed.infolist()} == set(files)
        assert {info.compress_type for info in packed.infolist()} == {zipfile.ZIP_STORED}
        assert all(packed.read(name) == path.read_bytes() for name, path in files.items())


def test_progress_goes_to_stderr(call: Call, here: Running, folder: Path) -> None:
    done = call("datasets", "upload", folder, "--name", "mine")
    assert "packed" in done.error
    assert "sent" in done.error
    assert done.out.splitlines()[1:] == ["name     mine", "status   processing"]


def test_an_empty_folder_is_wrong_use(call: Call, here: Running, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = call("datasets", "upload", tmp_path / "empty")
    assert (done.status, done.out) == (2, "")
    assert "There are no files in" in done.error
    assert call("datasets", "upload", tmp_path / "nowhere").status == 2


def test_what_is_no_archive_is_refused(call: Call, here: Running, tmp_path: Path) -> None:
    (tmp_path / "not.zip").write_bytes(b"hello")
    done = call("datasets", "upload", tmp_path / "not.zip")
    assert done.status == 3
    assert "422 not_an_archive" in done.error


def test_datasets_are_listed_and_shown(call: Call, here: Running) -> None:
    dataset_id = ready_dataset(here)
    found = json.loads(call("datasets", "list", "--limit", "1", "--json").out)
    assert found == said(here, "datasets", limit=1)["data"]
    assert found[0]["id"] == dataset_id
    assert f"│ {dataset_id} │ digits" in call("datasets", "list").out
    shown = call("datasets", "show", dataset_id)
    assert (shown.status, shown.out.splitlines()[2]) == (0, "status   ready")
    in_json = json.loads(call("datasets", "show", dataset_id, "--json").out)
    assert in_json == said(here, f"datasets/{dataset_id}")
    report = call("datasets", "report", dataset_id)
    assert (report.status, report.out) == (0, f"{dataset_id} is ready; nothing was found.\n")
    assert call("datasets", "show", "ds_none").status == 3


def test_an_invalid_one_is_1_and_lists_its_findings(call: Call, here: Running) -> None:
    dataset_id = ready_dataset(here)
    finding = {
        "code": "x",
        "severity": "error",
        "file": "a\x1b]0;b.png",
        "detail": "No.",
        "advice": "Go.",
    }
    with database_of(here) as database, database.write() as session:
        row = session.get_one(Dataset, dataset_id)
        row.status, row.findings = "invalid", [finding]
    told = "error: a\\x1b]0;b.png: No. Go.\n"
    for command in ("show", "report"):
        done = call("datasets", command, dataset_id)
        assert done.status == 1
        assert done.out.endswith(told)
        assert call("datasets", command, dataset_id, "--json").status == 1


def test_upload_can_wait_for_the_check(call: Call, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    script = [says(answers.dataset(status)) for status in ("processing", "processing", "invalid")]
    with misbehaving(*script) as server:
        known = {"TDMR_URL": server.address, "TDMR_KEY": "k"}
        done = call("datasets", "upload", tmp_path / "a.zip", "--wait", "--json", **known)
    assert (done.status, json.loads(done.out)["status"]) == (1, "invalid")


def test_an_audit_is_summed_up(call: Call) -> None:
    counts = {"duplicates": 3, "leaks": 0, "mislabels": 1}
    audit = {"job_id": "job_1", "foundation": "letters_vit", "counts": counts}
    audit |= {"duplicates": [], "leaks": [], "mislabels": []}
    told = {"dataset_id": "ds_1", "status": "ready", "findings": [], "audit": audit}
    with misbehaving(says(told)) as server:
        done = call("datasets", "report", "ds_1", TDMR_URL=server.address, TDMR_KEY="k")
    assert done.out.splitlines() == [
        "audit: 3 duplicates",
        "audit: 0 leaks",
        "audit: 1 mislabels",
        "--json has the images; the foundation was letters_vit.",
    ]
