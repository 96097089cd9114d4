"""Manifests: images get the class and split that a CSV or JSONL file says."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tdmr.data.index import DatasetIndex
from tests.app.datasets.conftest import Check, codes
from tests.app.datasets.zips import good_files, pack, png

IMAGES = {f"images/{n}.png": png(n) for n in range(8)}
LABELS = {name: "cat" if n % 2 else "dog" for n, name in enumerate(IMAGES)}


def table(
    rows: dict[str, str], header: str = "file,label", *, delimiter: str = ",", split: bool = False
) -> bytes:
    lines = [header]
    for n, (file, label) in enumerate(rows.items()):
        third = [("test" if n >= 6 else "train")] if split else []
        lines.append(delimiter.join([file, label, *third]))
    return ("\n".join(lines) + "\n").encode()


def lines(rows: dict[str, str]) -> bytes:
    return b"".join(json.dumps({"file": f, "label": v}).encode() + b"\n" for f, v in rows.items())


def index_in(folder: Path) -> DatasetIndex:
    with zipfile.ZipFile(folder / "out" / "dataset.zip") as archive:
        return DatasetIndex.model_validate_json(archive.read("index.json"))


WITH_SPLITS = table(LABELS, "file,label,split", split=True)
GOOD = {
    "csv": {"labels.csv": table(LABELS)},
    "byte-order-mark": {"labels.csv": "\N{ZERO WIDTH NO-BREAK SPACE}".encode() + table(LABELS)},
    "semicolons": {"labels.csv": table(LABELS, "file;label", delimiter=";")},
    "tabs": {"labels.tsv": table(LABELS, "file\tlabel", delimiter="\t")},
    "jsonl": {"labels.jsonl": lines(LABELS)},
    "windows-lines": {"labels.csv": table(LABELS).replace(b"\n", b"\r\n")},
    "capitals": {"Labels.CSV": table(LABELS, "File,Label")},
    "other-columns": {"a.csv": table({f: f"{v},7" for f, v in LABELS.items()}, "file,label,age")},
    "hub": {"images/metadata.csv": table(
        {f.removeprefix("images/"): v for f, v in LABELS.items()}, "file_name,label")},
    "dots": {"labels.csv": table({f"./{f}": v for f, v in LABELS.items()})},
    "spaces": {"labels.csv": table({f: f" {v} " for f, v in LABELS.items()})},
    "splits": {"labels.csv": WITH_SPLITS},
    "other-words": {"labels.csv": WITH_SPLITS.replace(b",test", b",Validation")},
}  # fmt: skip


@pytest.mark.parametrize("manifest", GOOD.values(), ids=GOOD.keys())
def test_images_get_the_classes_that_the_manifest_says(
    checked: Check, tmp_path: Path, manifest: dict[str, bytes]
) -> None:
    report = checked(pack({**IMAGES, **manifest}))
    assert report["findings"] == []
    found = {image.source: image.label for image in index_in(tmp_path).images}
    assert found == LABELS


def test_the_wrapping_folder_of_a_manifest_does_no_harm(checked: Check) -> None:
    files = {**IMAGES, "labels.csv": table(LABELS)}
    report = checked(pack({f"pets/{name}": data for name, data in files.items()}))
    assert report["ok"]
    assert report["classes"] == ["cat", "dog"]


def test_splits_are_taken_as_they_are_said(checked: Check, tmp_path: Path) -> None:
    checked(pack({**IMAGES, "labels.csv": WITH_SPLITS}))
    assert Counter(image.split for image in index_in(tmp_path).images) == {"train": 6, "test": 2}


def test_a_manifest_for_each_split(checked: Check, tmp_path: Path) -> None:
    rows = list(LABELS.items())
    files = {"train.csv": table(dict(rows[:6])), "test.csv": table(dict(rows[6:]))}
    assert checked(pack({**IMAGES, **files}))["ok"]
    assert Counter(image.split for image in index_in(tmp_path).images) == {"train": 6, "test": 2}


def test_quoted_names_may_hold_commas(checked: Check, tmp_path: Path) -> None:
    files = {name.replace("/", "/a, "): data for name, data in IMAGES.items()}
    rows = {f'"{name.replace("/", "/a, ")}"': label for name, label in LABELS.items()}
    assert checked(pack({**files, "labels.csv": table(rows)}))["ok"]
    assert len(index_in(tmp_path).images) == len(IMAGES)


def said(change: dict[str, str], header: str = "file,label") -> bytes:
    return pack({**IMAGES, "labels.csv": table({**LABELS, **change}, header)})


BAD = {
    "missing-file": (said({"images/99.png": "cat"}), "missing_file"),
    "no-label": (said({"images/0.png": ""}), "bad_label"),
    "unknown-split": (
        pack({**IMAGES, "labels.csv": WITH_SPLITS.replace(b"test", b"later")}),
        "bad_split",
    ),
    "too-few-columns": (
        pack({**IMAGES, "labels.csv": table(LABELS) + b"images/0.png\n"}),
        "bad_label",
    ),
    "null-label": (
        pack({**IMAGES, "labels.jsonl": lines(LABELS) + b'{"file": "images/0.png"}\n'}),
        "unreadable_manifest",
    ),
    "no-image": (
        pack({**IMAGES, "notes.txt": b"x", "labels.csv": table({**LABELS, "notes.txt": "cat"})}),
        "unsupported_image",
    ),
    "capitals": (said({"images/0.png": "Dog"}), "label_collision"),
    "one-class": (said(dict.fromkeys(LABELS, "cat")), "one_class"),
}


@pytest.mark.parametrize(("content", "code"), BAD.values(), ids=BAD.keys())
def test_what_a_manifest_gets_wrong_is_reported(checked: Check, content: bytes, code: str) -> None:
    report = checked(content)
    assert not report["ok"]
    assert code in codes(report)


def test_every_bad_line_is_reported_with_its_number(checked: Check) -> None:
    bad = {"images/8.png": "cat", "images/9.png": "dog", "images/0.png": ""}
    findings = checked(said(bad))["findings"]
    told = [each["detail"] for each in findings if each["severity"] == "error"]
    assert told == [
        "labels.csv, line 2, has no label.",
        "labels.csv, line 10, names images/8.png, which isn't in the archive.",
        "labels.csv, line 11, names images/9.png, which isn't in the archive.",
    ]


def test_images_that_no_line_names_are_left_out_and_said(checked: Check) -> None:
    content = pack({**IMAGES, "images/extra.png": png(99), "labels.csv": table(LABELS)})
    report = checked(content)
    assert report["images"] == len(IMAGES)
    assert codes(report, "warning") == ["unlisted_image"]


def test_a_table_of_other_things_is_no_manifest(checked: Check) -> None:
    report = checked(pack({**good_files(), "prices.csv": b"day,price\n1,2\n"}))
    assert report["ok"]
    assert codes(report, "warning") == ["ignored_file"]
