"""One POST to a target: to a checked address, within its time, following nothing.

Built on httpcore, which has neither redirects nor proxies nor cookies of its own.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import anyio
import httpcore
import httpx
from httpcore import AsyncNetworkBackend, AsyncNetworkStream

from app.settings import Settings
from app.webhooks.addresses import Guard, RefusedError, Resolve, resolve, resolve_private
from tdmr.wire.webhooks import AttemptError

TIMEOUT_SECONDS = 15.0  # from the lookup to the answer's last byte
CONNECT_SECONDS = 5.0  # to each address of a name
MAX_ANSWER_BYTES = 1024
MAX_TRIES = 4  # addresses of one name that are tried

Options = Iterable[httpcore.SOCKET_OPTION] | None


@dataclass(frozen=True)
class Answer:
    """What a target answered; or what went wrong, and then nothing else is there."""

    status: int | None = None
    text: str | None = None
    retry_after: str | None = None
    error: AttemptError | None = None

    @property
    def ok(self) -> bool:
        """Whether the message was taken."""
        return self.error is None


@dataclass
class Network:
    """How webhooks leave this process: who resolves, who connects, who is trusted."""

    guard: Guard
    backend: AsyncNetworkBackend = field(default_factory=httpcore.AnyIOBackend)

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """The authorities that a receiver's certificate may come from (`SSL_CERT_FILE` counts)."""
        return httpx.create_ssl_context()

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send a body and give the answer, or what went wrong. Raises nothing that is expected."""
        try:
            with anyio.fail_after(TIMEOUT_SECONDS):
                return await self._post(url, headers, body)
        except RefusedError as error:
            return Answer(error="unresolvable" if error.code == "unresolvable" else "refused")
        except (TimeoutError, httpcore.TimeoutException):
            return Answer(error="timeout")
        except httpcore.ConnectError as error:
            return Answer(
                error="tls" if isinstance(error.__context__, ssl.SSLError) else "connection"
            )
        except (httpcore.NetworkError, httpcore.ProtocolError):
            return Answer(error="connection")

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> Answer:
        target = self.guard.parse(url)
        where = httpcore.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path.encode(),
        )
        async with (
            Pinned(self.guard, self.backend) as pinned,
            # A pool of this one request: each is checked anew.
            httpcore.AsyncConnectionPool(ssl_context=self.trust, network_backend=pinned) as pool,
            pool.stream(
                "POST",
                where,
                headers=[("Host", target.authority), *headers.items()],
                content=body,
            ) as response,
        ):
            found = {name.lower(): value for name, value in response.headers}
            return Answer(
                status=response.status,
                text=await _beginning(response),
                retry_after=found.get(b"retry-after", b"").decode("latin-1") or None,
                error=None if 200 <= response.status < 300 else "http",
            )


class Pinned(AsyncNetworkBackend):
    """Connects to addresses that the guard has checked; names are for TLS and the Host header."""

    def __init__(self, guard: Guard, backend: AsyncNetworkBackend) -> None:
        self._guard, self._backend = guard, backend
        self._stream: AsyncNetworkStream | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close what is open: httpcore leaves a connection whose TLS handshake is cancelled."""
        if self._stream is not None:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own signature
        local_address: str | None = None,
        socket_options: Options = None,
    ) -> AsyncNetworkStream:
        """Resolve once, check all, connect to the first that answers. Raises RefusedError."""
        addresses = (await self._guard.addresses(host))[:MAX_TRIES]
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._connect(address, port)
        return await self._connect(addresses[-1], port)

    async def _connect(self, address: str, port: int) -> AsyncNetworkStream:
        self._stream = await self._backend.connect_tcp(address, port, CONNECT_SECONDS)
        return self._stream

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._backend.sleep(seconds)


async def _beginning(response: httpcore.Response) -> str:
    """The first bytes of an answer, as text that every database takes."""
    found = bytearray()
    async for chunk in response.aiter_stream():
        found += chunk
        if len(found) >= MAX_ANSWER_BYTES:
            break
    return bytes(found[:MAX_ANSWER_BYTES]).decode("utf-8", "replace").replace("\0", "\ufffd")


def network_of(settings: Settings) -> Network:
    """The network as the operator has set it."""
    private = settings.webhooks_may_reach_private_networks
    resolver: Resolve = resolve_private if private else resolve
    return Network(Guard(resolver, private=private))
