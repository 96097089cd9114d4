"""Foundations of one's own by both clients: sent, listed, waited for, deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.cli import FIRST_OWNER
from app.foundations import service
from app.jobs import ledger, moves
from benchmarks.served import Running
from tdmr.client import ConflictError, DigestError, InvalidError
from tests.app.foundations.files import GOOD, header, pack
from tests.app.live import database_of
from tests.app.service import FITS
from tests.tdmr.client.conftest import Ask
from tests.tdmr.client.misbehaving import hands_on, misbehaving

BIG = (1 << 20) + 1000  # bytes of numbers: more than one piece


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of a little more than a mebibyte."""
    long = {"dtype": "U8", "shape": [BIG - 24], "data_offsets": [24, BIG]}
    path = tmp_path / "ours.safetensors"
    path.write_bytes(pack(header(long=long), bytes(BIG)))
    return path


def settle(server: Running, model_id: str) -> None:
    """Play the worker that finds it good."""
    with database_of(server) as database, database.write() as session:
        claim = moves.claim(session, worker="w", lease_seconds=60, kinds=["model"])
        assert claim is not None
        assert (claim.owner, claim.model_id) == (FIRST_OWNER, model_id)
        service.settle(session, model_id, FITS)
        ledger.succeed(session, claim, {})


def test_from_the_file_to_a_ready_model_and_back_from_deletion(
    ask: Ask, server: Running, weights: Path
) -> None:
    seen: list[tuple[int, int]] = []

    def of(do: Any) -> Any:
        return ask(server.address, do, server.key)

    made = of(
        lambda client: client.upload_model(
            weights, "test_vit", "ours", licence="mit", on_progress=lambda *told: seen.append(told)
        )
    )
    total = weights.stat().st_size
    assert seen == [(1 << 20, total), (total, total)]
    assert (made.status, made.settled, made.bytes) == ("processing", False, total)
    assert (made.name, made.architecture, made.licence) == ("ours", "test_vit", "mit")
    with pytest.raises(ConflictError, match="model_in_use"):
        of(lambda client: client.delete_model(made.id))
    with pytest.raises(TimeoutError, match=made.id):
        of(lambda client: client.wait_for_model(made.id, timeout=0.0))
    settle(server, made.id)
    found = of(lambda client: client.wait_for_model(made.id))
    assert (found.status, found.settled, found.params) == ("ready", True, 306_240)
    assert of(lambda client: client.own_models())[0].id == made.id
    of(lambda client: client.delete_model(made.id))
    assert made.id not in [each.id for each in of(lambda client: client.own_models())]
    assert of(lambda client: client.restore_model(made.id)).status == "ready"
    of(lambda client: client.delete_model(made.id, permanently=True))


def test_what_is_sent_again_makes_one(ask: Ask, server: Running, weights: Path) -> None:
    seen: list[int] = []

    def send(client: Any) -> Any:
        return client.upload_model(
            weights, "test_vit", on_progress=lambda done, total: seen.append(done)
        )

    with misbehaving(hands_on(server.address, lost=True), hands_on(server.address)) as between:
        made = ask(between.address, send, server.key)
    first, again = between.asked
    assert first.body == again.body == weights.read_bytes()
    assert first.headers["Idempotency-Key"] == again.headers["Idempotency-Key"]
    assert seen == [1 << 20, len(first.body)] * 2
    with server.client() as http:
        page = http.get("/v1/models", params={"owned": "true", "limit": 2}).json()
    assert [row["id"] for row in page["data"]].count(made.id) == 1
    settle(server, made.id)
    ask(server.address, lambda client: client.delete_model(made.id, permanently=True), server.key)


def test_what_arrived_otherwise_than_it_was_sent_is_noticed(
    ask: Ask, server: Running, tmp_path: Path
) -> None:
    path = tmp_path / "ours.safetensors"
    path.write_bytes(GOOD)

    def swap(asked: Any) -> Any:
        path.write_bytes(GOOD[:-1] + b"x")
        return hands_on(server.address)(asked)

    with misbehaving(swap) as between, pytest.raises(DigestError, match="another SHA-256"):
        ask(between.address, lambda client: client.upload_model(path, "test_vit"), server.key)
    with server.client() as http:
        model_id = http.get("/v1/models?owned=true").json()["data"][0]["id"]
    settle(server, model_id)


def test_a_refusal_says_why(ask: Ask, server: Running, tmp_path: Path) -> None:
    path = tmp_path / "ours.pt"
    path.write_bytes(b"PK\x03\x04" + bytes(5 << 20))  # refused while it is still being sent
    with pytest.raises(InvalidError, match=r"torch\.save"):
        ask(server.address, lambda client: client.upload_model(path, "test_vit"), server.key)
    with pytest.raises(InvalidError, match="unknown_model"):
        ask(server.address, lambda client: client.upload_model(path, "test_vitt"), server.key)
