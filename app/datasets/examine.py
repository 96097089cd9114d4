"""Every image of an upload looked at, on as many processes as there are cores, in order.

A decoder that dies takes a process of its own with it, and the image that it died of is named.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from app.datasets import images
from app.datasets.findings import Findings, shown
from app.datasets.images import Canonical
from app.datasets.layout import Placed, ignored, looks_like_image
from app.datasets.members import Archive, ArchiveError
from app.datasets.options import CheckOptions
from tdmr.wire.datasets import Finding

CHUNK = 16  # images that a process is given at once
WORTH_A_POOL = 128  # images; fewer are done before another process has started


@dataclass(frozen=True, slots=True)
class Examined:
    """One file: what was found wrong with it, and the image if there is one to be had."""

    placed: Placed
    findings: list[Finding]
    image: Canonical | None = None
    sha256: str = ""


def examined(
    archive: Archive, placed: Sequence[Placed], options: CheckOptions
) -> Iterator[Examined]:
    """Look at every file, in order."""
    processes = options.processes or os.cpu_count() or 1
    if processes == 1 or len(placed) < WORTH_A_POOL:
        for each in placed:
            yield look(archive, each, options)
    else:
        yield from _in_parallel(archive.path, placed, options, processes)


def look(archive: Archive, placed: Placed, options: CheckOptions) -> Examined:
    """Read one file, decode it in full, make it canonical."""
    findings = Findings()
    data = _read(archive, placed, options, findings)
    image = None if data is None else _decode(placed, data, options, findings)
    if image is None:
        return Examined(placed, findings.all())
    return Examined(placed, findings.all(), image, hashlib.sha256(image.data).hexdigest())


def _read(
    archive: Archive, placed: Placed, options: CheckOptions, findings: Findings
) -> bytes | None:
    """The bytes of a file, or None when it is reported instead."""
    member = placed.member
    if not member.size:
        findings.error("empty_file", f"{shown(member.name)} is empty.", images.ADVICE, member.name)
        return None
    if member.size > options.max_image_bytes:
        findings.error(
            "file_too_large",
            f"{shown(member.name)} has {member.size} bytes; {options.max_image_bytes} are allowed.",
            "Save it smaller, or leave it out.",
            member.name,
        )
        return None
    try:
        return archive.read(member)
    except ArchiveError as error:
        findings.error(error.code, error.detail, error.advice, member.name)
        return None


def _decode(
    placed: Placed, data: bytes, options: CheckOptions, findings: Findings
) -> Canonical | None:
    """The image in a file's bytes, or None when there is none and that is reported."""
    name = placed.member.name
    if images.is_archive(data):
        findings.error(
            "nested_archive",
            f"{shown(name)} is an archive inside the archive; it isn't opened.",
            "Unpack it into the class folder, or leave it out.",
            name,
        )
        return None
    if images.sniff(data) is None and not looks_like_image(name) and placed.may_be_other:
        ignored(placed.member, findings)
        return None
    try:
        image = images.canonical(data, options.max_image_pixels)
    except images.ImageError as error:
        findings.error(error.code, f"{shown(name)} {error.detail}.", images.ADVICE, name)
        return None
    if "animated" in image.changes:
        findings.warn(
            "animated",
            f"{shown(name)} is animated; its first frame is used.",
            "Nothing needs to be done, if the first frame shows the class.",
            name,
        )
    return image


def _crashed(placed: Placed) -> Examined:
    findings, name = Findings(), placed.member.name
    findings.error(
        "unreadable_image",
        f"{shown(name)} can't be decoded (its decoder broke down, or took too long).",
        images.ADVICE,
        name,
    )
    return Examined(placed, findings.all())


_opened: Archive | None = None  # in a process of the pool


def _open(path: Path) -> None:
    global _opened
    _opened = Archive(path).__enter__()


def _look_at(chunk: list[Placed], options: CheckOptions) -> list[Examined]:
    assert _opened is not None
    return [look(_opened, placed, options) for placed in chunk]


def _pool(path: Path, processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # this process has threads
    return ProcessPoolExecutor(processes, context, _open, (path,))


def _in_parallel(
    path: Path, placed: Sequence[Placed], options: CheckOptions, processes: int
) -> Iterator[Examined]:
    """The same with a pool. What a broken one leaves is looked at again, one image at a time."""
    chunks = [list(placed[start : start + CHUNK]) for start in range(0, len(placed), CHUNK)]
    done = 0
    while done < len(chunks):
        try:
            with _pool(path, processes) as pool:
                for found in _ordered(pool, chunks[done:], options, 3 * processes):
                    yield from found
                    done += 1
        except BrokenProcessPool:
            yield from _one_by_one(path, chunks[done], options)
            done += 1


def _ordered(
    pool: ProcessPoolExecutor, chunks: list[list[Placed]], options: CheckOptions, ahead: int
) -> Iterator[list[Examined]]:
    """The chunks' results in order, with at most `ahead` of them in the making."""
    left = iter(chunks)
    waiting: deque[Future[list[Examined]]] = deque()
    for chunk in islice(left, ahead):
        waiting.append(pool.submit(_look_at, chunk, options))
    while waiting:
        yield waiting.popleft().result()
        for chunk in islice(left, 1):
            waiting.append(pool.submit(_look_at, chunk, options))


def _one_by_one(path: Path, chunk: list[Placed], options: CheckOptions) -> Iterator[Examined]:
    left = deque(chunk)
    while left:
        try:
            with _pool(path, 1) as pool:
                while left:
                    yield pool.submit(_look_at, [left[0]], options).result()[0]
                    left.popleft()
        except BrokenProcessPool:
            yield _crashed(left.popleft())
