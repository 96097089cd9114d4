"""Guards switched off in one check: the harness must notice each, or its figures prove nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from app.datasets import archive, check, intake, members, names, zips
from app.datasets.findings import Findings
from app.datasets.members import Archive

EXTRA = 96 << 20  # bytes that a careless check takes


def _put(module: ModuleType, **values: Any) -> None:
    """Replace what a module has under these names."""
    for name, value in values.items():
        setattr(module, name, value)


def _names() -> None:
    _put(names, trouble=lambda name: None)


def _ratio() -> None:
    _put(members, RATIO_FLOOR=1 << 60)
    _put(zips, RATIO_FLOOR=1 << 60)


def _overlaps() -> None:
    _put(zips, check_apart=lambda entry, free_from: None)


def _tidiness() -> None:
    """The folder for what is unpacked stays."""

    @contextmanager
    def kept(**options: Any) -> Iterator[str]:
        yield tempfile.mkdtemp(**options)

    _put(check, TemporaryDirectory=kept)


def _staging() -> None:
    """Files are written under the names that the archive gives them, as `extractall` once did."""
    _names()
    sort_out = archive._drop_litter

    def extracted(listed: Archive, findings: Findings) -> None:
        with listed:
            for member in listed.members:
                path = Path(member.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(listed.read(member))
        sort_out(listed, findings)

    _put(archive, _drop_litter=extracted)


def _memory() -> None:
    """Something as large as a bomb is held for a moment."""
    place = intake.place

    def wasteful(*given: Any) -> Any:
        bytearray(b"\1") * EXTRA
        return place(*given)

    _put(intake, place=wasteful)


GUARDS: dict[str, Callable[[], None]] = {
    "names": _names,
    "ratio": _ratio,
    "overlaps": _overlaps,
    "tidiness": _tidiness,
    "staging": _staging,
    "memory": _memory,
}


def switch_off(guard: str | None) -> None:
    """Do without one guard in this process, from now on."""
    if guard is not None:
        GUARDS[guard]()
