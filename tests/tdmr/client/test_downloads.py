"""Downloads that are cut off go on where they were, and nothing appears that isn't whole."""

from __future__ import annotations

import hashlib
import random
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.served import Running
from tdmr.client import UnexpectedAnswerError
from tests.app.live import publish
from tests.tdmr.client import answers
from tests.tdmr.client.conftest import Ask
from tests.tdmr.client.misbehaving import (
    LOST,
    Asked,
    Misbehaving,
    Reply,
    hands_on,
    misbehaving,
    refuses,
    says,
)

NOISE = random.Random(1).randbytes(300_000)
FILES = {"model.safetensors": NOISE, "config.json": b"{}\n", "empty.csv": b""}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def fetching(student_id: str, folder: Path, **options: Any) -> Any:
    return lambda client: client.download(student_id, folder, **options)


def cutting(server: Running, troubles: list[Reply | int]) -> AbstractContextManager[Misbehaving]:
    """A way to the server on which the large file meets trouble, or is cut after so many bytes."""

    def reply(asked: Asked) -> Reply:
        large = asked.path.endswith("model.safetensors")
        trouble = troubles.pop(0) if large and troubles else None
        if isinstance(trouble, Reply):
            return trouble
        return hands_on(server.address, cut=trouble)(asked)

    return misbehaving(*[reply] * 20)


@pytest.fixture
def student_id(server: Running) -> str:
    return publish(server, FILES)


def test_a_student_arrives_whole(
    ask: Ask, server: Running, student_id: str, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    do = fetching(student_id, tmp_path / "a" / "student", on_progress=lambda *at: seen.append(at))
    assert ask(server.address, do, server.key) == tmp_path / "a" / "student"
    found = contents(tmp_path / "a" / "student")
    assert {name: found[name] for name in FILES} == FILES
    assert set(found) == {*FILES, "manifest.json"}
    assert seen == sorted(seen)
    total = sum(map(len, found.values()))
    assert (seen[0], seen[-1]) == ((0, total), (total, total))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["student"]
    with pytest.raises(FileExistsError):
        ask(server.address, do, server.key)


def test_what_is_cut_off_goes_on_where_it_was(
    ask: Ask, server: Running, student_id: str, tmp_path: Path
) -> None:
    troubles = [100_000, 0, 150_000, LOST, refuses(503, Retry_After="0")]
    with cutting(server, troubles) as line:
        ask(line.address, fetching(student_id, tmp_path / "student"), server.key)
    found = contents(tmp_path / "student")
    assert {name: found[name] for name in FILES} == FILES
    large = [each for each in line.asked if each.path.endswith("model.safetensors")]
    ranges = [each.headers.get("Range") for each in large]
    after = ["bytes=100000-"] * 2 + ["bytes=250000-"] * 3
    assert ranges == [None, *after]
    tag = f'"{hashlib.sha256(NOISE).hexdigest()}"'
    assert [each.headers.get("If-Range") for each in large] == [None] + [tag] * 5


def test_a_later_process_goes_on(
    ask: Ask, server: Running, student_id: str, tmp_path: Path
) -> None:
    do = fetching(student_id, tmp_path / "student", patience=0.0)
    with cutting(server, [1000]) as line, pytest.raises(httpx.TransportError):
        ask(line.address, do, server.key)
    assert not (tmp_path / "student").exists()
    with cutting(server, []) as line:
        ask(line.address, do, server.key)
    assert "bytes=1000-" in line.header("Range")
    assert contents(tmp_path / "student")["model.safetensors"] == NOISE
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def file(data: bytes, tag: str | None = '"1"', status: int = 200, **more: Any) -> Reply:
    return Reply(status, data, {} if tag is None else {"ETag": tag}, **more)


def part(data: bytes, start: int, total: int) -> Reply:
    told = {"ETag": '"1"', "Content-Range": f"bytes {start}-{total - 1}/{total}"}
    return Reply(206, data[start:], told)


A, B = says(answers.student(model=b"a" * 100)), b"b" * 100


@pytest.mark.parametrize("tag", [None, 'W/"1"'])
def test_without_a_strong_tag_it_begins_anew(ask: Ask, tmp_path: Path, tag: str | None) -> None:
    with misbehaving(A, file(b"a" * 100, tag, cut=60), file(b"a" * 100)) as server:
        ask(server.address, fetching("stu_1", tmp_path / "student"))
    assert server.header("Range") == [None, None, None]
    assert contents(tmp_path / "student") == {"model": b"a" * 100}


def test_another_file_is_fetched_from_its_beginning(ask: Ask, tmp_path: Path) -> None:
    now_b = says(answers.student(model=B))
    do = fetching("stu_1", tmp_path / "student", patience=0.0)
    with misbehaving(A, file(b"a" * 100, cut=60), now_b, file(B, '"2"')) as server:
        with pytest.raises(httpx.TransportError):
            ask(server.address, do)
        ask(server.address, do)
    assert server.header("If-Range") == [None, None, None, '"1"']
    assert contents(tmp_path / "student") == {"model": B}


def test_one_that_became_shorter_too(ask: Ask, tmp_path: Path) -> None:
    now_short = says(answers.student(model=b"b"))
    do = fetching("stu_1", tmp_path / "student", patience=0.0)
    with misbehaving(
        A, file(b"a" * 100, cut=60), now_short, refuses(416), file(b"b", '"2"')
    ) as server:
        with pytest.raises(httpx.TransportError):
            ask(server.address, do)
        ask(server.address, do)
    assert contents(tmp_path / "student") == {"model": b"b"}


def test_the_last_byte_may_have_come_just_before_the_end(ask: Ask, tmp_path: Path) -> None:
    staged = tmp_path / ".student.stu_1"
    staged.mkdir()
    (staged / "model.part").write_bytes(b"a" * 100)
    (staged / "model.tag").write_text('"1"')
    with misbehaving(A) as server:
        ask(server.address, fetching("stu_1", tmp_path / "student"))
    assert contents(tmp_path / "student") == {"model": b"a" * 100}


def test_a_digest_that_differs_lets_nothing_appear(ask: Ask, tmp_path: Path) -> None:
    do = fetching("stu_1", tmp_path / "student")
    with misbehaving(A, file(b"a" * 99 + b"b"), A, file(b"a" * 100)) as server:
        with pytest.raises(ValueError, match="another SHA-256"):
            ask(server.address, do)
        assert not (tmp_path / "student").exists()
        ask(server.address, do)
    assert server.header("Range") == [None] * 4
    assert contents(tmp_path / "student") == {"model": b"a" * 100}


def test_another_part_than_was_asked_for_is_refused(ask: Ask, tmp_path: Path) -> None:
    data = b"a" * 100
    script, do = (A, file(data, cut=60), part(data, 50, 100)), fetching("stu_1", tmp_path / "s")
    with misbehaving(*script) as server, pytest.raises(UnexpectedAnswerError, match="another part"):
        ask(server.address, do)


@pytest.mark.parametrize("name", ["..", "../evil", "/etc/evil", ".evil", "a\\b", ""])
def test_a_file_stays_in_its_folder(ask: Ask, tmp_path: Path, name: str) -> None:
    do = fetching("stu_1", tmp_path / "in" / "student")
    script = (says(answers.student(**{name: b"x"})), file(b"x"))
    with misbehaving(*script) as server, pytest.raises(UnexpectedAnswerError, match="no name"):
        ask(server.address, do)
    assert len(server.asked) == 1
