"""What is taken for a safetensors file, and what isn't, with the reason that is given."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from app.errors import NotSafetensorsError
from app.foundations.safetensors import LENGTH_BYTES, MAX_HEADER, Reader
from tests.app.foundations.files import GOOD, header, pack


def read(content: bytes, size: int = 1 << 20) -> None:
    reader = Reader()
    for start in range(0, len(content), size):
        reader.take(content[start : start + size])
    reader.end()


def refusal(content: bytes) -> str:
    with pytest.raises(NotSafetensorsError) as refused:
        read(content)
    return refused.value.detail


@pytest.mark.parametrize("size", [1, 7, 8, 9, 100, 1 << 20])
def test_a_good_file_is_taken_however_it_comes(size: int) -> None:
    read(GOOD, size)
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint16, torch.bool)
    tensors = {str(kind): torch.zeros(3, 5).to(kind) for kind in kinds}
    read(save({**tensors, "empty": torch.zeros(0, 4)}, {"format": "pt"}), size)


def zipped() -> bytes:
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, saved)
    assert zipfile.is_zipfile(saved)
    return saved.getvalue()


def legacy() -> bytes:
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, saved, _use_new_zipfile_serialization=False)
    return saved.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (zipped(), "torch.save"),
        (legacy(), "a pickle"),
        *((pickle.dumps({"a": 1}, protocol), "a pickle") for protocol in range(2, 6)),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(100), "gzip"),
        (b"GGUF" + bytes(100), "GGUF"),
        (pickle.dumps({}, 2), "a pickle"),  # shorter than a header's length
    ],
)
def test_another_format_is_known_and_how_to_convert_it_is_said(content: bytes, what: str) -> None:
    said = refusal(content)
    assert what in said
    assert "safetensors.torch.save_file" in said
    if len(content) > LENGTH_BYTES:
        with pytest.raises(NotSafetensorsError):
            Reader().take(content[:16])  # at once


def test_a_pickle_that_would_do_something_does_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "done",)

    assert "could run any code" in refusal(pickle.dumps(Evil()))
    assert "isn't a JSON object" in refusal(pack(pickle.dumps(Evil(), 0)))
    assert list(tmp_path.iterdir()) == []


def twice(name: str) -> bytes:
    raw = json.dumps(header()).encode()
    tensor = json.dumps(header()["a"]).encode()
    return pack(raw[:-1] + b', "' + name.encode() + b'": ' + tensor + b"}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "ends before its header"),
        (GOOD[:7], "ends before its header"),
        (GOOD[:60], "ends before its header"),
        (GOOD[:-1], "cut off: 1 bytes are missing"),
        (GOOD + b"x", "more bytes than its header tells of"),
        (pack(header(), length=MAX_HEADER + 1), "1,048,577 bytes, and may have 1,048,576"),
        (pack(header(), length=2**63), "and may have 1,048,576"),
        (pack(b" " * (MAX_HEADER + 1)), "and may have 1,048,576"),
        (pack(header(), length=0), "isn't JSON"),
        (pack(b"[1]"), "isn't a JSON object"),
        (pack(b"{\xff}"), "isn't JSON"),
        (pack(b'{"a": NaN}'), "isn't JSON: NaN"),
        (pack(b'{"a":' + b"[" * 100_000), "isn't JSON"),
        (twice("b"), "a name twice"),
        (pack({}, b""), "no tensor"),
        (pack({"__metadata__": {"format": "pt"}}, b""), "no tensor"),
        (pack(header(__metadata__={"n": 1})), "__metadata__ isn't text"),
        (pack({**header(), "__metadata__": []}), "__metadata__ isn't text"),
        (pack(header(a=[1])), "Tensor 'a' isn't dtype"),
        (pack(header(a={"more": 1})), "Tensor 'a' isn't dtype"),
        (pack(header(a={"dtype": "F31"})), "a dtype other than"),
        (pack(header(a={"dtype": ["F32"]})), "a dtype other than"),
        (pack(header(a={"shape": [-2, -2]})), "can't be"),
        (pack(header(a={"shape": [2, 2.0]})), "can't be"),
        (pack(header(a={"shape": [True, 4]})), "can't be"),
        (pack(header(a={"shape": [1] * 17})), "can't be"),
        (pack(header(a={"shape": [2**60, 0]})), "can't be"),
        (pack(header(a={"data_offsets": [0, 8, 16]})), "can't be"),
        (pack(header(a={"data_offsets": [-16, 0]})), "can't be"),
        (pack(header(a={"data_offsets": [16, 0]})), "another length than its shape"),
        (pack(header(a={"data_offsets": [0, 15]})), "another length than its shape"),
        (pack(header(a={"shape": [2, 3]})), "another length than its shape"),
        (pack(header(b={"data_offsets": [8, 16]})), "'b' overlaps the one before"),
        (pack(header(b={"data_offsets": [20, 28]}), bytes(28)), "'b' leaves a gap before"),
        (pack(header(b={"data_offsets": [1 << 40, (1 << 40) + 8]})), "'b' leaves a gap before"),
        (pack(header(c={"dtype": "F32", "shape": [9], "data_offsets": [24, 60]})), "36 bytes are"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(content: bytes, said: str) -> None:
    assert said in refusal(content)


def test_names_are_shown_without_what_they_would_do() -> None:
    said = refusal(pack({"\x1b[2J" + "n" * 500: {}}))
    assert "\\x1b[2J" in said
    assert len(said) < 400


def test_a_header_is_looked_at_no_further_than_it_says() -> None:
    reader = Reader()
    reader.take(pack(header(), b""))
    for _ in range(24):
        reader.take(b"\0")
    reader.end()


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_what_is_taken_the_library_takes_too(place: int, value: int) -> None:
    changed = GOOD[:place] + bytes([value]) + GOOD[place + 1 :]
    try:
        read(changed)
    except NotSafetensorsError:
        return
    assert {name for name, _ in safetensors.deserialize(changed)} != set()
    assert changed[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"
