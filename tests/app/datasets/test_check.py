"""What the check takes, forgives and reports, and the dataset that it writes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from app.datasets.check import STAGES
from app.datasets.options import CheckOptions
from tdmr.data.index import DatasetIndex, content_hash, load_index
from tdmr.jobdir import JobDir
from tests.app.datasets.conftest import Check, codes
from tests.app.datasets.zips import (
    Raw,
    build,
    forced_zip64,
    good_files,
    pack,
    picture,
    png,
    streamed,
    widened,
    with_good,
)


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def split_files() -> dict[str, bytes]:
    files = below("train", good_files(3))
    for place, name in enumerate(("test/a/x.png", "test/b/x.png")):
        files[name] = png(5000 + place)
    return files


GOOD = {
    "class-folders": pack(good_files()),
    "stored": pack(good_files(), zipfile.ZIP_STORED),
    "splits": pack(split_files()),
    "splits-in-capitals": pack({n.replace("train", "Train"): d for n, d in split_files().items()}),
    "validation-instead-of-test": pack(
        {n.replace("test", "val"): d for n, d in split_files().items()}
    ),
    "folder-entries": pack({"a/": b"", "b/": b"", **good_files()}),
    "dot-names": pack({f"./{name}": data for name, data in good_files().items()}),
    "old-code-page": build(
        [Raw(f"{c}\x82/{n}.png".encode("latin-1"), png(n + 300 * ord(c)), flags=0)
         for c in "ab" for n in range(3)]
    ),
    "comment": build(
        [Raw(n.encode(), d) for n, d in good_files().items()], comment=b"PK\x05\x06 made by hand"
    ),
    "no-mode": build([Raw(n.encode(), d, mode=0, system=0) for n, d in good_files().items()]),
    "deeper": pack({n.replace("/", "/2024/may/"): d for n, d in good_files().items()}),
    "called-test": pack({n.replace("a/", "test/"): d for n, d in good_files().items()}),
    "jpeg": pack({n.replace("png", "jpg"): picture("JPEG", i * 40, (16, 16))
                  for i, n in enumerate(good_files())}),
    "webp": pack({n: picture("WEBP", i * 40, (16, 16)) for i, n in enumerate(good_files())}),
    "unicode": pack({f"\u732b {n}": d for n, d in good_files().items()}),
    "streamed": streamed(good_files()),
    "zip64": forced_zip64(good_files()),
    "zip64-end": widened(pack(good_files())),
    "two-per-class": pack(good_files(2)),
    "many": pack(good_files(60, "abcde")),
}  # fmt: skip

FORGIVEN = {
    "wrapped": (pack(below("digits", good_files())), "wrapping_folder"),
    "wrapped-with-readme": (
        pack({"digits/README.md": b"hi", **below("digits", good_files())}),
        "wrapping_folder",
    ),
    "wrapped-splits": (pack(below("digits", split_files())), "wrapping_folder"),
    "mac": (pack({"__MACOSX/a/._1.png": b"x", ".DS_Store": b"x", **good_files()}), "system_files"),
    "windows": (pack({"a/Thumbs.db": b"x", "desktop.ini": b"x", **good_files()}), "system_files"),
    "notebook": (
        pack({"a/.ipynb_checkpoints/1-checkpoint.png": png(77), **good_files()}),
        "system_files",
    ),
    "readme": (pack({"LICENSE": b"free", **good_files()}), "ignored_file"),
    "labels-in-class": (pack({"a/labels.txt": b"1", **good_files()}), "ignored_file"),
    "train-only": (pack(below("train", good_files())), "test_split_made"),
    "copy-in-class": (pack({"a/copy.png": png(0), **good_files()}), "duplicate"),
    "leak": (pack({"test/a/l.png": png(0), **split_files()}), "leak"),
    "class-not-tested": (
        pack({n: d for n, d in split_files().items() if n != "test/b/x.png"}),
        "class_not_tested",
    ),
}

BAD = {
    "no-class-folder": (pack({f"{n}.png": png(n) for n in range(4)}), "no_class_folder"),
    "nothing": (pack({}), "no_class_folder"),
    "text-only": (pack({"notes.txt": b"x"}), "no_class_folder"),
    "one-class": (pack(good_files(3, "a")), "one_class"),
    "empty-class": (pack({"c/": b"", **good_files()}), "empty_class"),
    "class-without-images": (pack({"c/notes.txt": b"x", **good_files()}), "empty_class"),
    "one-image-in-class": (pack({"c/1.png": png(9), **good_files()}), "too_few_images"),
    "one-training-image": (
        pack({"train/c/1.png": png(9), **split_files()}),
        "too_few_images",
    ),
    "class-not-in-training": (
        pack({"test/c/1.png": png(9), **split_files()}),
        "class_not_in_training",
    ),
    "no-train": (
        pack({**below("test", good_files()), **below("val", good_files())}),
        "no_training_split",
    ),
    "mixed": (pack({"c/1.png": png(9), **split_files()}), "mixed_layout"),
    "image-outside": (pack({"top.png": png(9), **good_files()}), "image_outside_class"),
    "zero-bytes": (pack({"a/9.png": b"", **good_files()}), "empty_file"),
    "two-classes-one-image": (
        pack({"b/copy.png": png(0), **good_files()}),
        "same_image_in_two_classes",
    ),
    "garbage": (pack({"a/9.png": b"not an image", **good_files()}), "unsupported_image"),
    "gif": (pack({"a/9.gif": picture("GIF", mode="L"), **good_files()}), "unsupported_image"),
    "cut-jpeg": (
        pack({"a/9.jpg": picture("JPEG", 9, (64, 64))[:400], **good_files()}),
        "unreadable_image",
    ),
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD.keys())
def test_good_archives_are_taken_without_a_word(checked: Check, content: bytes) -> None:
    report = checked(content)
    assert report["findings"] == []
    assert report["ok"]


@pytest.mark.parametrize(("content", "code"), FORGIVEN.values(), ids=FORGIVEN.keys())
def test_small_faults_are_forgiven_and_reported(checked: Check, content: bytes, code: str) -> None:
    report = checked(content)
    assert report["ok"]
    assert code in codes(report, "warning")
    assert codes(report) == []


@pytest.mark.parametrize(("content", "code"), BAD.values(), ids=BAD.keys())
def test_what_cant_be_trained_on_is_invalid(
    checked: Check, tmp_path: Path, content: bytes, code: str
) -> None:
    report = checked(content)
    assert code in codes(report)
    assert not report["ok"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json"]


def test_what_the_zip_command_makes_is_taken(checked: Check, tmp_path: Path) -> None:
    for name, data in {**good_files(), "\u00fc/1.png": png(7), "\u00fc/2.png": png(8)}.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    made = tmp_path / "made.zip"
    program = shutil.which("zip")  # without it, Python's own command makes the archive
    python = [sys.executable, "-m", "zipfile", "-c", made]
    folders = sorted(path.name for path in (tmp_path / "files").iterdir())
    command = [program, "-qr", made, "."] if program else [*python, *folders]
    subprocess.run(command, check=True, cwd=tmp_path / "files")
    report = checked(made.read_bytes())
    assert report["findings"] == []
    assert report["classes"] == ["a", "b", "\u00fc"]


def test_an_unreadable_image_is_named_with_advice(checked: Check) -> None:
    report = checked(pack({"a/broken.png": png()[:40], **good_files()}))
    (finding,) = [each for each in report["findings"] if each["severity"] == "error"]
    assert finding["file"] == "a/broken.png"
    assert "a/broken.png" in finding["detail"]
    assert "JPEG, PNG or WebP" in finding["advice"]


def test_the_dataset_holds_the_original_bytes_under_names_of_ours(
    checked: Check, tmp_path: Path
) -> None:
    files = split_files()
    report = checked(pack(files))
    with zipfile.ZipFile(tmp_path / "out" / "dataset.zip") as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        archive.extractall(tmp_path / "data")
    index = DatasetIndex.model_validate_json((tmp_path / "data" / "index.json").read_bytes())
    assert index.version == report["version"] == content_hash(index.images)
    assert index.classes == report["classes"] == ["a", "b"]
    assert report["splits"] == {"test": {"a": 1, "b": 1}, "train": {"a": 3, "b": 3}}
    assert report["images"] == len(index.images) == len(files)
    for image in index.images:
        data = (tmp_path / "data" / image.file).read_bytes()
        assert data == files[image.source]
        assert image.sha256 == hashlib.sha256(data).hexdigest()
        assert (image.width, image.height) == (8, 8)
        assert image.file.startswith("images/0000")
    assert load_index(tmp_path / "data") == index


def test_the_version_says_what_is_in_it_not_how_it_was_packed(checked: Check) -> None:
    first = checked(pack(good_files()))["version"]
    backwards = dict(reversed(good_files().items()))
    assert checked(pack(below("w", backwards), zipfile.ZIP_STORED))["version"] == first
    assert checked(pack({**good_files(), "a/9.png": png(9)}))["version"] != first


def test_a_split_is_seeded_and_leaves_every_class_some_training(checked: Check) -> None:
    report = checked(pack(good_files(10)))
    assert report["splits"] == {"test": {"a": 2, "b": 2}, "train": {"a": 8, "b": 8}}
    assert checked(pack(good_files(10)))["version"] == report["version"]


def test_limits_on_images(checked: Check) -> None:
    content = pack({"a/wide.png": png(9, (90, 90)), **good_files()})
    assert codes(checked(content, max_image_pixels=8000)) == ["image_too_large"]
    content = pack({"a/long.png": os.urandom(5000), **good_files()})
    assert codes(checked(content, max_image_bytes=4000)) == ["file_too_large"]


def test_findings_are_capped_and_counted(checked: Check) -> None:
    content = build([Raw(f"../{n}".encode()) for n in range(1200)])
    report = checked(content)
    assert len(report["findings"]) == 1001
    assert report["findings"][-1]["code"] == "more_findings"
    assert "201 more" in report["findings"][-1]["detail"]


def run_check(job: JobDir, options: CheckOptions) -> subprocess.CompletedProcess[str]:
    job.config.write_text(options.model_dump_json())
    return subprocess.run(
        [sys.executable, "-m", "app.datasets.check", str(job.path)],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "TDMR_LIFELINE"},
    )


def job_dir(tmp_path: Path, content: bytes) -> JobDir:
    job = JobDir(tmp_path / "job")
    job.data.mkdir(parents=True)
    (job.data / "upload").write_bytes(content)
    return job


def test_as_a_process_it_reports_its_progress_and_its_result(tmp_path: Path) -> None:
    job = job_dir(tmp_path, pack(good_files()))
    ran = run_check(job, CheckOptions(memory_bytes=4 << 30, cpu_seconds=60))
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = [line for _, line in job.read()]
    assert list(dict.fromkeys(line.stage.name for line in lines if line.stage)) == STAGES
    assert lines[-1].event == "done"
    assert json.loads((job.out / "report.json").read_text())["ok"]


def test_invalid_data_is_a_result_not_a_crash(tmp_path: Path) -> None:
    job = job_dir(tmp_path, with_good(Raw(b"../9.png")))
    assert run_check(job, CheckOptions()).returncode == 0
    assert [line.event for _, line in job.read()][-1] == "done"
    assert not json.loads((job.out / "report.json").read_text())["ok"]
    assert not (job.out / "dataset.zip").exists()


def test_a_check_that_needs_too_long_ends_with_a_reason(tmp_path: Path) -> None:
    large = png(size=(4000, 4000))
    files = {f"{c}/{n}.png": large + bytes([n]) for c in "ab" for n in range(60)}
    job = job_dir(tmp_path, pack(files, zipfile.ZIP_STORED))
    ran = run_check(job, CheckOptions(cpu_seconds=1))
    assert ran.returncode == 1
    failure = [line for _, line in job.read()][-1].failure
    assert failure is not None
    assert (failure.code, failure.user_error) == ("check_time", True)


def test_a_missing_upload_is_a_crash_that_says_so(tmp_path: Path) -> None:
    job = job_dir(tmp_path, b"")
    shutil.rmtree(job.data)
    ran = run_check(job, CheckOptions())
    assert ran.returncode == 1
    assert "FileNotFoundError" in ran.stderr
