"""Archives and Parquet files whose labels are hostile: manifests, sidecars, columns, footers."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.app.datasets import tarballs
from tests.app.datasets.corpus.zip_cases import patched
from tests.app.datasets.zips import pack, picture, png

IMAGES = {f"images/{n}.png": png(n) for n in range(8)}
LABELS = {name: "cat" if n % 2 else "dog" for n, name in enumerate(IMAGES)}
CSV = b"file,label\n" + b"".join(f"{f},{v}\n".encode() for f, v in LABELS.items())
LINES = b"".join(json.dumps({"file": f, "label": v}).encode() + b"\n" for f, v in LABELS.items())


def csv(line: bytes) -> bytes:
    """An archive whose CSV ends with that line."""
    return pack({**IMAGES, "labels.csv": CSV + line})


def lines(line: bytes) -> bytes:
    """An archive whose JSONL ends with that line."""
    return pack({**IMAGES, "labels.jsonl": LINES + line})


MANIFESTS = {
    "parent": (csv(b"../0.png,cat\n"), "unsafe_name"),
    "parent-inside": (csv(b"images/../../0.png,cat\n"), "unsafe_name"),
    "absolute": (csv(b"/etc/passwd,cat\n"), "unsafe_name"),
    "backslash": (csv(b"images\\0.png,cat\n"), "unsafe_name"),
    "url": (csv(b"file:///etc/passwd,cat\n"), "missing_file"),
    "web": (csv(b"http://localhost/0.png,cat\n"), "missing_file"),
    "dot": (csv(b".,cat\n"), "missing_file"),
    "nul": (csv(b"images/0.png\0,cat\n"), "unsafe_name"),
    "home": (csv(b"~/0.png,cat\n"), "missing_file"),
    "variable": (csv(b"${HOME}/0.png,cat\n"), "missing_file"),
    "itself": (csv(b"labels.csv,cat\n"), "unsupported_image"),
    "two-labels": (csv(b"images/0.png,cat\n"), "two_labels"),
    "long-label": (csv(b"images/0.png," + b"x" * 201 + b"\n"), "bad_label"),
    "bell-in-label": (csv(b"images/0.png,\a\n"), "bad_label"),
    "escape-in-label": (csv(b"images/0.png,\x1b[31mcat\n"), "bad_label"),
    "right-to-left-label": (csv("images/0.png,\u202etac\n".encode()), "bad_label"),
    "newline-in-label": (csv(b'images/0.png,"c\nat"\n'), "bad_label"),
    "nul-in-label": (csv(b"images/0.png,c\0at\n"), "bad_label"),
    "broken-quotes": (csv(b'"images/0.png"x,dog\n'), "unreadable_manifest"),
    "open-quote": (csv(b'"images/0.png,dog\n'), "unreadable_manifest"),
    "too-many-columns": (csv(b"images/0.png,dog,x\n"), "unreadable_manifest"),
    "deep-json": (lines(b"[" * 100_000 + b"\n"), "unreadable_manifest"),
    "deep-objects": (lines(b'{"a":' * 100_000 + b"\n"), "unreadable_manifest"),
    "json-array": (lines(b"[1]\n"), "unreadable_manifest"),
    "json-nothing": (lines(b"null\n"), "unreadable_manifest"),
    "json-broken": (lines(b"{]\n"), "unreadable_manifest"),
    "json-endless-number": (
        lines(b'{"file": "x", "label": ' + b"9" * 5000 + b"}\n"),
        "unreadable_manifest",
    ),
    "json-label-object": (
        lines(b'{"file": "images/0.png", "label": {"a": 1}}\n'),
        "unreadable_manifest",
    ),
    "json-file-list": (lines(b'{"file": ["images/0.png"], "label": "x"}\n'), "unreadable_manifest"),
    "json-surrogate-label": (
        lines(b'{"file": "images/0.png", "label": "\\ud800"}\n'),
        "bad_label",
    ),
    "json-surrogate-file": (lines(b'{"file": "\\ud800", "label": "x"}\n'), "unsafe_name"),
    "json-surrogate-split": (
        lines(b'{"file": "images/0.png", "label": "dog", "split": "\\ud800"}\n'),
        "bad_split",
    ),
}

SAMPLES = {f"{n:06d}.png": png(n) for n in range(6)}
CLASSES = {f"{n:06d}.cls": str(n % 2).encode() for n in range(6)}


def sample(**files: bytes) -> bytes:
    """A WebDataset whose first sample has these files, by suffix."""
    first = {f"000000.{suffix}": data for suffix, data in files.items()}
    return tarballs.pack({**SAMPLES, **CLASSES, **first})


SIDECARS = {
    "not-utf-8": (sample(cls=b"\xff\xfe"), "bad_label"),
    "endless": (sample(cls=b"1" * (2 << 20)), "bad_label"),
    "long": (sample(cls=b"x" * 201), "bad_label"),
    "nul": (sample(cls=b"0\0"), "bad_label"),
    "escape": (sample(cls=b"\x1b]0;title\a"), "bad_label"),
    "lines": (sample(cls=b"0\n1"), "bad_label"),
    "right-to-left": (sample(cls="\u202e0".encode()), "bad_label"),
    "two-images": (sample(jpg=png(9)), "two_images"),
    "link": (
        tarballs.build(
            [
                *(tarballs.Entry(name, data) for name, data in {**SAMPLES, **CLASSES}.items()),
                tarballs.Entry("000007.cls", type=tarfile.SYMTYPE, link="/etc/passwd"),
            ]
        ),
        "link",
    ),
    "image-is-zip": (sample(png=pack({})), "nested_archive"),
    "image-is-text": (sample(png=b"text"), "unsupported_image"),
}

ROWS = list(IMAGES.values())
TEXT = list(LABELS.values())


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    """A Parquet file of these columns."""
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def replaced(values: list[Any], value: Any) -> list[Any]:
    """The values, but the fourth."""
    return [*values[:3], value, *values[4:]]


def page(content: bytes, place: int, new: bytes) -> bytes:
    """A Parquet file with something else in its first page."""
    return patched(content, 4 + place, new)


PLAIN = parquet({"image": ROWS, "label": TEXT}, compression="none", use_dictionary=False)
GZIP = parquet({"image": ROWS, "label": TEXT}, compression="gzip")
FOOTER = struct.unpack("<L", PLAIN[-8:-4])[0]


def footer(data: bytes, said: int | None = None) -> bytes:
    """The good file with another footer, or another length of it."""
    length = len(data) if said is None else said
    return PLAIN[: -8 - FOOTER] + data + struct.pack("<L", length) + b"PAR1"


OWN = PLAIN[-8 - FOOTER : -8]
PARQUET = {
    "two-bytes": (b"PA", "not_an_archive"),
    "without-end": (PLAIN[:-4], "not_an_archive"),
    "half": (PLAIN[: len(PLAIN) // 2], "not_an_archive"),
    "encrypted-footer": (PLAIN[:-4] + b"PARE", "not_an_archive"),
    "encrypted": (b"PARE" + PLAIN[4:-4] + b"PARE", "not_an_archive"),
    "magic-only": (b"PAR1PAR1", "damaged_file"),
    "magic-and-length": (b"PAR1" + bytes(4) + b"PAR1", "damaged_file"),
    "footer-only": (b"PAR1" + PLAIN[-600:], "damaged_file"),
    "footer-cut": (PLAIN[:-9] + b"PAR1", "damaged_file"),
    "footer-empty": (footer(b""), "damaged_file"),
    "footer-zeros": (footer(bytes(200)), "damaged_file"),
    "footer-ones": (footer(b"\xff" * 200), "damaged_file"),
    "footer-text": (footer(b"hello" * 50), "damaged_file"),
    "footer-shifted": (footer(OWN[1:]), "damaged_file"),
    "footer-length-huge": (footer(OWN, 2**32 - 1), "damaged_file"),
    "footer-length-negative": (footer(OWN, 2**31), "damaged_file"),
    "footer-length-beyond": (footer(OWN, len(PLAIN)), "damaged_file"),
    "footer-length-short": (footer(OWN, FOOTER - 40), "damaged_file"),
    "footer-list-bomb": (
        footer(b"\x15\2\x19\xfc\xff\xff\xff\xff\x0f" + bytes(100)),
        "damaged_file",
    ),
    "footer-string-bomb": (
        footer(b"\x15\2\x19\x1c\x48\xff\xff\xff\xff\x07" + bytes(100)),
        "damaged_file",
    ),
    "footer-deep": (footer(b"\x1c" * 100_000), "damaged_file"),
    "without-data": (b"PAR1" + OWN + struct.pack("<L", FOOTER) + b"PAR1", "damaged_file"),
    "pages-of-zeros": (
        b"PAR1" + bytes(len(PLAIN) - FOOTER - 12) + PLAIN[-8 - FOOTER :],
        "damaged_file",
    ),
    "pages-of-ones": (
        b"PAR1" + b"\xff" * (len(PLAIN) - FOOTER - 12) + PLAIN[-8 - FOOTER :],
        "damaged_file",
    ),
    "page-header": (page(PLAIN, 0, b"\xff\xff\xff\xff"), "damaged_file"),
    "page-type": (page(PLAIN, 0, b"\x15\x7e"), "damaged_file"),
    "damaged-pages": (GZIP[:60] + bytes(400) + GZIP[460:], "damaged_file"),
    "null-image": (parquet({"image": replaced(ROWS, None), "label": TEXT}), "empty_file"),
    "label-null": (parquet({"image": ROWS, "label": replaced(TEXT, None)}), "bad_label"),
    "label-bell": (parquet({"image": ROWS, "label": replaced(TEXT, "\a")}), "bad_label"),
    "label-nul": (parquet({"image": ROWS, "label": replaced(TEXT, "a\0b")}), "bad_label"),
    "label-long": (parquet({"image": ROWS, "label": replaced(TEXT, "x" * 10_000)}), "bad_label"),
    "label-right-to-left": (
        parquet({"image": ROWS, "label": replaced(TEXT, "\u202egod")}),
        "bad_label",
    ),
    "split-strange": (
        parquet({"image": ROWS, "label": TEXT, "split": replaced(["train"] * 8, "../x")}),
        "bad_split",
    ),
    "image-text": (parquet({"image": replaced(ROWS, b"text"), "label": TEXT}), "unsupported_image"),
    "image-gif": (
        parquet({"image": replaced(ROWS, picture("GIF", mode="L")), "label": TEXT}),
        "unsupported_image",
    ),
    "image-zip": (parquet({"image": replaced(ROWS, pack({})), "label": TEXT}), "nested_archive"),
    "image-parquet": (
        parquet({"image": replaced(ROWS, PLAIN), "label": TEXT}),
        "unsupported_image",
    ),
    "image-cut": (
        parquet({"image": replaced(ROWS, png()[:40]), "label": TEXT}),
        "unreadable_image",
    ),
    "paths-only": (parquet({"image": ["/etc/passwd"] * 8, "label": TEXT}), "wrong_columns"),
    "lists": (parquet({"image": [[b"x"]] * 8, "label": TEXT}), "wrong_columns"),
}


def cases() -> dict[str, tuple[bytes, str]]:
    """Each upload, and its code."""
    groups = {"manifest": MANIFESTS, "sidecar": SIDECARS, "parquet": PARQUET}
    return {f"{of}-{name}": case for of, group in groups.items() for name, case in group.items()}
