"""Processes as the kernel sees them (Linux's /proc), and signals that can't hit another one."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Seen:
    """A process at one moment: zombies aren't shown."""

    pid: int
    parent: int
    group: int


def running() -> Iterator[Seen]:
    """Every process of this machine that runs."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            rest = path.read_text(errors="replace").rpartition(")")[2].split()
            if rest[0] not in "ZX":
                yield Seen(int(path.parent.name), int(rest[1]), int(rest[2]))


def leader_under(worker: int) -> int | None:
    """The job's process that `worker` runs now."""
    found = [p.pid for p in running() if p.parent == worker and p.group == p.pid]
    return found[0] if found else None


def marked(text: str) -> list[int]:
    """The processes that were started with `text` (NAME=VALUE) in their environment."""
    wanted, found = text.encode(), []
    for process in running():
        with suppress(OSError):
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            if wanted in environment.split(b"\0"):
                found.append(process.pid)
    return found


def stopped(pid: int) -> bool:
    """Whether every thread of a process stands still, as some time after SIGSTOP."""
    stats = [path.read_text(errors="replace") for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def named(pid: int) -> str:
    """A process for people: its number and its command line."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        return f"{pid} {words.decode(errors='replace').strip()[-120:]}"
    return str(pid)


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU that a process has used, in user and kernel mode."""
    rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(rest[11]) + int(rest[12])) / TICKS


def rss_mb(pid: int) -> float:
    """MB (2**20 bytes) that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def maps(pid: int, name: str) -> bool:
    """Whether a process has mapped a file with `name` in its path."""
    return name in Path(f"/proc/{pid}/maps").read_text()


class Handle:
    """A process by its pidfd: the number may become another's, this can't."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when the process has ended."""
        try:
            signal.pidfd_send_signal(self._fd, number)
        except ProcessLookupError:
            return False
        return True

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, after waiting at most so long for that."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(1000 * seconds))

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


def strike(pid: int, parent: int) -> bool:
    """SIGKILL a child of `parent`; False when it's gone, or isn't that any more."""
    try:
        handle = Handle(pid)
    except ProcessLookupError:
        return False
    try:
        mine = any(p.pid == pid and p.parent == parent for p in running())
        return mine and handle.signal(signal.SIGKILL)
    finally:
        handle.close()
