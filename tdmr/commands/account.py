"""`tdmr login` and `tdmr logout`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from tdmr.commands.shared import REFUSED, UNREACHABLE, WRONG_USE, AsJson, fail, line


def login(
    url: Annotated[
        str | None, typer.Argument(help="Address of the server; TDMR_URL, or asked for.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Access key; better from TDMR_KEY, stdin, or when asked.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check an address and an access key, and keep them for the other commands.

    They are kept in a file that only you can read. TDMR_URL and TDMR_KEY go before it.
    """
    from tdmr.client import connection
    from tdmr.client.connection import Connection, NoConnectionError

    try:
        found = Connection(
            url or os.environ.get(connection.URL) or typer.prompt("Address", err=True),
            (key or os.environ.get(connection.KEY) or _asked()).strip(),
        )
    except NoConnectionError as error:
        fail(WRONG_USE, error)
    if found.exposed:
        typer.echo("warning: the key crosses the network unencrypted; use https.", err=True)
    _check(found)
    path = connection.keep(found)
    if as_json:
        line({"url": found.address, "file": str(path)})
    else:
        typer.echo(f"Logged in to {found.address}; kept in {path}.", err=True)


def logout(as_json: AsJson = False) -> None:
    """Forget the address and the key. The key stays valid: revoke it at the server."""
    from tdmr.client import connection

    there = connection.forget()
    if as_json:
        line({"forgotten": there})
    else:
        typer.echo("Forgotten." if there else "There was nothing to forget.", err=True)


def _asked() -> str:
    """The key, of whoever sits there or of a pipe."""
    if sys.stdin.isatty():
        return str(typer.prompt("Access key", hide_input=True, err=True))
    return sys.stdin.readline()


def _check(found: object) -> None:
    """End unless the server is one of ours and knows the key."""
    import httpx

    from tdmr.client import ApiError, Client, ForbiddenError
    from tdmr.client.connection import Connection

    assert isinstance(found, Connection)
    try:
        with Client(found.address, found.key, patience=0.0) as client:
            next(client.models(), None)
    except ForbiddenError:
        pass  # a key for other things than models is a key
    except ApiError as error:
        fail(REFUSED, error)
    except httpx.TransportError as error:
        fail(UNREACHABLE, f"{found.address} can't be reached: {error or type(error).__name__}.")
