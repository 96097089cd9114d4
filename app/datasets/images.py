"""Images: known by their content, measured before they are decoded, then decoded in full."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP")
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


class ImageError(Exception):
    """A file that can't be taken as an image: a finding's code, and what is wrong."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image turned out to be."""

    suffix: str
    width: int
    height: int
    animated: bool


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


def examine(data: bytes, max_pixels: int) -> ImageInfo:
    """Decode an image in full and say what it is. Raises ImageError when that isn't possible."""
    format_ = sniff(data)
    if format_ is None:
        raise ImageError("unsupported_image", _what_else(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is measured here anyway
            return _decode(data, format_, max_pixels)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("image_too_large", "needs more memory than there is to decode") from None
    except Exception as error:  # decoders raise whatever they stumble over in hostile bytes
        raise ImageError("unreadable_image", f"can't be decoded ({_reason(error)})") from error


def _decode(data: bytes, format_: str, max_pixels: int) -> ImageInfo:
    Image.MAX_IMAGE_PIXELS = None  # the cap below is an error, Pillow's own is partly a warning
    with Image.open(io.BytesIO(data), formats=[format_]) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(
                "image_too_large",
                f"has {width} x {height} pixels; {max_pixels} in all are allowed",
            )
        animated = format_ != "JPEG" and bool(getattr(image, "is_animated", False))
        image.load()
    return ImageInfo(_SUFFIXES[format_], width, height, animated)


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
