"""Small archives that hold a lot, say that they do, or cost a lot to look into."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib

import pyarrow as pa
import pyarrow.parquet as pq

from tests.app.datasets import tarballs
from tests.app.datasets.corpus.zip_cases import lying, zip64
from tests.app.datasets.tarballs import zipped
from tests.app.datasets.zips import Raw, build, good_files, pack, png, with_good

MIB = 1 << 20
ZEROS = bytes(3 * MIB)
TEXT = ["ab"[n % 2] for n in range(8)]


def quoting(files: int = 8, size: int = 100_000) -> bytes:
    """Files over one kernel, each quoting the header of the next (Fifield, WOOT 2019).

    Each stream is a stored block that holds the next file's header, then that file's stream.
    """
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed, data = deflate.compress(bytes(size)) + deflate.flush(), bytes(size)
    body, said = b"", []
    for number in reversed(range(files)):
        name = b"a/%02d.png" % number
        header = struct.pack(
            *("<4s5H3L2H", b"PK\x03\x04", 20, 1 << 11, 8, 0, 33, zlib.crc32(data)),
            *(len(packed), len(data), len(name), 0),
        )
        said.append((len(packed), zlib.crc32(data), len(data), name))
        body = header + name + packed
        data = header + name + data
        quote = struct.pack("<B2H", 0, len(header + name), ~len(header + name) & 0xFFFF)
        packed = quote + body
    entries, place = [], 0
    for length, crc, unpacked, name in reversed(said):
        entries.append(
            Raw(name, crc=crc, size=unpacked, packed_size=length, packed=b"", offset=place)
        )
        place += 30 + len(name) + 5
    return build(entries, prefix=body)


def crowd(count: int) -> bytes:
    """A directory of many lines, all of one file."""
    one = build([Raw(b"a/1.png", png(1))])
    start = struct.unpack("<L", one[-6:-2])[0]
    line = one[start:-22]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    size = len(line) * count
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + size, 1)
    return one[:start] + line * count + record + locator + end


def gzip_zeros(size: int) -> bytes:
    """Many zeros as gzip, without ever having them all in memory."""
    deflate = zlib.compressobj(9, wbits=31)
    return b"".join(deflate.compress(bytes(MIB)) for _ in range(size // MIB)) + deflate.flush()


def parquet(images: list[bytes], labels: list[str], **options: object) -> bytes:
    """Rows of images and labels."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": images, "label": labels}), buffer, **options)
    return buffer.getvalue()


def lying_footer(size: int = 48 * MIB) -> bytes:
    """A Parquet file with an image of so many zeros, whose footer says that it's a thousand."""
    content = parquet([bytes(size)], TEXT[:1], compression="zstd", use_dictionary=False)
    group = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    for said in (group.column(0).total_uncompressed_size, group.total_byte_size):
        true = _varint(2 * said)
        first, *middle, last = _varint(2 * 1000)
        more = [128] * (len(true) - len(middle) - 3)
        lie = bytes([first, *middle, last | 128, *more, 0])
        assert len(lie) == len(true)
        content = content.replace(true, lie)
    return content


def _varint(number: int) -> bytes:
    """A number as Thrift's compact protocol has it."""
    found = []
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def tar_bomb(files: int = 12) -> bytes:
    """A tar of empty megabytes, which only the gzip around it makes small."""
    entries = [tarballs.Entry(f"a/{n}.png", bytes(MIB)) for n in range(files)]
    return zipped(tarballs.build(entries))


def cases() -> dict[str, tuple[bytes, str]]:
    """Each upload, and its code."""
    ratio = {
        "one-file": with_good(Raw(b"a/9.png", ZEROS)),
        "in-parts": build([Raw(b"a/%d.png" % n, ZEROS[:MIB]) for n in range(5)]),
        "text-beside": with_good(Raw(b"readme.txt", ZEROS)),
        "claims-gigabytes": lying(size=0xFFFFFFFE),
        "claims-terabytes": lying(size=0xFFFFFFFF, central_extra=zip64(2**40)),
        "claims-all": lying(size=0xFFFFFFFF, central_extra=zip64(2**64 - 1)),
        "gzip": gzip_zeros(16 * MIB),
        "gzip-large": gzip_zeros(128 * MIB),
        "gzip-members": zipped(bytes(8 * MIB)) * 8,
        "gzip-behind-a-good-tar": zipped(tarballs.pack(good_files())) + gzip_zeros(16 * MIB),
        "tar": tar_bomb(),
        "parquet": parquet([bytes(4 * MIB)] * 8, TEXT, compression="zstd", use_dictionary=False),
        "parquet-lying-footer": lying_footer(),
        "parquet-gzip": parquet([ZEROS] * 8, TEXT, compression="gzip", use_dictionary=False),
        "parquet-one-image-in-all-rows": parquet([png(1) + bytes(MIB)] * 64, TEXT * 8),
    }
    return {
        **{f"bomb-{name}": (content, "compression_ratio") for name, content in ratio.items()},
        "bomb-quoting": (quoting(), "overlapping_files"),
        "bomb-crowd": (crowd(30_000), "overlapping_files"),
        "bomb-empty-members": (gzip.compress(b"", mtime=0) * 200_000, "damaged_file"),
        "bomb-nested": (
            with_good(Raw(b"a/9.zip", build([Raw(b"%d.zip" % n, ZEROS) for n in range(16)]))),
            "nested_archive",
        ),
        "bomb-json": (
            pack({**good_files(), "labels.jsonl": _row() + b'{"a":' * 200_000}),
            "unreadable_manifest",
        ),
        "bomb-columns": (
            pack({**good_files(), "labels.csv": b"file,label\na/1.png,x\n" + b"," * 200_000}),
            "unreadable_manifest",
        ),
        "bomb-field": (
            pack({**good_files(), "labels.csv": b"file,label\na/1.png,x\n" + b"x" * 200_000}),
            "unreadable_manifest",
        ),
        "bomb-number": (
            pack({**good_files(), "labels.jsonl": _row() + b'{"label": ' + b"9" * 100_000 + b"}"}),
            "unreadable_manifest",
        ),
    }


def _row() -> bytes:
    return json.dumps({"file": "a/1.png", "label": "x"}).encode() + b"\n"
