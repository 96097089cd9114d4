"""The `tdmr-worker` command."""

from __future__ import annotations

import os
import signal
from typing import Annotated

import typer

from app import logs
from app.settings import Settings
from tdmr import lifeline
from worker.launch import Child
from worker.pipeline import Launch
from worker.station import Station

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@cli.command()
def main(
    device: Annotated[str, typer.Option(help="Where jobs train: auto, cpu or cuda:N.")] = "auto",
    kind: Annotated[list[str] | None, typer.Option(help="Only jobs of this kind; repeat.")] = None,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is due.")] = False,
    celery: Annotated[
        bool, typer.Option("--celery", help="Hear bells from TDMR_BROKER_URL too.")
    ] = False,
) -> None:
    """Run jobs: one at a time, each in a process of its own."""
    settings = Settings()
    if celery and settings.broker_url is None:
        raise typer.BadParameter("--celery needs TDMR_BROKER_URL")
    serve(settings, device=device, only=kind, once=once, celery=celery)


def serve(
    settings: Settings,
    *,
    device: str = "cpu",
    only: list[str] | None = None,
    once: bool = False,
    celery: bool = False,
    launch: Launch = Child,
) -> None:
    """Work until told to stop; `launch` starts a job's process."""
    logs.set_up()
    station = Station(settings, device=device, only=only, launch=launch)

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
