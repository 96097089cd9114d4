"""The check of one upload, as a process of its own: `python -m app.datasets.check JOB_DIR`.

It reads JOB_DIR/config.json (`CheckOptions`) and JOB_DIR/data/upload, and writes out/report.json
and, when the upload is good, out/dataset.zip. Invalid data is a result, not a failure.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import resource
import signal
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from app.datasets import images, lint
from app.datasets.archive import Archive, opened
from app.datasets.findings import Findings, shown
from app.datasets.layout import Layout, Placed, ignored, looks_like_image, place
from app.datasets.options import CheckOptions
from app.datasets.zipdir import ArchiveError
from tdmr import lifeline
from tdmr.data.index import DatasetIndex, IndexedImage, assign_splits, content_hash
from tdmr.errors import Failure
from tdmr.jobdir import JobDir, Reporter

STAGES = ["read", "check", "write"]
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip archive can say


def main(arguments: list[str]) -> int:
    """Check the upload in a job directory; the exit code is 0 unless the check itself failed."""
    job = JobDir(Path(arguments[0]))
    reporter = Reporter(job, STAGES)
    try:
        lifeline.hold()
        options = CheckOptions.model_validate_json(job.config.read_bytes())
        _limit(options)
        report = check(job.data / "upload", job.out, options, reporter)
    except MemoryError:
        reporter.failed(_failure("check_memory", reporter.stage, "It needed too much memory."))
        return 1
    except _OutOfTime:
        reporter.failed(_failure("check_time", reporter.stage, "It took too long."))
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        reporter.failed(_disk_full(reporter.stage))
        return 1
    reporter.done({"ok": report["ok"], "version": report["version"]})
    return 0


def check(upload: Path, out: Path, options: CheckOptions, reporter: Reporter) -> dict[str, Any]:
    """Check `upload`; write the report, and the canonical dataset when there is no error."""
    findings = Findings()
    out.mkdir(parents=True, exist_ok=True)
    target = out / "dataset.zip"
    index: DatasetIndex | None = None
    reporter.start("read")
    with opened(upload, options, findings) as archive:
        if archive is not None:
            layout = place(archive, findings)
            with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as canonical:
                found = _examine(archive, layout, canonical, options, findings, reporter)
                index = _index(layout, found, findings)
                reporter.start("write")
                if index is not None and findings.ok:
                    _add(canonical, "index.json", index.model_dump_json().encode())
    if not findings.ok:
        target.unlink(missing_ok=True)
        index = None
    report = _report(index, findings)
    (out / "report.json").write_text(json.dumps(report), encoding="utf-8")
    reporter.step(1, 1)
    return report


def _examine(
    archive: Archive,
    layout: Layout,
    canonical: zipfile.ZipFile,
    options: CheckOptions,
    findings: Findings,
    reporter: Reporter,
) -> list[IndexedImage]:
    """Decode every image of a class, and copy it under a name of ours while all is well."""
    reporter.start("check")
    found: list[IndexedImage] = []
    for number, placed in enumerate(layout.placed, start=1):
        data = _read(archive, placed, options, findings)
        info = None if data is None else _look(placed, data, options, findings)
        if data is not None and info is not None:
            image = IndexedImage(
                file=f"images/{len(found):06d}.{info.suffix}",
                label=placed.label,
                split=placed.split,
                source=shown(placed.member.name),
                sha256=hashlib.sha256(data).hexdigest(),
                width=info.width,
                height=info.height,
            )
            found.append(image)
            if findings.ok:
                _add(canonical, image.file, data)
        reporter.step(number, len(layout.placed))
    return found


def _read(
    archive: Archive, placed: Placed, options: CheckOptions, findings: Findings
) -> bytes | None:
    """The bytes of a file, or None when it is reported instead."""
    member = placed.member
    if not member.entry.size:
        findings.error("empty_file", f"{shown(member.name)} is empty.", images.ADVICE, member.name)
        return None
    if member.entry.size > options.max_image_bytes:
        findings.error(
            "file_too_large",
            f"{shown(member.name)} has {member.entry.size} bytes; "
            f"{options.max_image_bytes} are allowed.",
            "Save it smaller, or leave it out.",
            member.name,
        )
        return None
    try:
        return archive.read(member)
    except ArchiveError as error:
        findings.error(error.code, error.detail, error.advice, member.name)
        return None


def _look(
    placed: Placed, data: bytes, options: CheckOptions, findings: Findings
) -> images.ImageInfo | None:
    """What a file's bytes are, or None when they are no image and that is reported."""
    name = placed.member.name
    if images.is_archive(data):
        findings.error(
            "nested_archive",
            f"{shown(name)} is an archive inside the archive; it isn't opened.",
            "Unpack it into the class folder, or leave it out.",
            name,
        )
        return None
    if images.sniff(data) is None and not looks_like_image(name):
        ignored(placed.member, findings)
        return None
    try:
        info = images.examine(data, options.max_image_pixels)
    except images.ImageError as error:
        findings.error(error.code, f"{shown(name)} {error.detail}.", images.ADVICE, name)
        return None
    if info.animated:
        findings.warn(
            "animated",
            f"{shown(name)} is animated; its first frame is used.",
            "Nothing needs to be done, if the first frame shows the class.",
            name,
        )
    return info


def _index(layout: Layout, found: list[IndexedImage], findings: Findings) -> DatasetIndex | None:
    """The dataset's index, with a split for every image; what is wrong with the whole is reported.

    A train folder alone holds nothing out, so it is split as if it weren't there.
    """
    lint.check_classes(layout, found, findings)
    if not found:
        return None
    if {image.split for image in found} == {"train"}:
        found = [image.model_copy(update={"split": None}) for image in found]
        findings.warn(
            "test_split_made",
            "There is a train folder only; a seeded fifth of it is held out as test.",
            "Add a test folder to choose the held-out images yourself.",
        )
    found = assign_splits(found)
    lint.check_held_out(layout, found, findings)
    lint.check_duplicates(found, findings)
    classes = sorted({image.label for image in found})
    return DatasetIndex(version=content_hash(found), classes=classes, images=found)


def _report(index: DatasetIndex | None, findings: Findings) -> dict[str, Any]:
    splits: dict[str, dict[str, int]] = {}
    if index is not None:
        for (split, label), count in sorted(
            Counter((str(image.split), image.label) for image in index.images).items()
        ):
            splits.setdefault(split, {})[label] = count
    return {
        "ok": index is not None,
        "version": index.version if index else None,
        "classes": index.classes if index else None,
        "splits": splits or None,
        "images": len(index.images) if index else 0,
        "findings": [finding.model_dump(mode="json") for finding in findings.all()],
    }


def _add(target: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, date_time=EPOCH)
    info.external_attr = 0o644 << 16
    target.writestr(info, data)


def _limit(options: CheckOptions) -> None:
    """Cap what this process may use: a decoder's flaw ends here, not in the machine."""
    _cap(resource.RLIMIT_CORE, 0, 0)
    if options.memory_bytes is not None:
        _cap(resource.RLIMIT_AS, options.memory_bytes, options.memory_bytes)
    if options.cpu_seconds is not None:
        signal.signal(signal.SIGXCPU, _out_of_time)
        _cap(resource.RLIMIT_CPU, options.cpu_seconds, options.cpu_seconds + 10)


def _cap(kind: int, soft: int, hard: int) -> None:
    """Lower a limit; one that is lower already stays, and where there is none there is none."""
    _, now = resource.getrlimit(kind)
    if now != resource.RLIM_INFINITY:
        soft, hard = min(soft, now), min(hard, now)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses to limit the address space
        resource.setrlimit(kind, (soft, hard))


class _OutOfTime(BaseException):
    """The processor time is used up."""


def _out_of_time(*_: object) -> None:
    raise _OutOfTime


def _failure(code: str, stage: str, detail: str) -> Failure:
    return Failure(
        code=code,
        user_error=True,
        stage=stage,
        detail=f"The check of the upload was ended. {detail}",
        suggestion="Upload fewer or smaller images, or split the dataset.",
    )


def _disk_full(stage: str) -> Failure:
    return Failure(
        code="disk_full",
        user_error=False,
        stage=stage,
        detail="There was no room for the checked dataset.",
        retryable=True,
        suggestion="Free some space on the worker's disk.",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
