"""Answers as models: what an older client doesn't know of is passed over, wherever it stands.

Some models of `tdmr.wire` refuse unknown fields, because they are also what people send: options,
budgets, failures. In an answer such a field comes of a newer server, and isn't the reader's fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
Loc = tuple[int | str, ...]


def read(model: type[Model], data: Any) -> Model:
    """`data` as a model, without the fields that it doesn't know.

    Raises pydantic.ValidationError for what is missing, or has another type.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        unknown = [each["loc"] for each in error.errors() if each["type"] == "extra_forbidden"]
        if not unknown:
            raise
        return model.model_validate(_without(data, unknown))


def _without(data: Any, places: Iterable[Loc]) -> Any:
    """A copy of nested dicts and lists that lacks what is at `places`."""
    here = {place[0] for place in places if len(place) == 1}
    below: dict[int | str, list[Loc]] = {}
    for place in places:
        if len(place) > 1:
            below.setdefault(place[0], []).append(place[1:])
    if isinstance(data, dict):
        kept = {name: value for name, value in data.items() if name not in here}
        return {n: _without(v, below[n]) if n in below else v for n, v in kept.items()}
    if isinstance(data, list):
        return [_without(v, below[n]) if n in below else v for n, v in enumerate(data)]
    return data
