"""TDMR: distil a frozen vision foundation model into a small student for your classes.

    import tdmr
    result = tdmr.distill("my_images/", foundation="letters_vit", student="test_resnet", out="out/")
    print(result.accuracy, result.interval, result.bundle)

Importing this package loads next to nothing: each name brings what it needs when it is first used,
and torch comes with `distill`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdmr.api import Distilled, distill
    from tdmr.client import AsyncClient, Client
    from tdmr.config import DistillOptions, JobSpec
    from tdmr.errors import TdmrError

__all__ = [
    "AsyncClient",
    "Client",
    "DistillOptions",
    "Distilled",
    "JobSpec",
    "TdmrError",
    "distill",
]
__version__ = "0.1.0"

_HOMES = {
    "AsyncClient": "tdmr.client",
    "Client": "tdmr.client",
    "DistillOptions": "tdmr.config",
    "Distilled": "tdmr.api",
    "JobSpec": "tdmr.config",
    "TdmrError": "tdmr.errors",
    "distill": "tdmr.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
