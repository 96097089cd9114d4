"""An older client reads what a newer server says."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tdmr.client.bound import BoundDataset, BoundJob, BoundStudent
from tdmr.client.reading import read
from tdmr.wire.base import Page
from tdmr.wire.jobs import EventOut
from tests.tdmr.client import answers
from tests.tdmr.client.conftest import Ask
from tests.tdmr.client.misbehaving import misbehaving, says

TABLES = ("losses", "metadata", "splits", "metrics", "baselines", "change", "data")  # no models
FAILURE = {"code": "options", "user_error": True, "detail": "No.", "change": {"options": {}}}


def newer(data: Any) -> Any:
    """The same, of a server that says more in every object."""
    if isinstance(data, list):
        return [newer(each) for each in data]
    if not isinstance(data, dict):
        return data
    told = {name: value if name in TABLES else newer(value) for name, value in data.items()}
    return {**told, "newer": {"than": ["this"]}}


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (BoundJob, answers.job("failed", failure=FAILURE)),
        (BoundJob, answers.job()),
        (BoundDataset, answers.dataset()),
        (BoundStudent, answers.student(a=b"1", b=b"22")),
    ],
)
def test_new_fields_are_passed_over_everywhere(model: type[BaseModel], data: Any) -> None:
    assert read(model, newer(data)) == read(model, data)
    assert "newer" not in read(model, newer(data)).model_dump_json()


def test_new_fields_of_pages_and_events_are_passed_over() -> None:
    rows = newer(answers.page(answers.event(1), answers.event(2)))
    assert [event.seq for event in read(Page[EventOut], rows).data] == [1, 2]


def test_both_clients_read_so(ask: Ask) -> None:
    told = newer(answers.page(answers.job(), answers.job("failed", failure=FAILURE)))
    with misbehaving(says(told)) as server:
        found = ask(server.address, lambda client: client.jobs())
    assert found[1].failure.code == "options"
    assert found[0].options.views.scale_min == 0.85


def test_what_is_wrong_beside_is_still_told() -> None:
    with pytest.raises(ValidationError, match="attempt"):
        read(BoundJob, {**newer(answers.job()), "attempt": "many"})
