"""What Parquet pages say that they unpack to, against what the writer's footer says."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest

from app.datasets.pages import PageError, unpacked_bytes
from tests.app.datasets.corpus.bombs import MIB, lying_footer
from tests.app.datasets.corpus.table_cases import ROWS, TEXT, parquet


def column(content: bytes, number: int = 0) -> tuple[int, int, int]:
    """Where a column's pages begin, their length, and what the footer says that they unpack to."""
    chunk = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0).column(number)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return start, chunk.total_compressed_size, chunk.total_uncompressed_size


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_pages_unpack_to_what_the_footer_says_less_their_headers(
    version: str, dictionary: bool, compression: str
) -> None:
    content = parquet(
        {"image": ROWS * 50, "label": TEXT * 50},
        data_page_version=version,
        use_dictionary=dictionary,
        compression=compression,
        data_page_size=2000,
    )
    for number in (0, 1):
        start, length, said = column(content, number)
        found = unpacked_bytes(io.BytesIO(content), start, length)
        assert 0.5 * said < found < said


def test_a_page_tells_what_a_lying_footer_hides() -> None:
    content = lying_footer()
    start, length, said = column(content)
    assert said == 1000
    assert unpacked_bytes(io.BytesIO(content), start, length) > 48 * MIB


@pytest.mark.parametrize(
    "header", [b"", b"\0", b"\xff" * 40, b"\x1c" * 40, b"\x15\0\x15\x01\x15\x02\0", b"\x19\x15"]
)
def test_what_is_no_page_header_is_an_error(header: bytes) -> None:
    with pytest.raises(PageError):
        unpacked_bytes(io.BytesIO(header), 0, 100)
