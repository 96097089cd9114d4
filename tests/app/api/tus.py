"""What the tests of resumable uploads share: addresses, headers, and how a refusal looks."""

from __future__ import annotations

import base64
from typing import Any

from tests.app.datasets.zips import good_files, pack
from tests.app.service import Service

GOOD = pack(good_files())
TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}
UPLOADS = "/v1/uploads"


def b64(text: bytes | str) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def begin(service: Service, length: int = len(GOOD), **headers: str) -> str:
    """The address of a new upload."""
    return f"{UPLOADS}/{service.begun(length, **headers)}"


def send(service: Service, url: str, offset: int, content: bytes, **headers: str) -> Any:
    """Append to an upload."""
    return service.client.patch(
        url, content=content, headers={**BYTES, "Upload-Offset": str(offset), **headers}
    )


def refused(response: Any, status: int, code: str) -> Any:
    """The problem, checked."""
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Tus-Resumable"] == "1.0.0"
    return response


def offset_of(service: Service, url: str) -> int:
    head = service.client.head(url, headers=TUS)
    assert head.status_code == 200
    return int(head.headers["Upload-Offset"])
