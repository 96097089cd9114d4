"""The store that the settings name."""

from __future__ import annotations

from app.settings import Settings
from app.storage.interface import Storage
from app.storage.local import LocalStorage


def open_storage(settings: Settings) -> Storage:
    """The local folder, or an object store, which isn't asked for anything yet.

    Raises ValueError for settings that can't be right, and OSError where a file with credentials
    can't be read.
    """
    if settings.storage_url is None:
        return LocalStorage(settings.storage_dir)
    from app.storage.s3 import S3Storage  # obstore: only where there is an object store

    return S3Storage(settings)
