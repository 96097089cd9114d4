"""All that was made by hand, by name."""

from __future__ import annotations

import functools
from typing import NamedTuple

from tests.app.datasets.corpus import (
    bombs,
    image_cases,
    table_cases,
    tar_cases,
    zip_cases,
    zip_names,
)
from tests.app.datasets.zips import Raw, with_good


class Case(NamedTuple):
    """An upload and the code that it must be refused with."""

    content: bytes
    code: str


@functools.cache
def archives() -> dict[str, Case]:
    """Hostile archives and Parquet files."""
    parts = (zip_names, zip_cases, tar_cases, table_cases, bombs)
    found = [(name, Case(*case)) for each in parts for name, case in each.cases().items()]
    assert len(dict(found)) == len(found), "two cases have one name"
    return dict(found)


@functools.cache
def images() -> dict[str, Case]:
    """Hostile images, by themselves."""
    return {name: Case(*case) for name, case in image_cases.cases().items()}


def among_good_ones(image: bytes) -> bytes:
    """An archive whose images are good but for this one, which is called an image."""
    return with_good(Raw(b"a/9.png", image, method=0))
