"""What would become of an order, asked by both clients."""

from __future__ import annotations

from benchmarks.served import Running
from tests.tdmr.client.conftest import Ask

OPTIONS = {"seed": 3}


def test_of_a_job(server: Running, ask: Ask) -> None:
    order = ("ds_none", "letters_vit", "resnet81")
    found = ask(server.address, lambda client: client.check(*order, options=OPTIONS), server.key)
    said = [(each.pointer, each.code) for each in found.findings if each.severity == "error"]
    assert said == [("/student", "unknown_model"), ("/dataset_id", "unknown_dataset")]
    assert (found.ok, found.estimate) == (False, None)


def test_of_a_sweep(server: Running, ask: Ask) -> None:
    order = ("ds_none", "letters_vit", ["resnet18", "resnet81"])
    found = ask(
        server.address,
        lambda client: client.check_sweep(*order, options=OPTIONS, max_seconds=9, name="n"),
        server.key,
    )
    said = [(each.pointer, each.code) for each in found.findings if each.severity == "error"]
    assert said == [("/dataset_id", "unknown_dataset"), ("/students/1", "unknown_model")]
    assert (found.ok, found.estimate) == (False, None)
    listed = ask(server.address, lambda client: client.sweeps(), server.key)
    assert listed == []
