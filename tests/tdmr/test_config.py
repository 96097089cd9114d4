"""The options of a distillation: what they take."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tdmr.config import DistillOptions


@pytest.mark.parametrize(
    "given",
    [
        {"audit": 0},
        {"audit": "yes"},
        {"seed": True},
        {"seed": "3"},
        {"image_size": "32"},
        {"training": {"steps": True}},
        {"training": {"learning_rate": "0.1"}},
    ],
)
def test_each_option_is_of_its_own_type(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        DistillOptions.model_validate(given)
    assert [each["type"] for each in caught.value.errors()] == ["wrong_type"]


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert DistillOptions.model_validate({"seed": 3.0, "image_size": None}).seed == 3
