"""Before a process starts: whether the store of files can do what is needed."""

from __future__ import annotations

import structlog

from app.settings import Settings
from app.storage.local import LocalStorage

log = structlog.get_logger(__name__)


def findings(settings: Settings) -> list[tuple[str, bool]]:
    """What there is to say of the store, line by line, and whether each keeps a service from it."""
    if settings.storage_url is None:
        trouble = LocalStorage(settings.storage_dir).trouble()
        said = f"NO  {trouble}" if trouble else "ok  stores files"
        return [(f"{said}: {settings.storage_dir}", trouble is not None)]
    from app.storage.probe import probe  # obstore: only where there is an object store

    return [(str(each), each.needed and not each.ok) for each in probe(settings)]


def obstacles(settings: Settings) -> list[str]:
    """Why a server or a worker can't start on this store; what is only worth knowing is logged.

    A local folder is looked at by the readiness check alone.
    """
    if settings.storage_url is None:
        return []
    found = findings(settings)
    for line, bad in found:
        if not bad and not line.startswith("ok"):
            log.warning("storage_lacks", finding=line)
    return [line for line, bad in found if bad]
