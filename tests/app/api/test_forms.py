"""Forms: what well-known clients send is taken apart, and nothing else is."""

from __future__ import annotations

import random

import httpx
import pytest

from app.api.forms import parts
from app.errors import BadRequestError

TYPE = "multipart/form-data; boundary=cut"
HEAD = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


def sent(*contents: bytes) -> tuple[str, bytes]:
    """What httpx sends."""
    files = [("image", (f"Bild {place} ä.png", each)) for place, each in enumerate(contents)]
    request = httpx.Request("POST", "http://x", files=files)
    return request.headers["content-type"], request.read()


def test_what_a_client_sends_comes_out_as_it_went_in() -> None:
    dice = random.Random(0)
    contents = [
        b"",
        b"\r\n",
        b"--",
        b"\r\n--",
        b"\r\n\r\n",
        *(dice.randbytes(n) for n in range(99)),
    ]
    kind, body = sent(*contents)
    assert parts(kind, body, 200) == [("image", each) for each in contents]
    assert parts(kind, body, len(contents)) is not None
    assert parts(kind, body, len(contents) - 1) is None


@pytest.mark.parametrize(
    "kind",
    [
        'multipart/form-data; boundary="cut"',
        "multipart/form-data; charset=utf-8; boundary=cut",
        "Multipart/Form-Data; Boundary=cut",
    ],
)
def test_the_boundary_is_read_as_headers_are(kind: str) -> None:
    body = b"--cut \t\r\n" + HEAD + b"abc\r\n--cut--\r\nan epilogue"
    assert parts(kind, body, 1) == [("image", b"abc")]


def test_a_form_without_fields() -> None:
    assert parts(TYPE, b"--cut--\r\n", 1) == []


BROKEN = {
    "nothing": b"",
    "no boundary": b"abc",
    "other boundary": b"--cat\r\n" + HEAD + b"abc\r\n--cat--\r\n",
    "preamble": b"hello\r\n--cut\r\n" + HEAD + b"abc\r\n--cut--\r\n",
    "no end": b"--cut\r\n" + HEAD + b"abc",
    "no closing boundary": b"--cut\r\n" + HEAD + b"abc\r\n--cut\r\n",
    "no headers": b"--cut\r\nabc\r\n--cut--\r\n",
    "no name": b"--cut\r\nContent-Type: image/png\r\n\r\nabc\r\n--cut--\r\n",
    "not a field": b'--cut\r\nContent-Disposition: inline; name="image"\r\n\r\na\r\n--cut--',
    "no disposition value": b"--cut\r\nContent-Disposition: form-data\r\n\r\na\r\n--cut--\r\n",
    "endless headers": b"--cut\r\nX: " + b"y" * 9000 + b"\r\n\r\na\r\n--cut--\r\n",
    "longer boundary": b"--cuts\r\n" + HEAD + b"abc\r\n--cut--\r\n",
    "bytes in headers": b"--cut\r\n\xff\xfe\0: \xff\r\n\r\na\r\n--cut--\r\n",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_what_isnt_a_form(body: bytes) -> None:
    with pytest.raises(BadRequestError, match="isn't multipart/form-data: "):
        parts(TYPE, body, 5)


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 71,
        'multipart/form-data; boundary="a\rb"',
        "multipart/form-data; boundary=\xe4",
        "multipart/form-data; boundary*=utf-8''%e2",
    ],
)
def test_no_boundary(kind: str) -> None:
    with pytest.raises(BadRequestError, match="names no boundary"):
        parts(kind, b"--cut--", 1)
