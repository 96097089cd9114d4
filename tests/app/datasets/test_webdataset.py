"""WebDataset archives: samples by key, classes by sidecar."""

from __future__ import annotations

import json

import pytest

from tests.app.datasets import zips
from tests.app.datasets.conftest import Check, codes
from tests.app.datasets.tarballs import pack
from tests.app.datasets.zips import good_files, png

NUMBERS = range(6)
IMAGES = {f"{n:06d}.png": png(n) for n in NUMBERS}
CLASSES = {f"{n:06d}.cls": str(n % 2).encode() for n in NUMBERS}
JSON = {f"{n:06d}.json": json.dumps({"label": "ab"[n % 2]}).encode() for n in NUMBERS}
NAMES = {"classnames.txt": b"cat\ndog\n"}


def below(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


GOOD = {
    "numbers": ({**IMAGES, **CLASSES}, ["0", "1"]),
    "numbers-with-names": ({**IMAGES, **CLASSES, **NAMES}, ["cat", "dog"]),
    "text": ({**IMAGES, **{n: b"ab"[int(c) : int(c) + 1] for n, c in CLASSES.items()}}, ["a", "b"]),
    "newline": ({**IMAGES, **{n: c + b"\n" for n, c in CLASSES.items()}}, ["0", "1"]),
    "json": ({**IMAGES, **JSON}, ["a", "b"]),
    "both": ({**IMAGES, **CLASSES, **dict.fromkeys(JSON, b"{}")}, ["0", "1"]),
    "long-suffix": (
        {n.replace(".png", ".input.png"): d for n, d in IMAGES.items()} | CLASSES,
        ["0", "1"],
    ),
    "folder": (below("shard", {**IMAGES, **CLASSES}), ["0", "1"]),
    "folder-json": (below("shard", {**IMAGES, **JSON}), ["a", "b"]),
}


@pytest.mark.parametrize(("files", "classes"), GOOD.values(), ids=GOOD.keys())
def test_samples_get_their_classes(
    checked: Check, files: dict[str, bytes], classes: list[str]
) -> None:
    report = checked(pack(files))
    assert report["findings"] == []
    assert (report["classes"], report["images"]) == (classes, len(IMAGES))


def test_split_folders_are_splits(checked: Check) -> None:
    test = {n.replace("0000", "0001"): d for n, d in {**IMAGES, **CLASSES}.items()}
    test = {n: png(50 + int(n[:6])) if n.endswith("png") else d for n, d in test.items()}
    report = checked(pack({**below("train", {**IMAGES, **CLASSES}), **below("val", test)}))
    assert report["splits"] == {"train": {"0": 3, "1": 3}, "val": {"0": 3, "1": 3}}


BAD = {
    "no-label": ({**IMAGES, **CLASSES, "000009.png": png(9)}, "bad_label"),
    "empty": ({**IMAGES, **CLASSES, "000000.cls": b""}, "bad_label"),
}


@pytest.mark.parametrize(("files", "code"), BAD.values(), ids=BAD.keys())
def test_what_a_sample_lacks_is_reported(
    checked: Check, files: dict[str, bytes], code: str
) -> None:
    report = checked(pack(files))
    assert not report["ok"]
    assert codes(report) == [code]


def test_class_folders_with_annotations_beside_stay_class_folders(checked: Check) -> None:
    files = good_files()
    notes = {n.replace(".png", ".json"): b'{"label": "else"}' for n in files}
    report = checked(zips.pack({**files, **notes}))
    assert report["ok"]
    assert report["classes"] == ["a", "b"]
    assert set(codes(report, "warning")) == {"ignored_file"}
