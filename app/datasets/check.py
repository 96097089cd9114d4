"""The check of one upload, as a process of its own: `python -m app.datasets.check JOB_DIR`.

It reads JOB_DIR/config.json (`CheckOptions`) and JOB_DIR/data/upload, and writes out/report.json
and, when the upload is good, out/dataset.zip and out/gallery.bin. Invalid data is a result, not a
failure.
"""

from __future__ import annotations

import errno
import json
import sys
import zipfile
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.datasets import gallery, lint
from app.datasets.examine import Examined, examined
from app.datasets.findings import Findings, shown
from app.datasets.gallery import Thumbnails
from app.datasets.images import Change
from app.datasets.intake import opened
from app.datasets.layout import Layout
from app.datasets.options import CheckOptions
from tdmr import lifeline, limits
from tdmr.data.index import SPLITS, DatasetIndex, IndexedImage, assign_splits, content_hash
from tdmr.errors import Failure
from tdmr.jobdir import JobDir, Reporter

STAGES = ["read", "check", "write"]
DATASET, GALLERY = "dataset.zip", "gallery.bin"
CHANGES: dict[Change, tuple[str, str]] = {
    "turned": ("orientation_applied", "were turned upright as their EXIF orientation says"),
    "converted": ("colours_converted", "were converted to RGB"),
}
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip archive can say


def main(arguments: list[str]) -> int:
    """Check the upload in a job directory; the exit code is 0 unless the check itself failed."""
    job = JobDir(Path(arguments[0]))
    reporter = Reporter(job, STAGES)
    try:
        lifeline.hold()
        options = CheckOptions.model_validate_json(job.config.read_bytes())
        limits.hold(options.memory_bytes, options.cpu_seconds)
        report = check(job.data / "upload", job.out, options, reporter)
    except MemoryError:
        reporter.failed(_failure("check_memory", reporter.stage, "It needed too much memory."))
        return 1
    except limits.OutOfTime:
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
    """Check `upload`; write the report, and dataset and gallery when there is no error.

    What must be unpacked as a whole goes beside `out` meanwhile.
    """
    findings = Findings()
    out.mkdir(parents=True, exist_ok=True)
    index: DatasetIndex | None = None
    reporter.start("read")
    with (
        TemporaryDirectory(dir=out.parent, prefix="check-") as scratch,
        opened(upload, Path(scratch) / "spool", options, findings, reporter.step) as found,
        (Path(scratch) / "thumbnails").open("w+b") as small,
    ):
        if found is not None:
            archive, layout = found
            thumbnails = Thumbnails(small)
            with zipfile.ZipFile(out / DATASET, "w", zipfile.ZIP_STORED) as canonical:
                images = Collected(canonical, thumbnails, findings)
                reporter.start("check")
                for number, each in enumerate(examined(archive, layout.placed, options), start=1):
                    images.add(each)
                    reporter.step(number, len(layout.placed))
                images.report_changes()
                index = _index(layout, images.found, findings)
                reporter.start("write")
                if index is not None and findings.ok:
                    images.write("index.json", index.model_dump_json().encode())
            if index is not None and findings.ok:
                gallery.write(out / GALLERY, index.images, thumbnails)
    if not findings.ok:
        for name in (DATASET, GALLERY):
            (out / name).unlink(missing_ok=True)
        index = None
    report = _report(index, findings)
    (out / "report.json").write_text(json.dumps(report), encoding="utf-8")
    reporter.step(1, 1)
    return report


class Collected:
    """The images that were found, copied under names of ours while all is well."""

    def __init__(
        self, canonical: zipfile.ZipFile, thumbnails: Thumbnails, findings: Findings
    ) -> None:
        self.found: list[IndexedImage] = []
        self._canonical, self._thumbnails, self._findings = canonical, thumbnails, findings
        self._changed: dict[Change, list[str]] = {}

    def add(self, examined: Examined) -> None:
        """Take what became of one file."""
        for finding in examined.findings:
            self._findings.add(finding)
        image, placed = examined.image, examined.placed
        if image is None:
            return
        indexed = IndexedImage(
            file=f"images/{len(self.found):06d}.{image.suffix}",
            label=placed.label,
            split=placed.split,
            source=shown(placed.member.name),
            sha256=examined.sha256,
            width=image.width,
            height=image.height,
        )
        self.found.append(indexed)
        for change in image.changes:
            self._changed.setdefault(change, []).append(placed.member.name)
        if self._findings.ok:
            self.write(indexed.file, image.data)
            self._thumbnails.add(indexed.file, image.thumbnail)

    def write(self, name: str, data: bytes) -> None:
        """Add a file to the canonical dataset."""
        info = zipfile.ZipInfo(name, date_time=EPOCH)
        info.external_attr = 0o644 << 16
        self._canonical.writestr(info, data)

    def report_changes(self) -> None:
        """Say how many images aren't stored as they came. Animations are reported one by one."""
        for change, (code, words) in CHANGES.items():
            names = self._changed.get(change, [])
            if names:
                self._findings.warn(
                    code,
                    f"{len(names)} image(s) {words}, {shown(names[0])} among them.",
                    "Nothing needs to be done.",
                    names[0],
                )


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
            "All images are for training; a seeded fifth of them is held out as test.",
            "Add a test folder to choose the held-out images yourself.",
        )
    found = sorted(assign_splits(found), key=_order)
    lint.check_held_out(layout, found, findings)
    lint.check_duplicates(found, findings)
    classes = sorted({image.label for image in found})
    return DatasetIndex(version=content_hash(found), classes=classes, images=found)


def _order(image: IndexedImage) -> tuple[int, str, str, str]:
    """By split, class and source: a gallery's images of one class in one split are a run."""
    assert image.split is not None
    return SPLITS.index(image.split), image.label, image.source, image.file


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
