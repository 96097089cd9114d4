"""`tdmr models`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdmr.commands.shared import (
    ENDED_BADLY,
    AsJson,
    Limit,
    Permanently,
    connected,
    deleted,
    document,
    facts,
    list_findings,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tdmr.catalog import CatalogEntry
    from tdmr.client import Model
    from tdmr.wire.models import ModelOut

app = typer.Typer(invoke_without_command=True)
ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="A model's id: mod_…")]
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
def list_(
    role: Role = None,
    own: Annotated[bool, typer.Option("--own", help="Those that you have uploaded.")] = False,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List the models that the server recommends, or your own."""
    if own and role is not None:
        raise typer.BadParameter("--own models are foundations: --role has no use")
    with connected() as client:
        mine = list(islice(client.own_models(), limit)) if own else []
        found = [] if own else list(client.models(_checked(role)))
    if as_json:
        document(mine or found)
    elif own:
        rows = ((m.id, m.name, m.architecture, m.status, f"{m.bytes:,}") for m in mine)
        table(("model", "name", "architecture", "status", "bytes"), rows)
    else:
        _table(found)


@app.command()
def upload(
    weights: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A safetensors file.")
    ],
    architecture: Annotated[
        str, typer.Option(help="The timm model that they are of, with or without a tag.")
    ],
    name: Annotated[str | None, typer.Option(help="Yours; else that of the file.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights, for model cards.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until they are checked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send weights of your own to the server, to be a foundation."""
    from tdmr.commands.bars import ByteBars

    with connected() as client, ByteBars() as bars:
        found = client.upload_model(
            weights,
            architecture,
            name or weights.stem,
            licence=licence,
            on_progress=bars.bar("sent"),
        )
        if wait:
            found = found.wait()
    _show(found, as_json)


@app.command()
def show(model_id: ModelId, as_json: AsJson = False) -> None:
    """Show a model of your own: its state, its size, and what its check found."""
    with connected() as client:
        found = client.model(model_id)
    _show(found, as_json)


@app.command()
def delete(model_id: ModelId, permanently: Permanently = False, as_json: AsJson = False) -> None:
    """Delete a model of your own that no job needs; for a while `restore` brings it back."""
    with connected() as client:
        client.delete_model(model_id, permanently=permanently)
    deleted(model_id, as_json)


@app.command()
def restore(model_id: ModelId, as_json: AsJson = False) -> None:
    """Bring a deleted model back."""
    with connected() as client:
        _show(client.restore_model(model_id), as_json)


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


def _show(found: Model, as_json: bool) -> None:
    """Print a model of one's own, and end with its exit code."""
    if as_json:
        document(found)
    else:
        facts(
            ("model", found.id),
            ("name", found.name),
            ("architecture", found.architecture),
            ("status", found.status),
            ("licence", found.licence),
            ("parameters", found.params and f"{found.params:,}"),
            ("pixels", found.input_size),
            ("SHA-256", found.sha256),
        )
        list_findings(found.findings)
    if found.status == "invalid":
        raise typer.Exit(ENDED_BADLY)


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
