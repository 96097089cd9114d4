"""The `tdmr-server` command: serve, and manage access keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from app import logs, migrate
from app import serve as serving
from app.access import keys
from app.access.scopes import ALL, Scope
from app.datasets import resumable
from app.datasets import service as datasets
from app.db import Database
from app.errors import NotFoundError
from app.main import create_app
from app.settings import Settings
from app.storage import LocalStorage

FIRST_OWNER = "owner"
# What takes seconds never waits behind a training.
EMBEDDED_WORKERS = (("distil",), ("ingest", "package"))

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
keys_cli = typer.Typer(no_args_is_help=True, help="Access keys.")
cli.add_typer(keys_cli, name="keys")

DataOption = Annotated[Path | None, typer.Option("--data", help="Folder for everything stored.")]


@cli.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8080,
    data: DataOption = None,
    worker: Annotated[bool, typer.Option(help="Run workers beside the server.")] = True,
    device: Annotated[str, typer.Option(help="Where that worker trains.")] = "cpu",
    ready_file: Annotated[
        Path | None, typer.Option(help="Write address, key and pid there, as JSON, once serving.")
    ] = None,
) -> None:
    """Serve the API, by default with workers beside it."""
    logs.set_up()
    settings = _settings(data)
    try:
        listening = serving.listen(host, port)
    except OSError as error:
        typer.echo(f"Can't listen on {host}:{port}: {error.strerror}.", err=True)
        raise typer.Exit(1) from error
    address = serving.address_of(listening)
    # Only now: a key that is made for a server that can't start would never be seen.
    token = _first_key(settings, open_to_others=not serving.is_loopback(host))

    def on_ready() -> None:
        _greet(address, token)
        if ready_file is not None:
            serving.write_ready_file(ready_file, address, token)

    _tidy(settings)
    children: list[serving.Worker] = []
    if worker and settings.broker_url is None:
        environment = {**os.environ, "TDMR_DATA_DIR": str(settings.data_dir.resolve())}
        for kinds in EMBEDDED_WORKERS:
            children.append(serving.Worker(serving.worker_command(device, kinds), environment))
            children[-1].start()
    try:
        app = create_app(settings)
        serving.run(app, listening, on_ready, app.state.core.watch.close)
    finally:
        for child in children:
            child.stop()


@keys_cli.command("create")
def create_key(
    owner: Annotated[str, typer.Option(help="Whose things the key opens.")] = FIRST_OWNER,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "unnamed",
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it allows; repeat. Without: everything.")
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
    data: DataOption = None,
) -> None:
    """Make a key and print it: it can't be shown again."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with _database(_settings(data)) as database, database.write() as session:
        key, token = keys.create(
            session, owner=owner, name=name, scopes=scope or ALL, expires_at=expires_at
        )
    typer.echo(f"{key.id} {token}")


@keys_cli.command("list")
def list_keys(data: DataOption = None) -> None:
    """Every key: id, owner, name, state and scopes. The keys themselves aren't kept."""
    with _database(_settings(data)) as database, database.read() as session:
        for key in keys.every(session):
            state = "revoked" if key.revoked_at else "live"
            if key.expires_at is not None:
                state += f" until {key.expires_at:%Y-%m-%d}"
            typer.echo(f"{key.id}  {key.owner}  {key.name}  {state}  {','.join(key.scopes)}")


@keys_cli.command("revoke")
def revoke_key(key_id: str, data: DataOption = None) -> None:
    """Take a key back, for good."""
    try:
        with _database(_settings(data)) as database, database.write() as session:
            keys.revoke(session, key_id)
    except NotFoundError as error:
        typer.echo(error.detail, err=True)
        raise typer.Exit(1) from error
    typer.echo(f"{key_id} is revoked.")


def _settings(data: Path | None) -> Settings:
    settings = Settings() if data is None else Settings(data_dir=data)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    """The database, at its newest schema."""
    migrate.upgrade(settings.url)
    database = Database(settings.url)
    try:
        yield database
    finally:
        database.close()


def _first_key(settings: Settings, *, open_to_others: bool) -> str | None:
    """A key for whoever starts the service the first time; None when there are keys already."""
    with _database(settings) as database, database.write() as session:
        if keys.any_live(session):
            return None
        if open_to_others:
            typer.echo(
                "Listening beyond this machine needs an access key first: "
                "tdmr-server keys create --owner NAME",
                err=True,
            )
            raise typer.Exit(1)
        _, token = keys.create(session, owner=FIRST_OWNER, name="first", scopes=ALL)
        return token


def _tidy(settings: Settings) -> None:
    """Remove what an earlier server left half-made when it was killed."""
    storage = LocalStorage(settings.storage_dir)
    storage.forget_staged(datasets.DAY)
    with _database(settings) as database:
        resumable.forget(database, storage)
        with database.read() as session:
            datasets.forget_orphans(session, storage)


def _greet(address: str, token: str | None) -> None:
    typer.echo(f"TDMR serves {address} (what there is: {address}/docs)")
    if token is None:
        typer.echo("Access key: as before. Make another: tdmr-server keys create")
    else:
        typer.echo(f"Access key, shown this once: {token}")
