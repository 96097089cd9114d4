"""Where webhooks may go: public addresses alone (OWASP: server-side request forgery).

A URL is taken apart once, and strictly; what two readers could understand differently is refused.
Of a name, every address that it resolves to must be public, and the connection goes to one of
those addresses, never to what the name may mean a moment later. What isn't known to be public is
refused.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

PORTS = (443, 8443)
DEFAULT_PORTS = {"https": 443, "http": 80}
MAX_URL = 2000
MAX_ADDRESSES = 32  # of one name
LOOKUPS = 128  # at once in an event loop: one that hangs keeps its thread for a while
LOOKUP_SECONDS = 5.0

# Names that no public server has, whatever somebody's resolver says (RFC 6761, 6762, 8375 and use).
PRIVATE_SUFFIXES = frozenset(
    {"localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home"}
    | {"lan", "arpa", "onion", "alt", "invalid"}
)
# Public by the registry, and yet ways into somewhere else.
NOT_PLAIN_4 = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("100.64.0.0/10"),  # carriers' own
    IPv4Network("240.0.0.0/4"),
)
UNICAST_6 = IPv6Network("2000::/3")  # leaves out all that is mapped, translated (NAT64) or local
NOT_PLAIN_6 = (
    IPv6Network("2001::/23"),  # Teredo, ORCHID and other protocols
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4: an IPv4 address inside
    IPv6Network("3fff::/20"),  # documentation
)
ISATAP = (0x00005EFE, 0x02005EFE)  # then the last 32 bits are an IPv4 address (RFC 5214)

_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_AUTHORITY = re.compile(r"(\[[^\[\]@]*\]|[^:\[\]@]*)(?::([0-9]{1,5}))?")

Resolve = Callable[[str], Awaitable[Sequence[str]]]
_limiter: RunVar[CapacityLimiter] = RunVar("webhook_lookups")


class RefusedError(Exception):
    """A place that no webhook goes to: a code, and a sentence for who named it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart: what is connected to, and what is asked for there."""

    scheme: str
    host: str  # lower case; an IPv6 address without brackets
    port: int
    path: str  # with the query

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


async def resolve(host: str) -> Sequence[str]:
    """The system's answer for a public name: absolute, so that no search domain is tried."""
    return await _lookup(f"{host}.")


async def resolve_private(host: str) -> Sequence[str]:
    """The system's answer for a name as it stands: short names of a platform's own are found."""
    return await _lookup(host)


async def _lookup(name: str) -> Sequence[str]:
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(LOOKUPS)
        _limiter.set(limiter)
    found = await anyio.to_thread.run_sync(
        lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM),
        abandon_on_cancel=True,
        limiter=limiter,
    )
    return [str(row[4][0]) for row in found]


class Guard:
    """Says where a webhook may go; with `private`, plain http and every address are allowed."""

    def __init__(self, resolver: Resolve, *, private: bool = False) -> None:
        self._resolve = resolver
        self._private = private

    async def check(self, url: str) -> Target:
        """The target of `url`, which resolves now. Raises RefusedError."""
        target = self.parse(url)
        await self.addresses(target.host)
        return target

    def parse(self, url: str) -> Target:
        """Take a URL apart. Raises RefusedError."""
        if len(url) > MAX_URL or not _URL.fullmatch(url):
            raise RefusedError(
                "malformed_url",
                f"Give a URL (RFC 3986) of at most {MAX_URL} characters; write other letters than "
                "ASCII's in punycode or percent-encoded.",
            )
        scheme, _, rest = url.partition("://")
        scheme = scheme.lower()
        if not rest or scheme not in (("https", "http") if self._private else ("https",)):
            raise RefusedError("not_https", "The URL has to begin with https://.")
        if "#" in url:
            raise RefusedError("malformed_url", "A fragment is never sent: leave it out.")
        authority = re.split(r"[/?]", rest, maxsplit=1)[0]
        if "@" in authority:
            raise RefusedError("userinfo", "User names and passwords in a URL aren't taken.")
        parts = _AUTHORITY.fullmatch(authority)
        if parts is None or not parts[1]:
            raise RefusedError("malformed_url", "The URL has no host, or one that can't be read.")
        port = int(parts[2]) if parts[2] else DEFAULT_PORTS[scheme]
        if not (0 < port < 65536 if self._private else port in PORTS):
            raise RefusedError("port", "The port has to be 443 or 8443.")
        path = rest[len(authority) :]
        path = path if path.startswith("/") else f"/{path}"
        return Target(scheme, self._host(parts[1].lower()), port, path)

    def _host(self, host: str) -> str:
        """The name or address that a URL's host is. Raises RefusedError."""
        if host.startswith("["):
            return self._literal(IPv6Address, host[1:-1])
        labels = host.split(".")
        # As browsers read it, a name whose last label is a number is an IPv4 address.
        if _NUMBER.fullmatch(labels[-1] or (labels[-2] if len(labels) > 1 else "")):
            return self._literal(IPv4Address, host)
        if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
            raise RefusedError("malformed_url", "The host isn't a name, or ends in a dot.")
        if not self._private and (len(labels) < 2 or labels[-1] in PRIVATE_SUFFIXES):
            raise RefusedError("private_name", "The host's name isn't one of the public internet.")
        return host

    def _literal(self, family: type[IPv4Address | IPv6Address], text: str) -> str:
        try:
            found = family(text)
        except ValueError:
            raise RefusedError(
                "malformed_url", "Write an IP address as 192.0.2.1 or [2001:db8::1]."
            ) from None
        self._allow(found)
        return str(found)

    async def addresses(self, host: str) -> list[str]:
        """The addresses to connect to for a target's host, each of them allowed.

        Raises RefusedError, also when one address of several isn't public: which of them would be
        taken is the name server's to say.
        """
        try:
            answers = [str(ip_address(host))]
        except ValueError:
            answers = await self._resolved(host)
        found = [self._address(text) for text in answers]
        for address in found:
            self._allow(address)
        return list(dict.fromkeys(str(address) for address in found))

    async def _resolved(self, host: str) -> list[str]:
        try:
            with anyio.fail_after(LOOKUP_SECONDS):
                answers = await self._resolve(host)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise RefusedError("unresolvable", "The host's name doesn't resolve.") from error
        if not 0 < len(answers) <= MAX_ADDRESSES:
            raise RefusedError("unresolvable", "The host's name has no address, or far too many.")
        return list(answers)

    def _address(self, text: str) -> IPv4Address | IPv6Address:
        try:
            return ip_address(text)
        except ValueError:
            raise _not_public() from None

    def _allow(self, address: IPv4Address | IPv6Address) -> None:
        if not self._private and not is_public(address):
            raise _not_public()


def _not_public() -> RefusedError:
    return RefusedError("not_public", "The host has an address that isn't of the public internet.")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is plain global unicast: the registry's word, less what leads elsewhere.

    IPv6 counts as public in 2000::/3 alone, less what carries an IPv4 address inside.
    """
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PLAIN_4)
    if address.scope_id is not None or address not in UNICAST_6:
        return False
    if (int(address) >> 32) & 0xFFFFFFFF in ISATAP:
        return False
    return not any(address in network for network in NOT_PLAIN_6)
