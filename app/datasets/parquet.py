"""Parquet files: a row for each image, its bytes in one column and its class in another.

Columns as the Hugging Face hub writes them are understood: `image` as a struct of bytes and path,
numbered labels whose names are in the schema's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from app.datasets import labels, pages
from app.datasets.findings import Findings
from app.datasets.layout import Layout
from app.datasets.members import Archive, ArchiveError, Member, check_count, check_unpacked
from app.datasets.options import CheckOptions
from tdmr.data.index import Split

IMAGE = ("image", "img", "image_bytes", "bytes", "jpg", "png")
LABEL = ("label", "class", "cls", "category")
BATCH = 1  # rows decoded at once: a dictionary can make each as large as its largest entry
MAX_FOOTER_ITEMS = 1_000_000
ADVICE = "Write the columns `image` (bytes) and `label` (text or number), and `split` if you like."

OnRow = Callable[[int, int], None]


@dataclass(frozen=True)
class _Columns:
    """Where image, class and split are, and the classes' names if they are numbered."""

    image: str
    label: str
    split: str | None
    names: list[str]

    @property
    def read(self) -> list[str]:
        return [name for name in (self.image, self.label, self.split) if name is not None]


def spooled(
    upload: Path, spool: Path, options: CheckOptions, findings: Findings, on_row: OnRow
) -> tuple[Archive, Layout]:
    """Write the images of a Parquet file to `spool`, one after the other, and say what they are.

    Raises ArchiveError when the file can't be read, or holds too much.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    archive, layout = Archive(spool), Layout()
    try:
        with (
            pq.ParquetFile(
                upload,
                thrift_string_size_limit=64 << 20,
                thrift_container_size_limit=MAX_FOOTER_ITEMS,
            ) as source,
            spool.open("xb") as out,
        ):
            check_count(source.metadata.num_rows, options)
            columns = _columns(source.schema_arrow)
            _check_sizes(source.metadata, columns, upload, options)
            rows = _rows(source, columns)
            number = 0
            for number, row in enumerate(rows, start=1):
                _take(number, row, columns, out, archive, layout, findings)
                check_unpacked(out.tell(), upload.stat().st_size, options)
                on_row(number, source.metadata.num_rows)
            if number != source.metadata.num_rows:
                raise _damaged()
    except (pa.ArrowException, pages.PageError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _damaged() from error
    return archive, layout


def _damaged() -> ArchiveError:
    return ArchiveError(
        "damaged_file",
        "The Parquet file is damaged: it can't be read.",
        "Write it again, and upload it whole.",
    )


def _columns(schema: Any) -> _Columns:
    image, label = (
        next((name for name in wanted if name in schema.names), None) for wanted in (IMAGE, LABEL)
    )
    if image is None or label is None or not _holds_bytes(schema.field(image).type):
        raise ArchiveError(
            "wrong_columns",
            f"The Parquet file has the columns {', '.join(schema.names[:10]) or 'none'}; there is "
            "no column of image bytes, or none of labels.",
            ADVICE,
        )
    split = "split" if "split" in schema.names else None
    return _Columns(image, label, split, _class_names(schema, label))


def _holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: Any, label: str) -> list[str]:
    """The names behind numbered classes, as `datasets` keeps them in the schema's metadata."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])["info"]
        names = info["features"][label]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return []
    return [labels.label(str(name)) for name in names] if isinstance(names, list) else []


def _check_sizes(metadata: Any, columns: _Columns, upload: Path, options: CheckOptions) -> None:
    """What the needed columns unpack to by footer and pages, before anything is unpacked."""
    said = found = 0
    with upload.open("rb") as file:
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group)
            for place in range(rows.num_columns):
                chunk = rows.column(place)
                if chunk.path_in_schema.partition(".")[0] not in columns.read:
                    continue
                said += max(0, chunk.total_uncompressed_size)
                check_unpacked(said, upload.stat().st_size, options)
                start = chunk.data_page_offset
                if chunk.has_dictionary_page and chunk.dictionary_page_offset > 0:
                    start = min(start, chunk.dictionary_page_offset)
                if start < 0 or chunk.total_compressed_size < 0:
                    raise _damaged()
                found += pages.unpacked_bytes(file, start, chunk.total_compressed_size)
                check_unpacked(found, upload.stat().st_size, options)


def _rows(source: Any, columns: _Columns) -> Iterator[dict[str, Any]]:
    batches = source.iter_batches(batch_size=BATCH, columns=columns.read, use_threads=False)
    for batch in batches:
        yield from batch.to_pylist()


def _take(
    number: int,
    row: dict[str, Any],
    columns: _Columns,
    out: IO[bytes],
    archive: Archive,
    layout: Layout,
    findings: Findings,
) -> None:
    """Append one row's image to the spool, or report what is wrong with the row."""
    name = f"row {number}"
    value = row[columns.image]
    if isinstance(value, dict):
        name += f" ({value['path']})" if value.get("path") else ""
        value = value["bytes"]
    label = _label(row[columns.label], columns)
    reason = labels.trouble(label)
    if reason is not None:
        labels.refuse(name, reason, findings, name)
        return
    split: Split | None = None
    if columns.split is not None and row[columns.split] is not None:
        split = labels.split(str(row[columns.split]))
        if split is None:
            labels.refuse_split(name, str(row[columns.split]), findings, name)
            return
    data = value or b""
    member = Member(name, (name,), len(data), out.tell(), len(data))
    out.write(data)
    archive.members.append(member)
    layout.add(member, label, split)


def _label(value: Any, columns: _Columns) -> str:
    """A row's class by name, or "" when it has none."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    if isinstance(value, int) and columns.names:
        return columns.names[value] if 0 <= value < len(columns.names) else ""
    return labels.label(str(value))
