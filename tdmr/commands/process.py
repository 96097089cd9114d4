"""What a worker starts as a process of its own: hidden, see `tdmr.jobdir`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

JOB_DIR_HELP = "What a worker has filled (see tdmr.jobdir)."
DEVICE_HELP = "auto, cpu or cuda:N."
CACHE_HELP = "Where features and decoded images are kept; JOB_DIR/cache unless given."
NO_PACKAGE_HELP = "Leave what was trained in out/, for `package`."


def run(
    job_dir: Annotated[Path, typer.Argument(help=JOB_DIR_HELP)],
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    cache: Annotated[Path | None, typer.Option(help=CACHE_HELP)] = None,
    checkpoint_seconds: Annotated[
        float | None, typer.Option(min=0, help="Time between two checkpoints.")
    ] = None,
    no_package: Annotated[bool, typer.Option("--no-package", help=NO_PACKAGE_HELP)] = False,
) -> None:
    """Run the job in JOB_DIR, or go on with it; out/ is the bundle.

    On SIGTERM it stops behind a checkpoint and ends with status 75.
    """
    from tdmr import process
    from tdmr.jobdir import CHECKPOINT_SECONDS

    status = process.run_job(
        job_dir,
        device=device,
        cache=cache or job_dir / "cache",
        package=not no_package,
        stopping=_stoppable(),
        checkpoint_seconds=CHECKPOINT_SECONDS if checkpoint_seconds is None else checkpoint_seconds,
    )
    raise typer.Exit(status)


def package(
    job_dir: Annotated[Path, typer.Argument(help=JOB_DIR_HELP)],
    cache: Annotated[Path | None, typer.Option(help=CACHE_HELP)] = None,
) -> None:
    """Make the bundle, in out/, of what `run --no-package` left and now is in trained/.

    JOB_DIR needs the dataset beside it, in data/, and neither config.json nor the foundation.
    """
    from tdmr import process

    status = process.package_job(job_dir, cache=cache or job_dir / "cache", stopping=_stoppable())
    raise typer.Exit(status)


def rescue(
    job_dir: Annotated[Path, typer.Argument(help=JOB_DIR_HELP)],
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    cache: Annotated[Path | None, typer.Option(help=CACHE_HELP)] = None,
    no_package: Annotated[bool, typer.Option("--no-package", help=NO_PACKAGE_HELP)] = False,
) -> None:
    """Take the student of a stopped `run` out of JOB_DIR/checkpoint, and measure it.

    Nothing is trained; out/ is a bundle whose metrics.json says in `partial` how far it had come.
    """
    from tdmr import process

    status = process.rescue_job(
        job_dir,
        device=device,
        cache=cache or job_dir / "cache",
        package=not no_package,
        stopping=_stoppable(),
    )
    raise typer.Exit(status)


def check_model(
    job_dir: Annotated[Path, typer.Argument(help=JOB_DIR_HELP)],
) -> None:
    """Check whether the model in JOB_DIR/models can be a foundation; out/ has a report."""
    from tdmr import check_model, lifeline

    lifeline.hold()
    raise typer.Exit(check_model.check_model(job_dir))


def latency(
    model: Annotated[str, typer.Argument(help="A student of the catalog.")],
    size: Annotated[int, typer.Option(min=1, help="Side of its images in pixels.")],
    runs: Annotated[int, typer.Option(min=20, help="Single images to time.")] = 200,
) -> None:
    """Measure a student of that architecture, untrained, as ONNX on the CPU; print it as JSON."""
    from tdmr import api, catalog, lifeline
    from tdmr.commands.bars import console
    from tdmr.errors import TdmrError

    lifeline.hold()
    try:
        catalog.require(model, "student")
        api.load_recipe()
        from tdmr.export import latency as measuring

        found = measuring.measure(model, size, runs)
    except TdmrError as error:
        console.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    typer.echo(json.dumps(found))


def _stoppable() -> Callable[[], bool]:
    """End when the parent does; whether SIGTERM has asked to stop."""
    from tdmr import lifeline, process

    lifeline.hold()
    return process.told_to_stop()
