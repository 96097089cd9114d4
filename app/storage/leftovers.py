"""Uploads in parts whose sender died: nobody sees them, and they take room until they're aborted.

obstore can neither list nor abort them, so these two requests are signed here (AWS Signature
Version 4, in the query). Without keys in the settings, a rule of the bucket has to do it
(AbortIncompleteMultipartUpload).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

import httpx
import structlog

from app.errors import StorageUnavailableError
from app.settings import Settings
from app.storage.connection import address_of, bucket_of, credentials

ALGORITHM = "AWS4-HMAC-SHA256"
LIFE_SECONDS = "60"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Leftover:
    """An upload in parts that was begun, and neither completed nor aborted."""

    key: str
    upload_id: str
    begun_at: datetime


def abort(settings: Settings, seconds: float) -> int:
    """Abort what was begun `seconds` ago or longer; how many they were.

    Raises StorageUnavailableError.
    """
    keys = credentials(settings)
    if keys is None:
        return 0
    latest = datetime.now(UTC) - timedelta(seconds=seconds)
    aborted = 0
    with httpx.Client(timeout=settings.storage_timeout_seconds, trust_env=False) as client:
        for leftover in _listed(client, settings, keys):
            if leftover.begun_at <= latest:
                query = {"uploadId": leftover.upload_id}
                _ask(client, "DELETE", settings, keys, query, leftover.key)
                log.info("upload_aborted", key=leftover.key)
                aborted += 1
    return aborted


def _listed(client: httpx.Client, settings: Settings, keys: tuple[str, str]) -> Iterator[Leftover]:
    """The first thousand below our prefix: the next round finds the next."""
    prefix = bucket_of(settings)[1]
    prefix = prefix and f"{prefix}/"
    answer = _ask(client, "GET", settings, keys, {"uploads": "", "prefix": prefix})
    root = ET.fromstring(answer.content)  # noqa: S314  # what the store says is as trusted as its files
    for upload in root.iterfind("{*}Upload"):
        key = upload.findtext("{*}Key", "")
        if key.startswith(prefix):  # not every store looks at the prefix
            begun_at = datetime.fromisoformat(upload.findtext("{*}Initiated", ""))
            yield Leftover(key, upload.findtext("{*}UploadId", ""), begun_at)


def _ask(
    client: httpx.Client,
    method: str,
    settings: Settings,
    keys: tuple[str, str],
    query: dict[str, str],
    key: str = "",
) -> httpx.Response:
    url = _signed(method, _address(settings, key), query, keys, settings.storage_region)
    try:
        answer = client.request(method, url)
    except httpx.TransportError as error:
        raise StorageUnavailableError("The store of files doesn't answer. Try again.") from error
    if answer.is_error and answer.status_code != 404:  # gone: somebody else was faster
        log.warning("storage_error", status=answer.status_code, error=answer.text[:500])
        raise StorageUnavailableError("The store of files doesn't answer. Try again.")
    return answer


def _address(settings: Settings, key: str) -> str:
    bucket, region = bucket_of(settings)[0], settings.storage_region
    address = address_of(settings) or f"https://s3.{region}.amazonaws.com"
    named = settings.storage_path_style or settings.storage_endpoint is None
    return f"{address}/{bucket}/{key}" if named else f"{address}/{key}"


def _signed(
    method: str, address: str, query: dict[str, str], keys: tuple[str, str], region: str
) -> str:
    """The address with its signature.

    Source: Signature Version 4, https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
    """
    parts, moment = urlsplit(address), f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    path = quote(parts.path.removesuffix("/") or "/", safe="/")
    fields = {
        **query,
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{keys[0]}/{scope}",
        "X-Amz-Date": moment,
        "X-Amz-Expires": LIFE_SECONDS,
        "X-Amz-SignedHeaders": "host",
    }
    sent = "&".join(f"{quote(k, safe='')}={quote(fields[k], safe='')}" for k in sorted(fields))
    asked = [method, path, sent, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"]
    digest = hashlib.sha256("\n".join(asked).encode()).hexdigest()
    key = f"AWS4{keys[1]}".encode()
    for step in scope.split("/"):
        key = hmac.digest(key, step.encode(), "sha256")
    signature = hmac.digest(key, "\n".join([ALGORITHM, moment, scope, digest]).encode(), "sha256")
    return f"{parts.scheme}://{parts.netloc}{path}?{sent}&X-Amz-Signature={signature.hex()}"
