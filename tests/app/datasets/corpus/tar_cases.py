"""Tar archives, plain and compressed, that are hostile or broken."""

from __future__ import annotations

import struct
import tarfile

from tests.app.datasets import zips
from tests.app.datasets.tarballs import Entry, block, build, pack, padded, pax, zipped
from tests.app.datasets.zips import good_files, png

FILES = good_files()
GOOD = [Entry(name, data) for name, data in FILES.items()]
PACKED = pack(FILES)
GZIPPED = zipped(PACKED)


def with_good(*entries: Entry) -> bytes:
    """An archive that is good but for `entries`."""
    return build([*GOOD, *entries])


def long_name(size: int) -> bytes:
    """The header of a GNU long name of that size."""
    return block(Entry("././@LongLink", type=tarfile.GNUTYPE_LONGNAME, size=size))


def told(*records: bytes, name: str = "a/9.png") -> bytes:
    """An archive with one more image, of which a pax header says these records."""
    said = b"".join(_record(each) for each in records)
    return with_good(Entry(name, png(9), prefix=pax(said)))


def _record(text: bytes) -> bytes:
    """A pax record: its length, which counts its own digits, in front."""
    length = len(text) + 2
    while length != len(b"%d %s\n" % (length, text)):
        length += 1
    return b"%d %s\n" % (length, text)


def header(**fields: bytes) -> bytes:
    """An archive whose last image has these raw fields in its header, with the right checksum."""
    places = {
        "mode": 100,
        "size": 124,
        "checksum": 148,
        "type": 156,
        "link": 157,
        "magic": 257,
        "prefix": 345,
    }
    raw = bytearray(tarfile.TarInfo("a/9.png").tobuf(tarfile.USTAR_FORMAT))
    for name, value in fields.items():
        raw[places[name] : places[name] + len(value)] = value
    if "checksum" not in fields:
        raw[148:156] = b" " * 8
        raw[148:156] = b"%06o\0 " % sum(raw)
    return b"".join(block(e) + padded(e.data) for e in GOOD) + bytes(raw) + bytes(1024)


def gzip_patched(place: int, new: bytes) -> bytes:
    """The good archive as gzip with some bytes replaced; a negative place counts from the end."""
    place %= len(GZIPPED)
    return GZIPPED[:place] + new + GZIPPED[place + len(new) :]


NAMES = {
    "parent": with_good(Entry("../9.png", png(9))),
    "absolute": with_good(Entry("/etc/tdmr-escaped", png(9))),
    "absolute-folder": with_good(Entry("/etc", type=tarfile.DIRTYPE)),
    "backslash": with_good(Entry("a\\9.png", png(9))),
    "drive": with_good(Entry("C:9.png", png(9))),
    "newline": with_good(Entry("a/9\n.png", png(9))),
    "dot": with_good(Entry(".", png(9))),
    "empty": with_good(Entry("", png(9))),
    "long-name-parent": with_good(Entry("x", png(9), prefix=long_name(8) + padded(b"../9.png"))),
    "long-name-empty": with_good(Entry("x", png(9), prefix=long_name(0))),
    "long-name-nul": with_good(Entry("x", png(9), prefix=long_name(9) + padded(b"a/9\0x.png"))),
    "long-name-of-64-kib": with_good(
        Entry("x", png(9), prefix=long_name(1 << 16) + b"x" * (1 << 16))
    ),
    "pax-parent": told(b"path=../9.png", name="x"),
    "pax-absolute": told(b"path=/tmp/tdmr-escaped"),
    "pax-empty": told(b"path="),
    "pax-nul": told(b"path=a/9.png\0.txt"),
    "pax-right-to-left": told("path=a/\u202egnp.9".encode()),
    "ustar-prefix-parent": header(prefix=b"../.."),
    "ustar-prefix-absolute": header(prefix=b"/etc"),
}

KINDS = {
    "symlink": (with_good(Entry("a/9.png", type=tarfile.SYMTYPE, link="/etc/passwd")), "link"),
    "symlink-then-through-it": (
        with_good(Entry("c", type=tarfile.SYMTYPE, link="/tmp"), Entry("c/tdmr-escaped", png(9))),
        "link",
    ),
    "symlink-inside": (with_good(Entry("a/9.png", type=tarfile.SYMTYPE, link="1.png")), "link"),
    "symlink-with-size": (
        with_good(Entry("a/9.png", png(9), type=tarfile.SYMTYPE, link="x")),
        "link",
    ),
    "hard-link": (with_good(Entry("a/9.png", type=tarfile.LNKTYPE, link="a/1.png")), "link"),
    "hard-link-outside": (
        with_good(Entry("a/9.png", type=tarfile.LNKTYPE, link="/etc/shadow")),
        "link",
    ),
    "pax-link": (
        with_good(Entry("a/9.png", type=tarfile.SYMTYPE, prefix=pax(_record(b"linkpath=/etc")))),
        "link",
    ),
    "device": (with_good(Entry("a/9.png", type=tarfile.CHRTYPE)), "special_file"),
    "block-device": (with_good(Entry("a/9.png", type=tarfile.BLKTYPE)), "special_file"),
    "pipe": (with_good(Entry("a/9.png", type=tarfile.FIFOTYPE)), "special_file"),
    "sparse": (with_good(Entry("a/9.png", png(9), tarfile.GNUTYPE_SPARSE)), "special_file"),
    "sparse-huge": (
        with_good(Entry("a/9.png", png(9), prefix=pax(_record(b"GNU.sparse.realsize=%d" % 2**60)))),
        "special_file",
    ),
    "sparse-pax": (told(b"GNU.sparse.major=1"), "special_file"),
    "sparse-pax-name": (told(b"GNU.sparse.name=../x", b"GNU.sparse.map=0,1"), "special_file"),
    "multi-volume": (with_good(Entry("a/9.png", png(9), b"M")), "special_file"),
    "volume-label": (with_good(Entry("a/9.png", b"", b"V")), "special_file"),
    "dump-folder": (with_good(Entry("a/9.png", png(9), b"D")), "special_file"),
    "unknown-type": (with_good(Entry("a/9.png", png(9), b"Z")), "special_file"),
    "type-of-255": (header(type=b"\xff"), "special_file"),
}

CUT = {
    "cut": PACKED[:1500],
    "cut-at-a-header": build(GOOD, b""),
    "cut-in-a-header": build(GOOD, b"")[:-300],
    "cut-in-an-image": build(GOOD, b"")[:-100],
    "cut-in-the-end": build(GOOD, bytes(100)),
    "cut-behind-a-pax-header": build(GOOD, pax(_record(b"path=a/9.png"))),
    "cut-in-a-pax-header": build(GOOD, block(Entry("p", type=b"x", size=600)) + bytes(512)),
    "size-beyond-the-end": build([*GOOD, Entry("a/9.png", size=1 << 40)]),
    "size-of-256-bits": header(size=b"\x80" + b"\x7f" * 11),
    "size-octal-huge": header(size=b"77777777777\0"),
    "pax-size-beyond-the-end": told(b"size=%d" % 10**17),
}

MALFORMED = {
    "long-name-bomb": build([Entry("x", png(9), prefix=long_name(1 << 30))]),
    "long-link-bomb": build(
        [Entry("x", png(9), prefix=block(Entry("l", type=b"K", size=1 << 33)))]
    ),
    "pax-bomb": build([Entry("x", png(9), prefix=block(Entry("p", type=b"x", size=1 << 30)))]),
    "pax-global-bomb": build([Entry("x", prefix=block(Entry("p", type=b"g", size=1 << 30)))]),
    "pax-broken": with_good(Entry("x", png(9), prefix=pax(b"99 path=x\n"))),
    "pax-no-length": with_good(Entry("x", png(9), prefix=pax(b"path=x\n"))),
    "pax-length-zero": with_good(Entry("x", png(9), prefix=pax(b"0 path=x\n"))),
    "pax-length-short": with_good(Entry("x", png(9), prefix=pax(b"5 path=x\n"))),
    "pax-length-negative": with_good(Entry("x", png(9), prefix=pax(b"-9 path=x\n"))),
    "pax-length-endless": with_good(Entry("x", png(9), prefix=pax(b"9" * 500 + b" path=x\n"))),
    "pax-no-newline": with_good(Entry("x", png(9), prefix=pax(b"9 path=xx"))),
    "pax-no-key": with_good(Entry("x", png(9), prefix=pax(b"6 abc\n"))),
    "pax-empty-key": with_good(Entry("x", png(9), prefix=pax(b"6 =x\n\n"))),
    "pax-nul-in-key": with_good(Entry("x", png(9), prefix=pax(b"10 pa\0h=x\n"))),
    "pax-size-negative": told(b"size=-1"),
    "pax-size-words": told(b"size=many"),
    "pax-size-hex": told(b"size=0x40"),
    "pax-size-fraction": told(b"size=70.5"),
    "pax-size-of-a-thousand-digits": told(b"size=" + b"9" * 1000),
    "pax-size-arabic": told("size=\u0667\u0660".encode()),
    "pax-size-empty": told(b"size="),
    "pax-size-none": with_good(
        Entry("a/8.png", png(8), prefix=pax(_record(b"size=0"))), Entry("a/9.png", png(9))
    ),
    "pax-global-path": pax(b"14 path=a.png\n", tarfile.XGLTYPE) + PACKED,
    "pax-global-size": pax(_record(b"size=5"), tarfile.XGLTYPE) + PACKED,
    "pax-global-link": pax(_record(b"linkpath=/etc"), tarfile.XGLTYPE) + PACKED,
    "size-negative": header(size=b"\xff" * 12),
    "size-words": header(size=b"tensixtyfour"),
    "checksum-wrong": header(checksum=b"0000000\0"),
    "checksum-words": header(checksum=b"checksum"),
    "name-of-nobody": build(GOOD, long_name(8) + padded(b"a/9.png\0") + bytes(1024)),
    "pax-of-nobody": build(GOOD, pax(_record(b"path=a/9.png")) + bytes(1024)),
    "behind-the-end": PACKED + PACKED,
    "behind-one-zero-block": build(GOOD, bytes(512)) + build([Entry("../9.png", png(9))]),
    "text-behind-the-end": PACKED + b"text",
    "broken-header": b"vstar".join(PACKED.rsplit(b"ustar", 1)),
    "zip-behind": PACKED + zips.pack(FILES),
    "shifted": PACKED[:512] + b"x" + PACKED[512:],
}

COLLIDING = {
    "twice": with_good(Entry("a/0.png", png(9))),
    "twice-through-pax": told(b"path=a/0.png"),
    "twice-dotted": with_good(Entry("./a/0.png", png(9))),
    "case": with_good(Entry("A/9.png", png(9))),
    "file-and-folder": with_good(Entry("a/0.png/9.png", png(9))),
}

GZIP = {
    "cut": (GZIPPED[:-200], "damaged_file"),
    "without-trailer": (GZIPPED[:-8], "damaged_file"),
    "half-a-trailer": (GZIPPED[:-4], "damaged_file"),
    "header-only": (GZIPPED[:10], "damaged_file"),
    "three-bytes": (GZIPPED[:3], "damaged_file"),
    "checksum-lies": (gzip_patched(-8, b"abcd"), "damaged_file"),
    "size-lies": (gzip_patched(-4, struct.pack("<L", 2**31)), "damaged_file"),
    "size-none": (gzip_patched(-4, bytes(4)), "damaged_file"),
    "reserved-flags": (gzip_patched(3, b"\xe0"), "damaged_file"),
    "header-checksum-lies": (
        GZIPPED[:3] + b"\2" + GZIPPED[4:10] + b"ab" + GZIPPED[10:],
        "damaged_file",
    ),
    "name-endless": (GZIPPED[:3] + b"\x08" + GZIPPED[4:10] + b"x" * 5000, "damaged_file"),
    "damaged": (gzip_patched(200, bytes(40)), "damaged_file"),
    "then-garbage": (GZIPPED + b"garbage", "damaged_file"),
    "then-zip": (GZIPPED + zips.pack(FILES), "damaged_file"),
    "then-zeros-and-garbage": (GZIPPED + bytes(600) + b"x", "damaged_file"),
    "method-unknown": (gzip_patched(2, b"\7"), "not_an_archive"),
    "of-nothing": (zipped(b""), "not_an_archive"),
    "of-text": (zipped(b"hello" * 1000), "not_an_archive"),
    "of-gzip": (zipped(GZIPPED), "not_an_archive"),
    "of-gzip-of-gzip": (zipped(zipped(GZIPPED)), "not_an_archive"),
    "of-zip": (zipped(zips.pack(FILES)), "not_an_archive"),
    "of-zeros": (zipped(bytes(10_240)), "not_an_archive"),
    "of-an-image": (zipped(png()), "not_an_archive"),
    "of-a-cut-tar": (zipped(PACKED[:1500]), "not_an_archive"),
    "of-two-tars": (GZIPPED + GZIPPED, "malformed_archive"),
    "of-a-climbing-tar": (zipped(NAMES["parent"]), "unsafe_name"),
    "of-a-link": (zipped(KINDS["symlink"][0]), "link"),
}

DOOR = {
    "first-checksum-wrong": PACKED[:148] + b"0000000\0" + PACKED[156:],
    "zeros": bytes(10_240),
    "short": PACKED[:400],
    "name-only": b"a/1.png" + bytes(250) + b"ustar" + bytes(700),
}


def cases() -> dict[str, tuple[bytes, str]]:
    """Each archive, and its code."""
    groups = (
        (NAMES, "unsafe_name"),
        (CUT, "not_an_archive"),
        (MALFORMED, "malformed_archive"),
        (COLLIDING, "name_collision"),
        (DOOR, "not_an_archive"),
    )
    return {
        **{f"tar-{name}": (each, code) for group, code in groups for name, each in group.items()},
        **{f"tar-{name}": case for name, case in KINDS.items()},
        **{f"gzip-{name}": case for name, case in GZIP.items()},
    }
