"""What commands share: how they end, what they print, and the server that they ask."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from tdmr.client import Client
    from tdmr.wire.datasets import Finding

ENDED_BADLY, WRONG_USE, REFUSED, UNREACHABLE, INTERRUPTED = 1, 2, 3, 4, 130
ENDINGS = (
    "Exit codes: 0 all is well; 1 the job or the dataset ended badly; 2 wrong use; 3 the server "
    "refused; 4 the server can't be reached; 130 interrupted."
)
PATIENCE = 10.0  # seconds of trouble that may pass, before a command gives up
WIDE = 200  # columns of a table that doesn't go to a terminal

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]
Permanently = Annotated[
    bool, typer.Option("--permanently", help="Without the time in which it can be restored.")
]
Options = Annotated[str, typer.Option(help="JSON, or @FILE with JSON.")]
Single = Annotated[
    list[str] | None, typer.Option("--option", help="One option, as training.steps=300; repeat.")
]


def fail(status: int, reason: object) -> NoReturn:
    """Say why on stderr, and end."""
    typer.secho(f"error: {plain(str(reason), keep=chr(10))}", err=True, fg="red")
    raise typer.Exit(status)


@contextmanager
def connected(patience: float = PATIENCE) -> Iterator[Client]:
    """The client of the server that was logged in to; errors end the command with their code."""
    import httpx

    from tdmr.client import ApiError, Client, DigestError
    from tdmr.client.connection import NoConnectionError

    try:
        with Client(patience=_patience(patience)) as client:
            yield client
    except NoConnectionError as error:
        fail(WRONG_USE, error)
    except DigestError as error:
        fail(ENDED_BADLY, error)
    except ApiError as error:
        fail(REFUSED, error)
    except httpx.TransportError as error:
        fail(UNREACHABLE, f"The server can't be reached: {error or type(error).__name__}.")
    except BrokenPipeError:
        raise  # whoever reads our output has seen enough
    except OSError as error:
        fail(WRONG_USE, error)


def _patience(default: float) -> float:
    given = os.environ.get("TDMR_PATIENCE", "")
    try:
        return float(given) if given else default
    except ValueError:
        fail(WRONG_USE, f"TDMR_PATIENCE is {given!r}, not a number of seconds.")


def plain(text: object, keep: str = "") -> str:
    """Text of somebody else's, in which nothing commands a terminal."""
    return "".join(
        char if char.isprintable() or char in keep else repr(char)[1:-1] for char in str(text)
    )


def document(value: BaseModel | Sequence[BaseModel]) -> None:
    """Print one JSON document."""
    if isinstance(value, Sequence):
        line([row.model_dump(mode="json") for row in value])
    else:
        line(value.model_dump(mode="json"))


def line(value: Any) -> None:
    """Print JSON on one line, at once."""
    typer.echo(json.dumps(value))
    sys.stdout.flush()


def deleted(thing_id: str, as_json: bool) -> None:
    """Print that something is deleted."""
    if as_json:
        line({"id": thing_id, "deleted": True})
    else:
        typer.echo(f"{thing_id} is deleted.")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; its first column is never broken or cut."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    first, *others = columns
    shown = Table(Column(first, no_wrap=True), *others)
    for row in rows:
        shown.add_row(*(Text("" if cell is None else plain(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else WIDE).print(shown)


def facts(*pairs: tuple[str, object]) -> None:
    """Print what is known of one thing; what isn't is left out."""
    known = [(name, plain(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max(len(name) for name, _ in known)
    for name, value in known:
        typer.echo(f"{name:<{width}}  {value}")


def list_findings(findings: Iterable[Finding]) -> None:
    """Print what a check has found."""
    for each in findings:
        where = "" if each.file is None else f" {plain(each.file)}:"
        typer.echo(f"{each.severity}:{where} {plain(each.detail)} {plain(each.advice)}")


def options_of(text: str, single: Iterable[str] | None) -> dict[str, Any]:
    """Options as the server takes them: JSON or @FILE, with single ones on top.

    Raises typer.BadParameter.
    """
    try:
        found = json.loads(Path(text[1:]).read_text("utf-8") if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{text!r} can't be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise typer.BadParameter("options must be a JSON object")
    for pair in single or ():
        name, equals, value = pair.partition("=")
        *groups, last = name.split(".")
        if not (equals and all([*groups, last])):
            raise typer.BadParameter(f"{pair!r} isn't like training.steps=300")
        target = found
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise typer.BadParameter(f"{pair!r}: {group} is no group of options")
        target[last] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # a word needs no quotes
