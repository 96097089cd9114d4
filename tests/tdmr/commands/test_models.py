"""`tdmr models`: the catalog, and foundations of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.foundations import service
from app.jobs import ledger, moves
from benchmarks.served import Running
from tdmr.own import Report
from tdmr.wire.datasets import Finding
from tests.app.foundations.files import GOOD
from tests.app.live import database_of
from tests.app.service import FITS
from tests.tdmr.commands.conftest import Call, said

MISFIT = Finding(code="model_weights", severity="error", detail="It differs.", advice="Mend it.")
SEND = ("models", "upload", "--architecture", "test_vit")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "ours.safetensors"
    path.write_bytes(GOOD)
    return path


def settle(server: Running, report: Report) -> None:
    """Play the worker that checks the next one."""
    with database_of(server) as database, database.write() as session:
        claim = moves.claim(session, worker="w", lease_seconds=60, kinds=["model"])
        assert claim is not None
        assert claim.model_id is not None
        service.settle(session, claim.model_id, report)
        ledger.succeed(session, claim, {})


def test_weights_are_sent_shown_deleted_and_restored(
    call: Call, here: Running, weights: Path
) -> None:
    done = call(*SEND, weights, "--licence", "mit", "--json")
    made = json.loads(done.out)
    assert (done.status, made["name"], made["licence"]) == (0, "ours", "mit")
    assert made == said(here, f"models/{made['id']}")
    settle(here, FITS)
    shown = call("models", "show", made["id"])
    assert shown.status == 0
    assert "status        ready\n" in shown.out
    assert "parameters    306,240\n" in shown.out
    assert [row["id"] for row in json.loads(call("models", "list", "--own", "--json").out)] == [
        made["id"]
    ]
    assert made["id"] in call("models", "list", "--own").out
    assert made["id"] not in call("models", "list").out
    assert call("models", "delete", made["id"]).out == f"{made['id']} is deleted.\n"
    assert call("models", "list", "--own", "--json").out == "[]\n"
    assert call("models", "show", made["id"]).status == 3
    assert call("models", "restore", made["id"]).status == 0


def test_what_doesnt_fit_ends_with_1_and_is_explained(
    call: Call, here: Running, weights: Path
) -> None:
    done = call(*SEND, weights, "--name", "mine")
    assert "sent" in done.error
    assert "status        processing" in done.out
    settle(here, Report(findings=[MISFIT]))
    (newest,) = json.loads(call("models", "list", "--own", "--limit", 1, "--json").out)
    shown = call("models", "show", newest["id"])
    assert (newest["name"], shown.status) == ("mine", 1)
    assert "error: It differs. Mend it." in shown.out


def test_wrong_use_and_refusals(call: Call, here: Running, weights: Path) -> None:
    assert call(*SEND, weights.with_name("nowhere")).status == 2
    assert call("models", "upload", weights).status == 2  # of no architecture
    assert call("models", "list", "--own", "--role", "student").status == 2
    weights.write_bytes(b"\x80\x02}q\x00.")
    refused = call(*SEND, weights)
    assert refused.status == 3
    assert "a pickle" in refused.error
    assert "Did you mean" in call("models", "upload", weights, "--architecture", "resnet81").error
