"""Images: what is known by content, and every way in which one can be broken."""

from __future__ import annotations

import io
import zlib

import pytest
from PIL import Image

from app.datasets.images import ImageError, examine, sniff
from tests.app.datasets.zips import picture, png

MODES = [("PNG", m) for m in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
MODES += [("JPEG", m) for m in ("L", "RGB", "CMYK")]
MODES += [("WEBP", m) for m in ("RGB", "RGBA")]


def noise(kind: str, size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((size, size), 80).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (n * 80, 0, 0)) for n in range(3)]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return len(data).to_bytes(4, "big") + kind + data + crc.to_bytes(4, "big")


def header_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds next to nothing."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    header = chunk(b"IHDR", size + b"\x08\x02\0\0\0")
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_every_mode_is_taken(kind: str, mode: str) -> None:
    info = examine(picture(kind, 7, (12, 9), mode=mode), 1000)
    assert (info.width, info.height, info.animated) == (12, 9, False)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_taken_and_said(kind: str) -> None:
    assert examine(animated(kind), 1000).animated


BROKEN = {
    "text": (b"hello", "unsupported_image"),
    "gif": (picture("GIF", mode="L"), "unsupported_image"),
    "bmp": (picture("BMP"), "unsupported_image"),
    "tiff": (picture("TIFF"), "unsupported_image"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_image"),
    "wave-in-riff": (b"RIFF\0\0\0\0WAVEfmt ", "unsupported_image"),
    "jpeg-start": (b"\xff\xd8\xff", "unreadable_image"),
    "jpeg-cut": (noise("JPEG")[:-200], "unreadable_image"),
    "jpeg-header-only": (noise("JPEG")[:300], "unreadable_image"),
    "png-signature": (png()[:8], "unreadable_image"),
    "png-cut": (noise("PNG")[:-2000], "unreadable_image"),
    "png-damaged": (noise("PNG").replace(b"IDAT", b"IDAX"), "unreadable_image"),
    "png-too-little-data": (header_of(50, 50), "unreadable_image"),
    "webp-cut": (noise("WEBP")[:-200], "unreadable_image"),
    "webp-header": (noise("WEBP")[:16], "unreadable_image"),
    "huge": (header_of(100_000, 100_000), "image_too_large"),
    "wide": (header_of(10_001, 1), "image_too_large"),
    "no-width": (header_of(0, 5), "unreadable_image"),
}


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_images_are_refused_for_their_reason(data: bytes, code: str) -> None:
    with pytest.raises(ImageError) as caught:
        examine(data, 10_000)
    assert caught.value.code == code


def test_the_size_is_known_before_anything_is_decoded() -> None:
    """A hundred gigapixels in a hundred bytes are refused without the memory for them."""
    with pytest.raises(ImageError, match="100000 x 100000"):
        examine(header_of(100_000, 100_000), 100_000_000)


def test_content_decides_not_the_name() -> None:
    assert sniff(picture("JPEG")) == "JPEG"
    assert sniff(b"RIFF....WEBP") == "WEBP"
    assert sniff(b"") is None
