"""`tdmr models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tdmr.commands.shared import AsJson, connected, document, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdmr.catalog import CatalogEntry
    from tdmr.wire.models import ModelOut

app = typer.Typer(invoke_without_command=True)
Role = Annotated[str | None, typer.Option(help="foundation or student.")]


@app.callback()
def models(context: typer.Context, role: Role = None, as_json: AsJson = False) -> None:
    """List the recommended models; alone, those of this installation, with no server."""
    if context.invoked_subcommand is not None:
        return
    from tdmr import catalog

    found = catalog.entries(_checked(role))  # type: ignore[arg-type] # checked
    if as_json:
        document(found)
    else:
        _table(found)


@app.command("list")
def list_(role: Role = None, as_json: AsJson = False) -> None:
    """List the models that the server recommends."""
    with connected() as client:
        found = list(client.models(_checked(role)))
    if as_json:
        document(found)
    else:
        _table(found)


@app.command()
def recommend(
    max_params: Annotated[int | None, typer.Option(min=1, help="Parameters.")] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="For 95 % of single images, in milliseconds.")
    ] = None,
    max_file_bytes: Annotated[int | None, typer.Option(min=1, help="Of the ONNX file.")] = None,
    machine: Annotated[str | None, typer.Option(help="Where it was measured.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rank students by what was measured, and say how each stands to your limits."""
    limits = {
        "max_params": max_params,
        "max_latency_ms": max_latency_ms,
        "max_file_bytes": max_file_bytes,
        "machine": machine,
    }
    with connected() as client:
        found = client.recommend(**{name: value for name, value in limits.items() if value})
    if as_json:
        document(found)
        return
    columns = ("model", "verdict", "p50 ms", "p95 ms", "parameters", "ONNX bytes", "why")
    rows = (
        (
            row.model.name,
            row.verdict.replace("_", " "),
            row.latency and f"{row.latency.p50_ms:.2f}",
            row.latency and f"{row.latency.p95_ms:.2f}",
            f"{row.model.params:,}",
            row.file_bytes and f"{row.file_bytes:,}",
            " ".join(reason.detail for reason in row.reasons if not reason.fits),
        )
        for row in found.data
    )
    table(columns, rows)
    typer.echo(f"Measured on {found.machine}." if found.machine else "Nothing was measured yet.")


def _checked(role: str | None) -> str | None:
    if role not in (None, "foundation", "student"):
        raise typer.BadParameter("must be foundation or student")
    return role


def _table(found: Iterable[CatalogEntry | ModelOut]) -> None:
    columns = ("name", "role", "family", "parameters", "GMACs", "pixels", "licence", "offline")
    rows = (
        (
            each.name,
            each.roles[0],
            each.family,
            f"{each.params / 1e6:.2f} M",
            f"{each.gmacs:.2f}",
            each.input_size,
            each.licence or "?",
            "yes" if each.offline else "no",
        )
        for each in found
    )
    table(columns, rows)
