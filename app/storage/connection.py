"""How an object store is spoken to: addresses, credentials, patience, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store
from pydantic import SecretStr

from app.errors import AppError, DiskFullError, StorageRefusedError, StorageUnavailableError
from app.settings import Settings

if TYPE_CHECKING:  # they are there for types alone
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

CREDENTIALS_LIFE = timedelta(minutes=15)  # then files with credentials are read again
CONNECT = timedelta(seconds=5)
LONGEST = timedelta(days=1)  # of one request: what ends a dead one is its silence
IMPATIENT_SECONDS = 3.0

_REFUSED = re.compile(r"status code: 40[13]")
_FULL = re.compile(r"status code: 507|StorageFull|QuotaExceeded|No space left|no space left")

log = structlog.get_logger(__name__)


def connect(settings: Settings, *, impatient: bool = False, endpoint: str | None = None) -> S3Store:
    """A client of the store; `impatient` asks once, and waits for 3 seconds at most.

    Nothing is sent. Raises OSError where a file with credentials can't be read.
    """
    bucket, prefix = bucket_of(settings)
    config: S3Config = {
        "region": settings.storage_region,
        "virtual_hosted_style_request": not settings.storage_path_style,
    }
    if (address := address_of(settings, endpoint)) is not None:
        config["endpoint"] = address
    silence = IMPATIENT_SECONDS if impatient else settings.storage_timeout_seconds
    client: ClientConfig = {
        "allow_http": settings.storage_allow_http,
        "connect_timeout": min(CONNECT, timedelta(seconds=silence)),
        "read_timeout": timedelta(seconds=silence),
        "timeout": LONGEST,
    }
    retries: RetryConfig = {
        "max_retries": 0 if impatient else 10,
        "retry_timeout": timedelta(seconds=settings.storage_retry_seconds),
        "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=5)},
    }
    given = None if credentials(settings) is None else lambda: _credential(settings)
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options=client,
        retry_config=retries,
        credential_provider=given,
    )


def bucket_of(settings: Settings) -> tuple[str, str]:
    """The bucket, and the prefix in it without slashes around it."""
    assert settings.storage_url is not None, "the store is an object store"
    parts = urlsplit(settings.storage_url)
    return parts.netloc, parts.path.strip("/")


def address_of(settings: Settings, endpoint: str | None = None) -> str | None:
    """The endpoint as obstore wants it: with the bucket where that stands in the host's name."""
    address = endpoint or settings.storage_endpoint
    if address is None or settings.storage_path_style:
        return address and address.rstrip("/")
    parts = urlsplit(address)
    return f"{parts.scheme}://{bucket_of(settings)[0]}.{parts.netloc}{parts.path.rstrip('/')}"


def credentials(settings: Settings) -> tuple[str, str] | None:
    """Access key and secret key as they are now; None where the machine has its own."""
    access = _secret(settings.storage_access_key, settings.storage_access_key_file)
    secret = _secret(settings.storage_secret_key, settings.storage_secret_key_file)
    return None if access is None or secret is None else (access, secret)


def _secret(value: SecretStr | None, file: Path | None) -> str | None:
    if file is not None:
        return file.read_text(encoding="utf-8").strip()
    return None if value is None else value.get_secret_value()


def _credential(settings: Settings) -> S3Credential:
    found = credentials(settings)
    assert found is not None, "settings don't change"
    access, secret = found
    until = datetime.now(UTC) + CREDENTIALS_LIFE
    return {"access_key_id": access, "secret_access_key": secret, "expires_at": until}


@contextmanager
def translated(*, sending: bool = False) -> Iterator[None]:
    """Say what the store's errors mean: an AppError, or FileNotFoundError for a key alone.

    When `sending`, nothing that is missing is a key: the bucket, or the upload that broke.
    """
    try:
        yield
    except FileNotFoundError as error:
        if not sending and "NoSuchBucket" not in str(error):
            raise
        raise _meant(error) from error
    except BaseError as error:
        raise _meant(error) from error


def _meant(error: Exception) -> AppError:
    text = str(error).partition("\n\nDebug source")[0]
    log.warning("storage_error", error=text[:1000])  # for the log alone: it has addresses
    if _FULL.search(text):
        return DiskFullError("The store of files is full. Nothing was stored.")
    refused = isinstance(error, PermissionDeniedError | UnauthenticatedError)
    if refused or _REFUSED.search(text):
        return StorageRefusedError("The store of files refuses the service's credentials.")
    if "NoSuchBucket" in text:
        return StorageUnavailableError("The store of files has no such bucket.")
    return StorageUnavailableError("The store of files doesn't answer. Try again.")
