"""What a process that opens somebody's file may use: a flaw ends here, not in the machine."""

from __future__ import annotations

import contextlib
import resource
import signal
from pathlib import Path

SPARE_SECONDS = 10  # between the word that the time is up, and the end


class OutOfTime(BaseException):
    """The processor time is used up."""


def hold(memory_bytes: int | None, cpu_seconds: int | None) -> None:
    """Cap address space and processor time of this process; None: no cap of ours.

    Too much memory is a MemoryError then, or a library's own word for it; too much time OutOfTime.
    """
    _cap(resource.RLIMIT_CORE, 0, 0)
    if memory_bytes is not None:
        _cap(resource.RLIMIT_AS, memory_bytes, memory_bytes)
    if cpu_seconds is not None:
        signal.signal(signal.SIGXCPU, _out_of_time)
        _cap(resource.RLIMIT_CPU, cpu_seconds, cpu_seconds + SPARE_SECONDS)


def address_space() -> int:
    """Bytes of address space that this process has taken; 0 where only the system knows."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # another system than Linux
        return 0
    return pages * resource.getpagesize()


def _cap(kind: int, soft: int, hard: int) -> None:
    """Lower a limit; one that is lower already stays, and where there is none there is none."""
    _, now = resource.getrlimit(kind)
    if now != resource.RLIM_INFINITY:
        soft, hard = min(soft, now), min(hard, now)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses to limit the address space
        resource.setrlimit(kind, (soft, hard))


def _out_of_time(*_: object) -> None:
    raise OutOfTime
