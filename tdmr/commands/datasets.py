"""`tdmr datasets`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdmr.commands.shared import (
    ENDED_BADLY,
    WRONG_USE,
    AsJson,
    Limit,
    Permanently,
    connected,
    deleted,
    document,
    facts,
    fail,
    list_findings,
    plain,
    table,
)

if TYPE_CHECKING:
    from tdmr.client import Dataset

app = typer.Typer(no_args_is_help=True, help="Upload images, and see what was found.")
DatasetId = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset's id: ds_…")]
PIECES_FROM = 8 << 20  # bytes from which on there is something to see on a bar


@app.command()
def upload(
    source: Annotated[
        Path, typer.Argument(exists=True, help="An archive, or a folder of class folders.")
    ],
    name: Annotated[str | None, typer.Option(help="Yours; else that of the file.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it's checked.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send images to the server. A folder is packed first; what breaks off goes on."""
    from tdmr.commands.bars import ByteBars

    with connected() as client, ByteBars() as bars:
        try:
            found = client.upload_dataset(
                source,
                name,
                on_progress=bars.bar("sent"),
                on_packed=bars.bar("packed"),
                resumable_from=PIECES_FROM,
            )
        except ValueError as error:
            if source.is_file():
                raise
            fail(WRONG_USE, error)
        if wait:
            found = found.wait()
    _show(found, as_json)


@app.command("list")
def list_(limit: Limit = 20, as_json: AsJson = False) -> None:
    """List your datasets, the newest first."""
    with connected() as client:
        found = list(islice(client.datasets(), limit))
    if as_json:
        document(found)
        return
    rows = ((d.id, d.name, d.status, f"{d.upload_bytes:,}", d.created_at) for d in found)
    table(("dataset", "name", "status", "bytes", "uploaded"), rows)


@app.command()
def show(dataset_id: DatasetId, as_json: AsJson = False) -> None:
    """Show a dataset: its state, its classes, its splits."""
    with connected() as client:
        found = client.dataset(dataset_id)
    _show(found, as_json)


@app.command()
def report(dataset_id: DatasetId, as_json: AsJson = False) -> None:
    """Show every finding of a dataset's check, and what an audit found."""
    with connected() as client:
        found = client.report(dataset_id)
    if as_json:
        document(found)
    else:
        list_findings(found.findings)
        if found.audit is not None:
            for name, count in found.audit.counts.items():
                typer.echo(f"audit: {count} {name}")
            typer.echo(
                f"--json has the images; the foundation was {plain(found.audit.foundation)}."
            )
        elif not found.findings:
            typer.echo(f"{dataset_id} is {found.status}; nothing was found.")
    if found.status == "invalid":
        raise typer.Exit(ENDED_BADLY)


@app.command()
def delete(
    dataset_id: DatasetId, permanently: Permanently = False, as_json: AsJson = False
) -> None:
    """Delete a dataset that no job needs; for a while `restore` brings it back."""
    with connected() as client:
        client.delete_dataset(dataset_id, permanently=permanently)
    deleted(dataset_id, as_json)


@app.command()
def restore(dataset_id: DatasetId, as_json: AsJson = False) -> None:
    """Bring a deleted dataset back."""
    with connected() as client:
        _show(client.restore_dataset(dataset_id), as_json)


def _show(found: Dataset, as_json: bool) -> None:
    """Print a dataset, and end with its exit code."""
    if as_json:
        document(found)
    else:
        classes = ", ".join(f"{each.name} ({each.images})" for each in found.classes or ())
        splits = {name: sum(counts.values()) for name, counts in (found.splits or {}).items()}
        facts(
            ("dataset", found.id),
            ("name", found.name),
            ("status", found.status),
            ("classes", classes),
            ("images", ", ".join(f"{count} {name}" for name, count in splits.items())),
        )
        list_findings(found.findings)
    if found.status == "invalid":
        raise typer.Exit(ENDED_BADLY)
