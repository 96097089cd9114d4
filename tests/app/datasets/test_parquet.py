"""Parquet files: rows of image bytes and labels, as the Hugging Face hub and others write them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tdmr.data.index import DatasetIndex
from tests.app.datasets.conftest import Check, codes
from tests.app.datasets.zips import png

IMAGES = [png(n) for n in range(8)]
TEXT = ["cat" if n % 2 else "dog" for n in range(8)]
NUMBERS = [n % 2 for n in range(8)]
SPLITS = ["train"] * 6 + ["test"] * 2
STRUCTS = [{"bytes": data, "path": f"{n}.png"} for n, data in enumerate(IMAGES)]
HUB = {"info": {"features": {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}}}


def parquet(columns: dict[str, Any], *, metadata: object = None, **options: Any) -> bytes:
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


GOOD = {
    "bytes": parquet({"image": IMAGES, "label": TEXT}),
    "structs": parquet({"image": STRUCTS, "label": TEXT}),
    "hub": parquet({"image": STRUCTS, "label": NUMBERS}, metadata=HUB),
    "row-groups": parquet({"image": IMAGES, "label": TEXT}, row_group_size=3),
    "dictionary": parquet({"image": IMAGES, "label": pa.array(TEXT).dictionary_encode()}),
    "large-binary": parquet({"image": pa.array(IMAGES, pa.large_binary()), "label": TEXT}),
    "other-columns": parquet({"id": list(range(8)), "image": IMAGES, "label": TEXT}),
    "zstd": parquet({"image": IMAGES, "label": TEXT}, compression="zstd"),
    "gzip": parquet({"image": IMAGES, "label": TEXT}, compression="gzip"),
    "splits": parquet({"image": IMAGES, "label": TEXT, "split": SPLITS}),
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD.keys())
def test_every_row_is_an_image_of_its_class(checked: Check, tmp_path: Path, content: bytes) -> None:
    report = checked(content)
    assert report["findings"] == []
    with zipfile.ZipFile(tmp_path / "out" / "dataset.zip") as archive:
        index = DatasetIndex.model_validate_json(archive.read("index.json"))
        found = {archive.read(image.file): image.label for image in index.images}
    assert found == dict(zip(IMAGES, TEXT, strict=True))


def test_splits_and_numbers_without_names(checked: Check) -> None:
    report = checked(parquet({"image": IMAGES, "label": NUMBERS, "split": SPLITS}))
    assert report["splits"] == {"train": {"0": 3, "1": 3}, "test": {"0": 1, "1": 1}}


def changed(values: list[Any], place: int, value: Any) -> list[Any]:
    return [*values[:place], value, *values[place + 1 :]]


BAD = {
    "no-image-column": (parquet({"picture": IMAGES, "label": TEXT}), "wrong_columns"),
    "no-label-column": (parquet({"image": IMAGES, "kind": TEXT}), "wrong_columns"),
    "no-columns": (parquet({}), "wrong_columns"),
    "float-label": (parquet({"image": IMAGES, "label": [0.5] * 8}), "bad_label"),
    "number-without-name": (
        parquet({"image": STRUCTS, "label": changed(NUMBERS, 3, 7)}, metadata=HUB),
        "bad_label",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "code"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_with_a_file_or_a_row_is_reported(
    checked: Check, content: bytes, code: str
) -> None:
    report = checked(content)
    assert not report["ok"]
    assert code in codes(report)


def test_rows_are_counted_before_they_are_read(checked: Check) -> None:
    assert codes(checked(GOOD["bytes"], max_entries=7)) == ["too_many_files"]


def test_a_finding_names_the_row_and_its_path(checked: Check) -> None:
    broken = [*STRUCTS[:3], {"bytes": b"text", "path": "3.png"}, *STRUCTS[4:]]
    (finding,) = checked(parquet({"image": broken, "label": TEXT}))["findings"]
    assert finding["file"] == "row 4 (3.png)"
