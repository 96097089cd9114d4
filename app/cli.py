"""The `tdmr-server` command: serve, and manage access keys."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from app import audit, heap, logs, migrate
from app import serve as serving
from app.access import keys
from app.access.scopes import ALL, Scope
from app.api import docs
from app.audit import Act
from app.dashboard.mount import attach
from app.dashboard.paths import PATH
from app.datasets import resumable
from app.datasets import service as datasets
from app.db import Database
from app.errors import ConflictError, NotFoundError, UnavailableError
from app.jobs import fleet
from app.main import create_app
from app.models import ApiKey
from app.settings import Settings
from app.storage import gate, open_storage
from tdmr import spans
from tdmr.config import MAX_DEVICES

FIRST_OWNER = "owner"
# What takes seconds never waits behind a training.
EMBEDDED_WORKERS = (("distil",), ("ingest", "model", "package"))

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
    devices: Annotated[
        int, typer.Option(min=1, max=MAX_DEVICES, help="GPUs that one job may train on at once.")
    ] = 1,
    dashboard: Annotated[bool, typer.Option(help="Serve the pages for people as well.")] = True,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write address, key and pid there, as JSON, once serving.")
    ] = None,
) -> None:
    """Serve the API, by default with workers beside it."""
    if wrong := fleet.contradiction(device, devices):
        raise typer.BadParameter(wrong)
    heap.share()
    logs.set_up()
    settings = _settings(data)
    if obstacles := gate.obstacles(settings):
        typer.echo("The store of files won't do:\n" + "\n".join(obstacles), err=True)
        raise typer.Exit(1)
    try:
        listening = serving.listen(host, port)
    except OSError as error:
        typer.echo(f"Can't listen on {host}:{port}: {error.strerror}.", err=True)
        raise typer.Exit(1) from error
    address = serving.address_of(listening)
    # Only now: a key that is made for a server that can't start would never be seen.
    token = _first_key(settings, open_to_others=not serving.is_loopback(host))

    def on_ready() -> None:
        _greet(address, token, dashboard=dashboard)
        if ready_file is not None:
            serving.write_ready_file(ready_file, address, token)

    spans.send(settings.otlp_endpoint, "tdmr-server")
    _tidy(settings)
    children: list[serving.Worker] = []
    if worker and settings.broker_url is None:
        environment = {**os.environ, "TDMR_DATA_DIR": str(settings.data_dir.resolve())}
        for kinds in EMBEDDED_WORKERS:
            command = serving.worker_command(device, devices, kinds)
            children.append(serving.Worker(command, environment))
            children[-1].start()
    try:
        app = create_app(settings)
        served = attach(app) if dashboard else app
        closing = app.state.core.watch.close
        serving.run(served, listening, on_ready, closing, settings.trusted_proxies)
    finally:
        for child in children:
            child.stop()
        spans.end()


@cli.command("migrate")
def bring_up_to_date(
    lock_seconds: Annotated[
        float, typer.Option(min=0.001, help="Longest wait for a table that others use.")
    ] = migrate.LOCK_SECONDS,
    data: DataOption = None,
) -> None:
    """Bring the database to the newest schema; servers may go on meanwhile."""
    _migrate(_settings(data), lock_seconds)
    typer.echo("The database has the newest schema.")


@cli.command("check-storage")
def check_storage(data: DataOption = None) -> None:
    """Try out what the store of files can do, and say it."""
    found = gate.findings(_settings(data))
    for line, _ in found:
        typer.echo(line)
    raise typer.Exit(1 if any(bad for _, bad in found) else 0)


@cli.command()
def openapi() -> None:
    """Print the API's description, as docs/openapi.json has it."""
    with tempfile.TemporaryDirectory() as folder:
        typer.echo(docs.text(create_app(Settings(data_dir=Path(folder)))), nl=False)


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
    with _changing(_settings(data), "create_api_key") as (session, act):
        key, token = keys.create(
            session, owner=owner, name=name, scopes=scope or ALL, expires_at=expires_at
        )
        _tell(session, act, key)
    typer.echo(f"{key.id} {token}")


@keys_cli.command("list")
def list_keys(data: DataOption = None) -> None:
    """Every key: id, owner, name, state and scopes. The keys themselves aren't kept."""
    with _database(_settings(data)) as database, database.read() as session:
        for key in keys.every(session):
            state = "revoked" if key.revoked_at else "live"
            if key.expires_at is not None:
                state += f" until {key.expires_at:%Y-%m-%d}"
            used = f"{key.last_used_at:used %Y-%m-%d}" if key.last_used_at else "never used"
            scopes = ",".join(key.scopes)
            typer.echo(f"{key.id}  {key.owner}  {key.name}  {state}  {scopes}  {used}")


@keys_cli.command("revoke")
def revoke_key(key_id: str, data: DataOption = None) -> None:
    """Take a key back, for good."""
    with _changing(_settings(data), "revoke_api_key") as (session, act):
        _tell(session, act, keys.revoke(session, key_id))
    typer.echo(f"{key_id} is revoked.")


@keys_cli.command("rotate")
def rotate_key(
    key_id: str,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=168, help="For so long the old key works, too.")
    ] = 24,
    data: DataOption = None,
) -> None:
    """Replace a key by one like it, and print the new one: it can't be shown again."""
    with _changing(_settings(data), "rotate_api_key") as (session, act):
        old = keys.known(session, key_id, lock=True)
        new, token = keys.rotate(session, old, timedelta(hours=overlap_hours))
        _tell(session, act, old, replaced_by=new.id)
    typer.echo(f"{new.id} {token}")


@contextmanager
def _changing(settings: Settings, action: str) -> Iterator[tuple[Session, Act]]:
    """A transaction that the audit log tells of: the operator's, at this machine."""
    act = Act(owner="", action=action)
    try:
        with audit.acting(act), _database(settings) as database, database.write() as session:
            yield session, act
    except (NotFoundError, ConflictError) as error:
        typer.echo(error.detail, err=True)
        raise typer.Exit(1) from error


def _tell(session: Session, act: Act, key: ApiKey, **details: str) -> None:
    act.owner = key.owner
    audit.about(session, "key", key.id, **details)


def _settings(data: Path | None) -> Settings:
    settings = Settings() if data is None else Settings(data_dir=data)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return settings


def _migrate(settings: Settings, lock_seconds: float = migrate.LOCK_SECONDS) -> None:
    try:
        migrate.upgrade(settings.url, lock_seconds=lock_seconds)
    except UnavailableError as error:
        typer.echo(error.detail, err=True)
        raise typer.Exit(1) from error


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    """The database, at its newest schema."""
    _migrate(settings)
    database = Database.of(settings, "tdmr-command")
    database.before_commit = audit.note
    try:
        yield database
    finally:
        database.close()


def _first_key(settings: Settings, *, open_to_others: bool) -> str | None:
    """A key for whoever starts the service the first time; None when there are keys already."""
    with _changing(settings, "create_api_key") as (session, act):
        if keys.any_live(session):
            audit.nothing(session)
            return None
        if open_to_others:
            typer.echo(
                "Listening beyond this machine needs an access key first: "
                "tdmr-server keys create --owner NAME",
                err=True,
            )
            raise typer.Exit(1)
        key, token = keys.create(session, owner=FIRST_OWNER, name="first", scopes=ALL)
        _tell(session, act, key)
        return token


def _tidy(settings: Settings) -> None:
    """Remove what an earlier server left half-made when it was killed."""
    storage = open_storage(settings)
    storage.forget_staged(datasets.DAY)
    with _database(settings) as database:
        resumable.forget(database, storage)
        with database.read() as session:
            datasets.forget_orphans(session, storage)


def _greet(address: str, token: str | None, *, dashboard: bool) -> None:
    pages = f"for people: {address}{PATH}, " if dashboard else ""
    typer.echo(f"TDMR serves {address} ({pages}all routes: {address}/docs)")
    if token is None:
        typer.echo("Access key: as before. Make another: tdmr-server keys create")
    else:
        typer.echo(f"Access key, shown this once: {token}")
