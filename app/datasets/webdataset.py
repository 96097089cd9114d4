"""WebDataset archives: files that share a key are one sample, the suffix says what each is.

    000001.jpg  000001.cls      an image and its class
    000002.png  000002.json     the same, as `{"label": ...}`

The key is the path up to the first dot of its last part (webdataset.github.io).
"""

from __future__ import annotations

import json
from collections import defaultdict

from app.datasets import labels
from app.datasets.findings import Findings, shown
from app.datasets.layout import Layout, ignored, looks_like_image
from app.datasets.members import Archive, ArchiveError, Member, Parts
from tdmr.data.index import Split

MAX_SIDECAR = 1 << 20
NAMES = ("classnames.txt", "classes.txt", "labels.txt")
_KEYS = ("label", "cls", "class", "class_name", "label_name")

Samples = dict[Parts, dict[str, Member]]


def find(archive: Archive) -> Samples | None:
    """The archive's samples by key, or None when it isn't of this kind."""
    samples: Samples = defaultdict(dict)
    for member in archive.members:
        stem, _, suffix = member.parts[-1].partition(".")
        samples[(*member.parts[:-1], stem)][suffix.casefold()] = member
    with_image = {
        key: sample
        for key, sample in samples.items()
        if any(looks_like_image(member.name) for member in sample.values())
    }
    if any("cls" in sample for sample in with_image.values()):
        return samples
    # A class folder's images may have a JSON file beside them as well: of another kind.
    if len({key[:-1] for key in with_image if _split(key) is None}) > 1:
        return None
    labelled = (_json_label(archive, sample) is not None for sample in with_image.values())
    return samples if any(labelled) else None


def place(archive: Archive, samples: Samples, findings: Findings) -> Layout:
    """Give every sample's image its class; a sample without one is reported."""
    layout = Layout()
    class_names = _class_names(archive)
    for key, sample in samples.items():
        images = [member for member in sample.values() if looks_like_image(member.name)]
        if not images:
            for member in sample.values():
                if member.parts[-1] not in NAMES:
                    ignored(member, findings)
            continue
        if len(images) > 1:
            findings.error(
                "two_images",
                f"The sample {shown('/'.join(key))} has {len(images)} images.",
                "Give each image a key, and a label, of its own.",
                images[1].name,
            )
            continue
        text = _label(archive, sample, class_names)
        reason = labels.trouble(text)
        if reason is not None:
            labels.refuse(images[0].name, reason, findings, images[0].name)
        else:
            layout.add(images[0], text, _split(key))
    return layout


def _label(archive: Archive, sample: dict[str, Member], class_names: list[str]) -> str:
    """A sample's class by name, or "" when it has none that can be read."""
    text = _read(archive, sample["cls"]) if "cls" in sample else _json_label(archive, sample)
    text = labels.label(text or "")
    if text.isascii() and text.isdigit() and int(text[:9]) < len(class_names):
        return class_names[int(text[:9])]
    return text


def _json_label(archive: Archive, sample: dict[str, Member]) -> str | None:
    member = sample.get("json")
    text = None if member is None else _read(archive, member)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    values = (found.get(key) for key in _KEYS)
    return next((str(v) for v in values if isinstance(v, (str, int)) and v is not True), None)


def _class_names(archive: Archive) -> list[str]:
    """What the numbers of classes stand for, where a file at the top says so, line by line."""
    for member in archive.members:
        if len(member.parts) == 1 and member.parts[0] in NAMES:
            text = _read(archive, member) or ""
            return [labels.label(line) for line in text.splitlines() if line.strip()]
    return []


def _read(archive: Archive, member: Member) -> str | None:
    if member.size > MAX_SIDECAR:
        return None
    try:
        return archive.read(member).decode("utf-8")
    except (ArchiveError, UnicodeDecodeError):
        return None


def _split(key: Parts) -> Split | None:
    return labels.split(key[0]) if len(key) > 1 else None
