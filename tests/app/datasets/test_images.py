"""Images: what is known by content, and what is made of them; broken ones: test_corpus.py."""

from __future__ import annotations

import io
import zlib

import pytest
from PIL import Image

from app.datasets.images import Canonical, ImageError, canonical, sniff
from tests.app.datasets.corpus.pictures import chunk, header, png_of
from tests.app.datasets.zips import picture, png

MODES = [("PNG", m) for m in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
MODES += [("JPEG", m) for m in ("L", "RGB", "CMYK")]
MODES += [("WEBP", m) for m in ("RGB", "RGBA")]


def animated(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (n * 80, 0, 0)) for n in range(3)]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def mode_of(image: Canonical) -> str:
    with Image.open(io.BytesIO(image.data)) as opened:
        return opened.mode


def header_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds next to nothing."""
    return png_of(header(width, height), chunk(b"IDAT", zlib.compress(bytes(100))), chunk(b"IEND"))


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_every_mode_is_taken(kind: str, mode: str) -> None:
    data = picture(kind, 7, (12, 9), mode=mode)
    image = canonical(data, 1000)
    assert (image.width, image.height) == (12, 9)
    assert mode_of(image) in ("RGB", "L")
    with Image.open(io.BytesIO(data)) as opened:  # WebP has no alpha that is full everywhere
        kept = opened.mode in ("RGB", "L")
    assert (image.data == data) == kept
    assert image.changes == (set() if kept else {"converted"})


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_taken_and_said(kind: str) -> None:
    image = canonical(animated(kind), 1000)
    assert "animated" in image.changes
    with Image.open(io.BytesIO(image.data)) as still:
        assert not getattr(still, "is_animated", False)
        assert still.getpixel((3, 3)) == (0, 0, 0)  # the first frame's colour


def test_no_image_has_more_pixels_than_are_allowed() -> None:
    assert canonical(png(size=(100, 100)), 10_000).width == 100
    for size in ((10_001, 1), (101, 100)):
        with pytest.raises(ImageError) as caught:
            canonical(header_of(*size), 10_000)
        assert caught.value.code == "image_too_large"


def test_the_size_is_known_before_anything_is_decoded() -> None:
    """A hundred gigapixels in a hundred bytes are refused without the memory for them."""
    with pytest.raises(ImageError, match="100000 x 100000"):
        canonical(header_of(100_000, 100_000), 100_000_000)


def test_content_decides_not_the_name() -> None:
    assert sniff(picture("JPEG")) == "JPEG"
    assert sniff(b"RIFF....WEBP") == "WEBP"
    assert sniff(b"") is None


def turned(kind: str, orientation: int) -> bytes:
    """Red on the left and blue on the right as stored, to be shown turned."""
    image = Image.new("RGB", (64, 32), (250, 0, 0))
    image.paste((0, 0, 250), (32, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_stored_upright_and_says_nothing_of_it_any_more(kind: str) -> None:
    image = canonical(turned(kind, 6), 10_000)  # to be turned a quarter to the right
    assert image.changes == {"turned"}
    assert (image.width, image.height) == (32, 64)
    with Image.open(io.BytesIO(image.data)) as upright:
        assert dict(upright.getexif()) == {}
        top, bottom = (upright.convert("RGB").getpixel((16, y)) for y in (8, 56))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 200 > 50 > top[2]
    assert bottom[2] > 200 > 50 > bottom[0]


def test_an_upright_image_keeps_its_bytes() -> None:
    data = turned("JPEG", 1)
    assert canonical(data, 10_000).data == data


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = Image.new("I;16", (4, 4), 32768)
    buffer = io.BytesIO()
    grey.save(buffer, "PNG")
    with Image.open(io.BytesIO(canonical(buffer.getvalue(), 100).data)) as image:
        assert image.getpixel((1, 1)) == (127, 127, 127)


def test_broken_exif_is_dropped_rather_than_the_image() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    image = canonical(buffer.getvalue(), 100)
    with Image.open(io.BytesIO(image.data)) as opened:
        assert dict(opened.getexif()) == {}


@pytest.mark.parametrize(("size", "shown"), [((640, 320), (128, 64)), ((9000, 3), (128, 1)),
                                             ((20, 10), (20, 10))])  # fmt: skip
def test_a_thumbnail_fits_into_its_square_and_is_never_larger_than_the_image(
    size: tuple[int, int], shown: tuple[int, int]
) -> None:
    image = canonical(picture("PNG", 9, size), 1_000_000)
    with Image.open(io.BytesIO(image.thumbnail)) as small:
        assert (small.format, small.size) == ("JPEG", shown)
