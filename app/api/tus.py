"""tus 1.0.0, the resumable upload protocol: its headers, read strictly, and on every answer.

The specification is at tus.io; docs/uploads.md says which of its extensions there are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import unicodedata
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BadRequestError, ErrorItem, TusVersionError

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,checksum,termination"
# sha1 is what the specification asks for and what the official Python client sends.
ALGORITHMS = ("sha256", "sha1")
MEDIA_TYPE = "application/offset+octet-stream"
PATH = "/v1/uploads"
OVERRIDE = ("PATCH", "DELETE")
MAX_METADATA = 4096
MAX_NAME = 200

_NUMBER = re.compile(r"[0-9]{1,15}")
_KEY = re.compile(r"[!-+\--~]{1,100}")


class Tus:
    """Pure ASGI middleware: under /v1/uploads every answer names the version, errors too.

    It also lets a POST stand for PATCH or DELETE (X-HTTP-Method-Override), as clients behind some
    proxies need it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == PATH or path.startswith(f"{PATH}/")):
            await self._app(scope, receive, send)
            return
        method = Headers(scope=scope).get("x-http-method-override", "").upper()
        if scope["method"] == "POST" and method in OVERRIDE:
            scope = {**scope, "method": method}

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        await self._app(scope, receive, named)


@dataclass(frozen=True)
class Checksum:
    """What the body of one request hashes to."""

    algorithm: str
    digest: bytes

    def running(self) -> Any:
        """A new hash to be fed with the body."""
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def matches(self, running: Any) -> bool:
        """Whether that was the body."""
        return hmac.compare_digest(running.digest(), self.digest)


def check_version(request: Request) -> None:
    """Raise TusVersionError unless the request speaks our version."""
    if request.headers.get("tus-resumable") != VERSION:
        raise TusVersionError(f"Send Tus-Resumable: {VERSION}.")


def length(request: Request) -> int:
    """How long the upload is to be. Raises BadRequestError, also where the length is put off."""
    for name in ("Upload-Defer-Length", "Upload-Concat"):
        if name in request.headers:
            raise _bad(name, "unsupported", "This extension of tus isn't offered; see OPTIONS.")
    return _number(request, "Upload-Length")


def offset(request: Request) -> int:
    """Where the body is to be appended. Raises BadRequestError."""
    return _number(request, "Upload-Offset")


def checksum(request: Request) -> Checksum | None:
    """What the body must hash to, where that is said. Raises BadRequestError."""
    header = request.headers.get("upload-checksum")
    if header is None:
        return None
    algorithm, _, encoded = header.partition(" ")
    if algorithm not in ALGORITHMS:
        raise _bad("Upload-Checksum", "unsupported", "Not one of our algorithms.", ALGORITHMS)
    digest = _decode("Upload-Checksum", encoded)
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise _bad("Upload-Checksum", "malformed", f"That isn't the length of a {algorithm}.")
    return Checksum(algorithm, digest)


def metadata(request: Request) -> tuple[str | None, dict[str, str]]:
    """The header as it came, and what we understand of it: `name`, `filename` and `filetype`.

    Other keys are the client's own. Raises BadRequestError for a header that isn't well-formed, and
    for a value of ours that isn't printable text.
    """
    header = request.headers.get("upload-metadata")
    if not header:
        return None, {}
    if len(header) > MAX_METADATA:
        raise _bad("Upload-Metadata", "too_long", f"At most {MAX_METADATA} characters.")
    found: dict[str, bytes] = {}
    for pair in header.split(","):
        key, _, encoded = pair.strip(" ").partition(" ")
        if not _KEY.fullmatch(key) or key in found:
            raise _bad("Upload-Metadata", "malformed", "Keys are ASCII, and each comes once.")
        found[key] = _decode("Upload-Metadata", encoded)
    ours = ("name", "filename", "filetype")
    return header, {key: _text(key, found[key]) for key in ours if key in found}


def dataset_name(ours: dict[str, str]) -> str:
    """What to call the dataset: `name`, or the stem of `filename`. Raises BadRequestError."""
    name = ours.get("name") or PurePath(ours.get("filename", "")).stem[:MAX_NAME] or "dataset"
    if len(name) > MAX_NAME:
        raise _bad("Upload-Metadata", "too_long", f"`name` has at most {MAX_NAME} characters.")
    return name


def _text(key: str, value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("Upload-Metadata", "malformed", f"`{key}` isn't UTF-8.") from None
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise _bad("Upload-Metadata", "malformed", f"`{key}` has control characters.")
    return text


def _number(request: Request, name: str) -> int:
    value = request.headers.get(name)
    if value is None:
        raise _bad(name, "missing", "This header is needed.")
    if not _NUMBER.fullmatch(value):
        raise _bad(name, "malformed", "Not a number of bytes.")
    return int(value)


def _decode(name: str, encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise _bad(name, "malformed", "Not base64.") from None


def _bad(name: str, code: str, detail: str, allowed: tuple[str, ...] = ()) -> BadRequestError:
    item = ErrorItem(
        pointer=f"/header/{name}", code=code, detail=detail, allowed=list(allowed) or None
    )
    return BadRequestError(f"{name}: {detail}", [item])
