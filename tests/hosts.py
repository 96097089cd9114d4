"""Several hosts on one machine: network namespaces on a bridge, each with an address of its own.

Where namespaces aren't permitted, a host is a loopback address and whatever runs on it; cutting it
off then means to stop its processes (SIGSTOP), as a host does that hangs.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

NAMES = ("services", "server", "one", "two", "client")


class Network(Protocol):
    """Hosts by name, and how they are reached, cut off and joined again."""

    addresses: dict[str, str]

    def within(self, host: str) -> list[str]:
        """What a command begins with that runs on `host`."""

    def cut(self, host: str, pid: int) -> None:
        """Nothing goes to `host` or comes from it; `pid` is what runs there."""

    def join(self, host: str, pid: int) -> None:
        """It's back."""


@dataclass
class Namespaces:
    """Network namespaces; one more holds the bridge, so that the machine's own isn't touched."""

    prefix: str = field(default_factory=lambda: f"tdmr-{os.getpid()}")

    @property
    def addresses(self) -> dict[str, str]:
        """198.18.0.0/15 is for tests of networks (RFC 2544)."""
        return {name: f"198.18.77.{place}" for place, name in enumerate(NAMES, 1)}

    def __post_init__(self) -> None:
        switch = f"{self.prefix}-switch"
        for name in ("switch", *NAMES):
            ip("netns", "add", f"{self.prefix}-{name}")
            ip("-n", f"{self.prefix}-{name}", "link", "set", "lo", "up")
        ip("-n", switch, "link", "add", "name", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for name, address in self.addresses.items():
            host = f"{self.prefix}-{name}"
            pair = ("type", "veth", "peer", "name", "eth0", "netns", host)
            ip("-n", switch, "link", "add", "name", name, *pair)
            ip("-n", switch, "link", "set", name, "master", "bridge", "up")
            ip("-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")

    def within(self, host: str) -> list[str]:
        """`ip netns exec` becomes the command: its process id is the command's."""
        return ["ip", "netns", "exec", f"{self.prefix}-{host}"]

    def cut(self, host: str, pid: int) -> None:
        """Pull the cable."""
        ip("-n", f"{self.prefix}-switch", "link", "set", host, "down")

    def join(self, host: str, pid: int) -> None:
        """Put it back."""
        ip("-n", f"{self.prefix}-switch", "link", "set", host, "up")

    def close(self) -> None:
        """Remove what was made; what runs in a namespace must have ended."""
        for name in (*NAMES, "switch"):
            ip("netns", "delete", f"{self.prefix}-{name}")


@dataclass
class Loopback:
    """Loopback addresses, where nothing more is permitted."""

    addresses: dict[str, str] = field(
        default_factory=lambda: {name: f"127.0.77.{n}" for n, name in enumerate(NAMES, 1)}
    )

    def within(self, host: str) -> list[str]:
        """Nothing: a process is on the host whose address it listens at."""
        return []

    def cut(self, host: str, pid: int) -> None:
        """Stop the process and all that it started."""
        for each in (pid, *below(pid)):
            os.kill(each, signal.SIGSTOP)

    def join(self, host: str, pid: int) -> None:
        """Let them go on."""
        for each in (pid, *below(pid)):
            os.kill(each, signal.SIGCONT)

    def close(self) -> None:
        """Nothing was made."""


@contextmanager
def network() -> Iterator[Network]:
    """Hosts, as far apart as this machine permits."""
    made: Namespaces | Loopback = Namespaces() if permitted() else Loopback()
    try:
        yield made
    finally:
        made.close()


def permitted() -> bool:
    """Whether this process may make network namespaces, and iproute2 is there."""
    name = f"tdmr-{os.getpid()}-probe"
    if os.environ.get("TDMR_TEST_HOSTS") == "loopback" or shutil.which("ip") is None:
        return False
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    veth = ["ip", "-n", name, "link", "add", "name", "v0", "type", "veth"]
    bridge = ["ip", "-n", name, "link", "add", "name", "b0", "type", "bridge"]
    tried = [subprocess.run(each, capture_output=True).returncode for each in (veth, bridge)]
    ip("netns", "delete", name)
    return tried == [0, 0]


def ip(*words: str) -> None:
    """iproute2's command."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def below(pid: int) -> list[int]:
    """The processes that `pid` started, and those that they did."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        mine = children.get(waiting.pop(), [])
        found += mine
        waiting += mine
    return found


def as_nobody(command: Sequence[str], account: int | None) -> list[str]:
    """The command, as this account; it stays the process that it was."""
    given = [] if account is None else ["setpriv", f"--reuid={account}", "--clear-groups"]
    return [*given, *command]
