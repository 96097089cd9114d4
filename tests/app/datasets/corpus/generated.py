"""Hostile uploads by Hypothesis: good parts and one ingredient that has to be refused.

`hostile()` draws an upload and the code that it must be refused with. `damaged()` draws a good one
with a few bytes changed: it's refused, or else holds what it held before.
"""

from __future__ import annotations

import functools
import random
import struct
import tarfile
import zlib

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.app.datasets import tarballs
from tests.app.datasets.corpus import hand
from tests.app.datasets.corpus.hand import Case
from tests.app.datasets.corpus.pictures import noise
from tests.app.datasets.corpus.table_cases import ROWS, TEXT, parquet, replaced
from tests.app.datasets.tarballs import Entry, pax, zipped
from tests.app.datasets.zips import Raw, build, forced_zip64, good_files, pack, png, streamed

PLAIN = st.text("abcdexyz0189_-é猫 ", min_size=1, max_size=12).map(lambda s: f"n{s}n")
PATHS = st.lists(PLAIN, min_size=1, max_size=4)
CONTROLS = [*map(chr, range(32)), "\x7f", "\x85", "\x9f"]
TURNS = list("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
TYPES = [bytes([n]) for n in range(65, 91) if n not in b"KLXSDMV"] + [b"3", b"4", b"6", b"S", b"M"]
METHODS = st.integers(1, 0xFFFF).filter(lambda method: method != 8)


@functools.cache
def base(per_class: int, classes: str) -> list[tuple[str, bytes]]:
    """Good files."""
    return list(good_files(per_class, classes).items())


@st.composite
def good(draw: DrawFn) -> list[tuple[str, bytes]]:
    """The good part."""
    return base(draw(st.integers(2, 4)), draw(st.sampled_from(["ab", "abc"])))


@st.composite
def unsafe_names(draw: DrawFn) -> str:
    """A name that has to be refused."""
    parts = draw(PATHS)
    place = draw(st.integers(0, len(parts)))
    kind = draw(st.integers(0, 6))
    if kind == 0:
        return "/".join([*parts[:place], *[".."] * draw(st.integers(1, 5)), *parts[place:]])
    if kind == 1:
        return "/" * draw(st.integers(1, 3)) + "tdmr-escaped"
    if kind == 2:
        return draw(st.sampled_from("abcXYZ")) + ":" + "/".join(parts)
    if kind == 3:
        return "/".join([*parts, "x" * draw(st.integers(256, 900))])
    odd = draw(st.sampled_from({4: ["\\"], 5: CONTROLS, 6: TURNS}[kind]))
    name = "/".join(parts)
    place = draw(st.integers(0, len(name)))
    return name[:place] + odd + name[place:]


@st.composite
def twins(draw: DrawFn) -> tuple[str, str]:
    """Two names that are one on some computer, or to the eye."""
    stem = "/".join(draw(PATHS))
    left, right = draw(
        st.sampled_from(
            [("", ""), ("é", "e\u0301"), ("k", "K"), ("k", "\u212a"), ("ß", "SS"), ("ö", "O\u0308"),
             ("x", "x."), ("x", "x "), ("x", "x\u200b"), ("x", "\ufeffx"), ("x", "x/y")]
        )
    )  # fmt: skip
    return (stem + left, stem + right) if draw(st.booleans()) else (stem + right, stem + left)


@st.composite
def containers(draw: DrawFn, files: list[tuple[str, bytes]]) -> bytes:
    """These files as a zip, a tar or a tar.gz: names needn't be good, nor different."""
    style = draw(st.integers(0, 2))
    if style == 0:
        method = draw(st.sampled_from([0, 8]))
        return build([Raw(name.encode(), data, method=method) for name, data in files])
    entries = [_tar_entry(name, data) for name, data in files]
    content = tarballs.build(entries)
    return zipped(content) if style == 2 else content


def _tar_entry(name: str, data: bytes) -> Entry:
    """An entry whose name is in a pax header, so that it can be anything."""
    text = b"path=" + name.encode()
    length = len(text) + 2
    while length != len(b"%d %s\n" % (length, text)):
        length += 1
    return Entry("n", data, prefix=pax(b"%d %s\n" % (length, text)))


@st.composite
def by_name(draw: DrawFn) -> Case:
    """Something has a name that climbs, hides or collides."""
    files = list(draw(good()))
    place = draw(st.integers(0, len(files)))
    if draw(st.booleans()):
        files.insert(place, (draw(unsafe_names()), png(9)))
        return Case(draw(containers(files)), "unsafe_name")
    files[place:place] = [(name, png(900 + n)) for n, name in enumerate(draw(twins()))]
    return Case(draw(containers(files)), "name_collision")


@st.composite
def broken_images(draw: DrawFn) -> tuple[bytes, str]:
    """An image that has to be refused, and its code."""
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return draw(st.sampled_from(sorted(hand.images().values())))
    if kind == 1:
        return draw(st.binary(min_size=1, max_size=400)).join((b"?", b"")), "unsupported_image"
    size = draw(st.integers(16, 48))
    if kind == 2:
        signature = draw(
            st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"])
        )
        return signature + draw(st.binary(max_size=400)), "unreadable_image"
    if kind == 3:
        data = noise("PNG", size)
        start = data.index(b"IDAT") + 4
        return _flipped(data, draw(st.integers(start, len(data) - 17)), draw), "unreadable_image"
    data = noise(("PNG", "WEBP")[kind - 4], size)
    return data[: draw(st.integers(12, len(data) - 13))], "unreadable_image"


def _flipped(data: bytes, place: int, draw: DrawFn) -> bytes:
    changed = data[place] ^ draw(st.integers(1, 255))
    return data[:place] + bytes([changed]) + data[place + 1 :]


@st.composite
def by_image(draw: DrawFn) -> Case:
    """One of the images is broken, or something else."""
    image, code = draw(broken_images())
    if draw(st.integers(0, 4)) == 0:
        return Case(parquet({"image": replaced(ROWS, image), "label": TEXT}), code)
    files = list(draw(good()))
    files.insert(draw(st.integers(0, len(files))), (f"a/{draw(PLAIN)}.png", image))
    return Case(draw(containers(files)), code)


@st.composite
def by_zip_entry(draw: DrawFn) -> Case:
    """An entry of a zip is of another kind, locked, or contradicts itself."""
    entries = [Raw(name.encode(), data) for name, data in draw(good())]
    place = draw(st.integers(0, len(entries) - 1))
    entry, image = entries[place], entries[place].data
    kind = draw(st.integers(0, 8))
    code = "malformed_archive"
    if kind == 0:
        entry.mode, code = 0o120777, "link"
    elif kind == 1:
        entry.mode, code = (
            draw(st.sampled_from([0o020644, 0o060644, 0o010644, 0o140644])),
            "special_file",
        )
    elif kind == 2:
        entry.flags |= draw(st.sampled_from([1, 1 << 6, 1 << 13]))
        code = "encrypted"
    elif kind == 3:
        entry.method, code = draw(METHODS), "unsupported_compression"
    elif kind == 4:
        name = draw(st.sampled_from(["size", "packed", "crc"]))
        entry.local = {name: draw(st.integers(0, 2**32 - 2).filter(lambda n: n > 10_000))}
    elif kind == 5:
        entry.local = {"name": draw(PLAIN).encode()}
    elif kind == 6:
        entry.crc, code = draw(st.integers(0, 2**31).filter(lambda n: n != 5)), "damaged_file"
    elif kind == 7:
        entry.method, code = 0, "damaged_file"
        entry.crc = zlib.crc32(image)
        entry.data = _flipped(image, draw(st.integers(0, len(image) - 1)), draw)
    else:
        other = draw(st.integers(0, len(entries) - 1).filter(lambda n: n != place))
        sizes = [30 + len(e.name) + len(e.bytes_packed()) for e in entries]
        entry.offset = sum(size for n, size in enumerate(sizes[:other]) if n != place)
        entry.name, entry.data = entries[other].name, entries[other].data
        code = "overlapping_files"
    return Case(build(entries), code)


@st.composite
def by_end(draw: DrawFn) -> Case:
    """A zip's end lies, or is missing; so does a gzip's, or a Parquet file's."""
    files = dict(draw(good()))
    content = draw(st.sampled_from([pack, streamed, forced_zip64]))(files)
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return Case(content[: draw(st.integers(1, len(content) - 1))], "not_an_archive")
    if kind == 1:
        count, other = len(files), draw(st.integers(0, 0xFFFF))
        other += other == count
        return Case(
            content[:-14] + struct.pack("<2H", other, other) + content[-10:], "malformed_archive"
        )
    if kind == 2:
        start = struct.unpack("<L", content[-6:-2])[0] ^ draw(st.integers(1, 2**31))
        return Case(content[:-6] + struct.pack("<L", start) + content[-2:], "malformed_archive")
    packed = zipped(tarballs.pack(files))
    if kind == 3:
        return Case(packed[: draw(st.integers(10, len(packed) - 1))], "damaged_file")
    return Case(_flipped(packed, draw(st.integers(-8, -1)) + len(packed), draw), "damaged_file")


@st.composite
def by_tar_entry(draw: DrawFn) -> Case:
    """An entry of a tar is of another kind, lies about its size, or is cut."""
    entries = [Entry(name, data) for name, data in draw(good())]
    place, kind = draw(st.integers(0, len(entries) - 1)), draw(st.integers(0, 5))
    code = "malformed_archive"
    if kind == 0:
        entries[place] = Entry(entries[place].name, link=draw(PLAIN), type=draw(
            st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE])))  # fmt: skip
        code = "link"
    elif kind == 1:
        entries[place] = Entry(entries[place].name, type=draw(st.sampled_from(TYPES)))
        code = "special_file"
    elif kind == 2:
        entries[place].prefix = pax(draw(st.binary(min_size=1, max_size=40)).join((b"x", b"\n")))
    elif kind == 3:
        entries[place].size, code = draw(st.integers(10**6, 10**17)), "not_an_archive"
    content = tarballs.build(entries)
    if kind == 4:
        content, code = content[: draw(st.integers(513, len(content) - 1025))], "not_an_archive"
    elif kind == 5:
        header = sum(512 + len(tarballs.padded(entry.data)) for entry in entries[:place])
        code = "malformed_archive" if place else "not_an_archive"
        digit = header + draw(st.integers(0, 30))
        content = _flipped(content, digit, draw)
    wrapped = draw(st.booleans())
    return Case(zipped(content) if wrapped else content, code)


@st.composite
def bombs(draw: DrawFn) -> Case:
    """Something unpacks to far more than it is."""
    size = draw(st.integers(2 << 20, 6 << 20))
    files = [*draw(good()), (f"a/{draw(PLAIN)}.png", bytes(size))]
    content = build([Raw(name.encode(), data) for name, data in files])
    if draw(st.booleans()):
        content = zipped(
            tarballs.build([Entry(n, d) for n, d in files] + [Entry("b/z.png", bytes(6 << 20))])
        )
    return Case(content, "compression_ratio")


@st.composite
def by_row(draw: DrawFn) -> Case:
    """A Parquet file is cut, or has a label that can't be."""
    kind = draw(st.integers(0, 2))
    if kind == 0:
        label = draw(st.sampled_from([*CONTROLS, *TURNS, "x" * 201])).join((draw(PLAIN), "n"))
        return Case(parquet({"image": ROWS, "label": replaced(TEXT, label)}), "bad_label")
    content = parquet({"image": ROWS, "label": TEXT}, compression="gzip")
    if kind == 1:
        return Case(content[: draw(st.integers(1, len(content) - 1))], "not_an_archive")
    footer = struct.unpack("<L", content[-8:-4])[0]
    other = draw(st.integers(0, 2**32 - 1).filter(lambda n: n < footer - 8 or n > len(content)))
    return Case(content[:-8] + struct.pack("<L", other) + content[-4:], "damaged_file")


def hostile() -> SearchStrategy[Case]:
    """Any of them."""
    return st.one_of(
        by_name(), by_name(), by_image(), by_image(), by_zip_entry(), by_zip_entry(), by_end(),
        by_tar_entry(), by_row(), bombs(),
    )  # fmt: skip


@functools.cache
def whole() -> tuple[bytes, ...]:
    """Good uploads with a checksum over every file."""
    files = good_files(4, "abc")
    return pack(files), streamed(files), forced_zip64(files), zipped(tarballs.pack(files))


def damaged() -> SearchStrategy[bytes]:
    """One of `whole()` with a few bytes changed, put in or taken out."""
    return st.builds(
        lambda content, dice: damage(random.Random(dice), content),
        st.sampled_from(whole()),
        st.integers(0, 2**64),
    )


def damage(dice: random.Random, content: bytes) -> bytes:
    """The upload with a few bytes changed, removed or put in."""
    body = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        place = dice.randrange(len(body))
        what = dice.random()
        if what < 0.7:
            body[place] = dice.choice((0, 1, 128, 255, dice.randrange(256)))
        elif what < 0.85:
            body[place:place] = dice.randbytes(dice.randrange(1, 9))
        else:
            del body[place : place + dice.randrange(1, 20)]
    return bytes(body)
