"""The `tdmr-worker` command."""

from __future__ import annotations

import os
import signal
import socket
from typing import Annotated

import structlog
import typer

from app import logs
from app.db import Database
from app.jobs import fleet
from app.settings import Settings
from app.storage import gate
from tdmr import catalog, lifeline, spans
from tdmr.config import MAX_DEVICES
from worker import measure as measuring
from worker.kinds import KINDS
from worker.launch import Child
from worker.pipeline import Launch
from worker.station import Station

log = structlog.get_logger(__name__)
cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    device: Annotated[
        str, typer.Option(help="Where jobs train: auto, cpu, cuda or cuda:N.")
    ] = "auto",
    devices: Annotated[
        int, typer.Option(min=1, max=MAX_DEVICES, help="GPUs that one job may train on at once.")
    ] = 1,
    queue: Annotated[
        list[str] | None, typer.Option(help="Only jobs of this queue; repeat.")
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only jobs of this kind; repeat.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is due.")] = False,
    celery: Annotated[
        bool, typer.Option("--celery", help="Hear bells from TDMR_BROKER_URL too.")
    ] = False,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve /metrics there; 0: any free port.")
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="Address for that; whoever reaches it may read.")
    ] = "127.0.0.1",
) -> None:
    """Run jobs on one device or several: one at a time, each in a process of its own."""
    if context.invoked_subcommand is not None:
        return
    settings = Settings()
    if celery and settings.broker_url is None:
        raise typer.BadParameter("--celery needs TDMR_BROKER_URL")
    for name in kind or ():
        if name not in KINDS:
            raise typer.BadParameter(f"--kind takes {', '.join(KINDS)}, not {name!r}")
    for name in queue or ():
        if name not in settings.queues:
            raise typer.BadParameter(f"TDMR_QUEUES has {list(settings.queues)}, not {name!r}")
    if wrong := fleet.contradiction(device, devices):
        raise typer.BadParameter(wrong)
    scraped = None if metrics_port is None else (metrics_host, metrics_port)
    serve(
        settings,
        device=device,
        devices=devices,
        queues=queue,
        kinds=kind,
        once=once,
        celery=celery,
        scraped=scraped,
    )


@cli.command()
def measure(
    models: Annotated[
        list[str] | None, typer.Option(help="Only this student of the catalog; repeat.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, the only one so far.")] = "cpu",
    runs: Annotated[int, typer.Option(min=20, help="Single images to time of each.")] = 200,
    again: Annotated[
        bool, typer.Option("--again", help="Those, too, that were measured here before.")
    ] = False,
) -> None:
    """Measure how fast the catalog's students are on this machine, for recommendations."""
    entries = {entry.name: entry for entry in catalog.entries("student")}
    for name in models or ():
        if name not in entries:
            raise typer.BadParameter(f"--models takes {', '.join(entries)}, not {name!r}")
    if device != "cpu":
        raise typer.BadParameter(f"--device takes cpu, not {device!r}")
    settings = Settings()
    database = Database.of(settings, "tdmr-measure")
    chosen = [entries[name] for name in models or entries]
    failed = measuring.measure(database, measuring.Plan(chosen, runs, again), typer.echo)
    database.close()
    raise typer.Exit(1 if failed else 0)


@cli.command()
def healthy() -> None:
    """Whether a worker of this host was heard of in the last lease; the exit status says so."""
    settings = Settings()
    database = Database.of(settings, "tdmr-healthy")
    with database.read() as session:
        there = fleet.present(session, settings.worker_patience)
    database.close()
    here = socket.gethostname()
    raise typer.Exit(0 if any(worker.host == here for worker in there) else 1)


def serve(
    settings: Settings,
    *,
    device: str = "cpu",
    devices: int = 1,
    queues: list[str] | None = None,
    kinds: list[str] | None = None,
    once: bool = False,
    celery: bool = False,
    launch: Launch = Child,
    scraped: tuple[str, int] | None = None,
) -> None:
    """Work until told to stop; `launch` starts a job's process, /metrics is served at `scraped`."""
    logs.set_up()
    if obstacles := gate.obstacles(settings):
        typer.echo("The store of files won't do:\n" + "\n".join(obstacles), err=True)
        raise typer.Exit(1)
    spans.send(settings.otlp_endpoint, "tdmr-worker")
    station = Station(
        settings,
        device=device,
        devices=devices,
        queues=queues or settings.queues,
        kinds=kinds or tuple(KINDS),
        launch=launch,
    )

    if scraped is not None:
        from worker import gauges  # only here: it brings an HTTP server

        log.info("scraped", host=scraped[0], port=gauges.serve(station, *scraped))

    def stop(*_: object) -> None:
        station.stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # A server that started this worker and died has nobody left to stop it.
    lifeline.hold(on_death=lambda: os.kill(os.getpid(), signal.SIGTERM))
    if celery:
        from worker.celery_app import consume  # only here: a poller has no use for Celery

        consume(station)
    else:
        from worker.poller import poll

        poll(station, once=once)
    spans.end()
