"""Images: known by their content, measured before they are decoded, then decoded in full."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from app.datasets import structure
from tdmr.data.colours import to_rgb

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_TEXT = 16 << 20  # bytes of all the text in one PNG, unpacked
THUMBNAIL_SIDE = 128  # pixels of the longer side
ADVICE = "Save it again as JPEG, PNG or WebP, or leave it out."

_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_OTHERS = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\x01\0", "ICO"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
)
_ARCHIVES = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"7z\xbc\xaf",
    b"Rar!",
)


# What had to be done to an image: only the first of its frames taken, turned, recoded.
Change = Literal["animated", "turned", "converted"]


class ImageError(Exception):
    """A file that can't be taken as an image: a finding's code, and what is wrong."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Canonical:
    """An image as a dataset holds it, upright and in RGB or grey, and a thumbnail of it (JPEG).

    The bytes are the upload's own wherever these are so already.
    """

    data: bytes
    suffix: str
    width: int
    height: int
    thumbnail: bytes
    changes: frozenset[Change]


def sniff(data: bytes) -> str | None:
    """The format by the first bytes: one of `FORMATS`, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def is_archive(data: bytes) -> bool:
    """Whether these bytes begin an archive; it is never opened."""
    return data.startswith(_ARCHIVES) or data[257:262] == b"ustar"


def canonical(data: bytes, max_pixels: int) -> Canonical:
    """Decode an image in full and make it canonical. Raises ImageError where that's impossible."""
    with _explained(), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        return _decode(data, _format(data), max_pixels, warned)


def picture(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an image in full: upright, in RGB. Raises ImageError where that's impossible.

    Threads may call this at the same time; `canonical` catches warnings, which is their process's.
    """
    with _explained():
        return to_rgb(_load(data, _format(data), max_pixels, set()))


def _format(data: bytes) -> str:
    format_ = sniff(data)
    if format_ is None:
        raise ImageError("unsupported_image", _what_else(data))
    return format_


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever an image makes the block raise is an ImageError."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("image_too_large", "needs more memory than there is to decode") from None
    except Exception as error:  # decoders raise whatever they stumble over in hostile bytes
        raise ImageError("unreadable_image", f"can't be decoded ({_reason(error)})") from error


def _decode(
    data: bytes, format_: str, max_pixels: int, warned: list[warnings.WarningMessage]
) -> Canonical:
    changes: set[Change] = set()
    plain = _load(data, format_, max_pixels, changes)
    if warned:  # of metadata that can't be read: whoever reads the image next shan't be
        changes.add("converted")
    if plain.mode not in ("RGB", "L"):
        plain = to_rgb(plain)
        changes.add("converted")
    suffix = _SUFFIXES[format_]
    if changes:
        data, suffix = _encode(plain, format_)
    return Canonical(data, suffix, *plain.size, _thumbnail(plain), frozenset(changes))


def _load(data: bytes, format_: str, max_pixels: int, changes: set[Change]) -> Image.Image:
    """The image, decoded and upright, measured before it's decoded."""
    Image.MAX_IMAGE_PIXELS = None  # the cap below is an error, Pillow's own is partly a warning
    PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT
    with Image.open(io.BytesIO(data), formats=[format_]) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(
                "image_too_large",
                f"has {width} x {height} pixels; {max_pixels} in all are allowed",
            )
        _check_structure(image, data, format_, max_pixels)
        if format_ != "JPEG" and getattr(image, "is_animated", False):
            changes.add("animated")
        image.load()
        return _upright(image, changes)


def _check_structure(image: Image.Image, data: bytes, format_: str, max_pixels: int) -> None:
    """What is looked at before anything is decoded. Raises ImageError and StructureError."""
    width, height = image.size
    if format_ == "JPEG" and structure.too_many_scans(width, height, data, max_pixels):
        raise ImageError("image_too_large", "goes over its pixels too often to be decoded")
    if structure.packs_too_well(width * height * len(image.getbands()), data):
        raise ImageError(
            "compression_ratio",
            f"has {width} x {height} pixels in {len(data)} bytes, which no photograph has",
        )
    if format_ == "PNG":
        structure.check_png(data)


def _upright(image: Image.Image, changes: set[Change]) -> Image.Image:
    """The image turned as its EXIF says. EXIF that can't be read is dropped, or others fail at it.

    Raises MemoryError.
    """
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) in (0, 1):
            return image
        upright = ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # as with pixels: whatever a parser stumbles over in hostile bytes
        changes.add("converted")
        return image.copy()
    changes.add("turned")
    return upright


def _encode(image: Image.Image, format_: str) -> tuple[bytes, str]:
    """The image's bytes without metadata, and their suffix: JPEG stays JPEG, the rest is PNG."""
    buffer = io.BytesIO()
    if format_ == "JPEG":
        image.save(buffer, "JPEG", quality=95, subsampling=0, exif=b"")
        return buffer.getvalue(), "jpg"
    image.save(buffer, "PNG", compress_level=3, exif=None)
    return buffer.getvalue(), "png"


def _thumbnail(image: Image.Image) -> bytes:
    scale = min(1.0, THUMBNAIL_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80, exif=b"")
    return buffer.getvalue()


def _what_else(data: bytes) -> str:
    for start, name in _OTHERS:
        if data.startswith(start):
            return f"is {name}, not JPEG, PNG or WebP"
    return "isn't JPEG, PNG or WebP"


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its header is broken"
    text = str(error).splitlines()
    return text[0][:100] if text else type(error).__name__
