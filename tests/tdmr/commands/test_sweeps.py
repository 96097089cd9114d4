"""`tdmr sweeps`, dry runs, and what is deleted and restored."""

from __future__ import annotations

import json

import pytest

from benchmarks.served import Running
from tests.app.live import publish
from tests.tdmr.commands.conftest import Call, said

FILES = {"config.json": b"{}\n"}
ORDER = ("--foundation", "letters_vit", "--student", "test_resnet")


@pytest.fixture(scope="module")
def student_id(server: Running) -> str:
    return publish(server, FILES)


@pytest.fixture
def dataset_id(here: Running, student_id: str) -> str:
    found: str = said(here, f"students/{student_id}")["dataset_id"]
    return found


def test_a_sweep_is_ordered_shown_and_called_off(
    call: Call, here: Running, dataset_id: str
) -> None:
    asked = ("sweeps", "submit", "--dataset", dataset_id, *ORDER, "--student", "test_vit")
    done = call(*asked, "--name", "which?", "--baseline", "scratch", "--json")
    made = json.loads(done.out)
    assert (made["name"], made["students"]) == ("which?", ["test_resnet", "test_vit"])
    assert made["baselines"] == ["scratch"]
    shown = call("sweeps", "show", made["id"]).out
    assert f"sweep       {made['id']}\n" in shown
    assert "│ test_vit    │ queued │" in shown
    listed = json.loads(call("sweeps", "list", "--json").out)
    assert [row["id"] for row in listed] == [made["id"]]
    assert made["id"] in call("sweeps", "list").out
    over = json.loads(call("sweeps", "cancel", made["id"], "--json").out)
    assert (over["status"], over["counts"]["cancelled"]) == ("ended", 2)
    assert call("sweeps", "show", "swp_none").status == 3


def test_a_dry_run_says_what_would_come_and_orders_nothing(
    call: Call, here: Running, dataset_id: str
) -> None:
    before = said(here, "jobs")["data"]
    good = call("jobs", "submit", "--dry-run", "--dataset", dataset_id, *ORDER, "--json")
    assert (good.status, json.loads(good.out)["ok"]) == (0, True)
    bad = call("jobs", "submit", "--dry-run", "--dataset", "ds_none", *ORDER)
    assert bad.status == 3
    assert "error: /dataset_id You have no such dataset." in bad.out
    sweep = ("sweeps", "submit", "--dry-run", *ORDER, "--student", "test_vit", "--dataset")
    good = call(*sweep, dataset_id, "--json")
    assert (good.status, json.loads(good.out)["ok"]) == (0, True)
    bad = call(*sweep, "ds_none", "--student", "resnet81")
    assert bad.status == 3
    assert "error: /students/2 " in bad.out
    assert said(here, "jobs")["data"] == before


def test_what_is_deleted_can_be_restored(call: Call, here: Running, student_id: str) -> None:
    assert call("students", "delete", student_id).out == f"{student_id} is deleted.\n"
    assert call("students", "show", student_id).status == 3
    assert json.loads(call("students", "restore", student_id, "--json").out)["id"] == student_id
    assert call("students", "show", student_id).status == 0


def test_what_is_deleted_permanently_is_gone(call: Call, here: Running) -> None:
    gone = publish(here, FILES)
    job_id = said(here, f"students/{gone}")["job_id"]
    done = call("students", "delete", gone, "--permanently", "--json")
    assert json.loads(done.out) == {"id": gone, "deleted": True}
    assert call("students", "restore", gone).status == 3
    assert call("jobs", "delete", job_id).status == 3  # it hasn't ended
    assert call("jobs", "cancel", job_id).status == 0
    assert call("jobs", "delete", job_id).status == 0
    assert call("jobs", "restore", job_id).status == 0
