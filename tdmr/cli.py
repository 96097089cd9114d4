"""The `tdmr` command."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from tdmr import api, catalog, config, process
from tdmr.config import Baseline, DistillOptions
from tdmr.errors import TdmrError
from tdmr.jobdir import CHECKPOINT_SECONDS, ProgressLine

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil a frozen vision foundation model into a small student for your classes.",
)
console = Console(stderr=True)
CHECKPOINT_HELP = "Folder to go on from after an interruption."
FOUNDATION_HELP = "timm name, bundled letters_*, local-dir:FOLDER, safetensors:ARCHITECTURE@FILE."
JOB_DIR_HELP = "What a worker has filled (see tdmr.jobdir)."
DEVICE_HELP = "auto, cpu or cuda:N."
CACHE_HELP = "Where features and decoded images are kept; JOB_DIR/cache unless given."
NO_PACKAGE_HELP = "Leave what was trained in out/, for `package`."
BASELINE_HELP = f"{', '.join(config.BASELINES)}; repeat."


@app.callback()
def main() -> None:
    """Distil a frozen vision foundation model into a small student for your classes."""


@app.command()
def distill(
    data: Annotated[Path, typer.Option(help="Folder of class folders.")],
    foundation: Annotated[str, typer.Option(help=FOUNDATION_HELP)],
    student: Annotated[str, typer.Option(help="timm name of the small model.")],
    out: Annotated[Path, typer.Option(help="New folder for the bundle.")],
    options: Annotated[str, typer.Option(help="JSON, or @FILE with JSON.")] = "{}",
    baseline: Annotated[list[str] | None, typer.Option(help=BASELINE_HELP)] = None,
    cache: Annotated[Path | None, typer.Option(help="Where features are kept.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    checkpoint: Annotated[Path | None, typer.Option(help=CHECKPOINT_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics as JSON.")] = False,
) -> None:
    """Distil on this machine, with no server."""
    try:
        text = Path(options[1:]).read_text() if options.startswith("@") else options
        with ProgressBar() as bar:
            result = api.distill(
                data,
                foundation=foundation,
                student=student,
                out=out,
                options=DistillOptions.model_validate_json(text),
                baselines=_baselines(baseline),
                cache=cache,
                device=device,
                checkpoint=checkpoint,
                on_progress=bar.show,
            )
    except (TdmrError, ValidationError, OSError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(2) from error
    if not result.reports:
        return
    if as_json:
        typer.echo(json.dumps(result.metrics))
    else:
        console.print(table(result.metrics))
        console.print(f"Bundle: {result.bundle}")


@app.command()
def models(
    role: Annotated[str | None, typer.Option(help="foundation or student.")] = None,
) -> None:
    """List the recommended models."""
    if role not in (None, "foundation", "student"):
        raise typer.BadParameter("must be foundation or student")
    shown = Table("name", "role", "family", "parameters", "GMACs", "pixels", "licence", "offline")
    for entry in catalog.entries(role):  # type: ignore[arg-type] # checked above
        shown.add_row(
            entry.name,
            entry.roles[0],
            entry.family,
            f"{entry.params / 1e6:.2f} M",
            f"{entry.gmacs:.2f}",
            str(entry.input_size),
            entry.licence or "?",
            "yes" if entry.offline else "no",
        )
    Console().print(shown)


@app.command()
def bench(
    suite: Annotated[str, typer.Option(help="standard, the only one so far.")] = "standard",
    data: Annotated[Path, typer.Option(help="Downloads, datasets, features.")] = Path("bench"),
    datasets: Annotated[list[str] | None, typer.Option(help="As pets,cub-200; all 5.")] = None,
    foundations: Annotated[list[str] | None, typer.Option(help="Repeat, or commas.")] = None,
    students: Annotated[list[str] | None, typer.Option(help="Repeat, or commas.")] = None,
    shots: Annotated[list[str] | None, typer.Option(help="Per class: 1,2,5,10,all.")] = None,
    seeds: Annotated[int, typer.Option(help="How many, from 0.")] = 5,
    download: Annotated[bool, typer.Option("--download", help="Fetch what is missing.")] = False,
    out: Annotated[Path, typer.Option(help="Kept up to date; resumed.")] = Path("results.json"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
    options: Annotated[str, typer.Option(help="JSON, or @FILE, over the defaults.")] = "{}",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List cells and cost.")] = False,
) -> None:
    """Measure TDMR and its baselines on CIFAR-100, Flowers-102, Pets, CUB-200 and Food-101.

    tdmr bench --suite standard --datasets pets --shots 10 --download

    Every foundation sees training images x K views once per seed, and the test images for the
    probe. The whole suite is 1,080 cells: about 25 million foundation forwards, 14 million student
    steps, 120 GB on disk and, estimated and not measured, 240 hours on one modern data-centre GPU.
    The line above: 45 cells, about 2 hours. --dry-run tells what your choice costs. It can be
    stopped at any time: finished cells are in --out and aren't run again.
    """
    from tdmr.suite import command

    try:
        results = command.execute(
            command.request(
                suite,
                data=data,
                out=out,
                datasets=datasets,
                foundations=foundations,
                students=students,
                shots=shots,
                seeds=seeds,
                download=download,
                device=device,
                options=options,
            ),
            dry_run=dry_run,
            console=console,
            bar=ProgressBar,
        )
    except (TdmrError, ValidationError, OSError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(2) from error
    raise typer.Exit(1 if results.failed else 0)


@app.command(hidden=True)
def run(
    job_dir: Annotated[Path, typer.Argument(help=JOB_DIR_HELP)],
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    cache: Annotated[Path | None, typer.Option(help=CACHE_HELP)] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="Time between two checkpoints.")
    ] = CHECKPOINT_SECONDS,
    no_package: Annotated[bool, typer.Option("--no-package", help=NO_PACKAGE_HELP)] = False,
) -> None:
    """Run the job in JOB_DIR, or go on with it; out/ is the bundle.

    On SIGTERM it stops behind a checkpoint and ends with status 75.
    """
    status = process.run_job(
        job_dir,
        device=device,
        cache=cache or job_dir / "cache",
        package=not no_package,
        stopping=_stoppable(),
        checkpoint_seconds=checkpoint_seconds,
    )
    raise typer.Exit(status)


@app.command(hidden=True)
def package(
    job_dir: Annotated[Path, typer.Argument(help=JOB_DIR_HELP)],
    cache: Annotated[Path | None, typer.Option(help=CACHE_HELP)] = None,
) -> None:
    """Make the bundle, in out/, of what `run --no-package` left and now is in trained/.

    JOB_DIR needs the dataset beside it, in data/, and neither config.json nor the foundation.
    """
    status = process.package_job(job_dir, cache=cache or job_dir / "cache", stopping=_stoppable())
    raise typer.Exit(status)


@app.command(hidden=True)
def rescue(
    job_dir: Annotated[Path, typer.Argument(help=JOB_DIR_HELP)],
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    cache: Annotated[Path | None, typer.Option(help=CACHE_HELP)] = None,
    no_package: Annotated[bool, typer.Option("--no-package", help=NO_PACKAGE_HELP)] = False,
) -> None:
    """Take the student of a stopped `run` out of JOB_DIR/checkpoint, and measure it.

    Nothing is trained; out/ is a bundle whose metrics.json says in `partial` how far it had come.
    """
    status = process.rescue_job(
        job_dir,
        device=device,
        cache=cache or job_dir / "cache",
        package=not no_package,
        stopping=_stoppable(),
    )
    raise typer.Exit(status)


@app.command(hidden=True)
def latency(
    model: Annotated[str, typer.Argument(help="A student of the catalog.")],
    size: Annotated[int, typer.Option(min=1, help="Side of its images in pixels.")],
    runs: Annotated[int, typer.Option(min=20, help="Single images to time.")] = 200,
) -> None:
    """Measure a student of that architecture, untrained, as ONNX on the CPU; print it as JSON."""
    from tdmr import lifeline

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
    """End when the parent does; whether SIGTERM has asked to stop. The second one ends at once."""
    from tdmr import lifeline

    lifeline.hold()
    asked = threading.Event()

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ask)
    return asked.is_set


def table(metrics: dict[str, object]) -> Table:
    """The student beside its baselines."""
    shown = Table("model", "held-out accuracy", "95 % interval", "seconds")
    baselines = metrics["baselines"]
    seconds = metrics["seconds"]
    assert isinstance(baselines, dict)
    assert isinstance(seconds, dict)
    ours = {**metrics, "seconds": seconds["total"]}
    for name, row in [*baselines.items(), ("tdmr", ours)]:
        low, high = row["interval"]
        shown.add_row(
            name, f"{row['accuracy']:.3f}", f"{low:.3f} to {high:.3f}", f"{row['seconds']:.1f}"
        )
    return shown


class ProgressBar:
    """A bar with stage, loss and time left, fed by progress lines."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, line: ProgressLine) -> None:
        """Draw one line."""
        if line.event == "warning":
            self._progress.print(f"[yellow]warning:[/yellow] {line.message}")
        if line.event != "progress" or line.stage is None:
            return
        name = f"{line.stage.index}/{line.stage.count} {line.stage.name}"
        if name not in self._tasks:
            for task in self._tasks.values():
                self._progress.update(task, completed=1.0)
            self._tasks[name] = self._progress.add_task(name, total=1.0, loss="")
        loss = f"loss {line.losses['loss']:.3f}" if "loss" in line.losses else ""
        self._progress.update(self._tasks[name], completed=line.stage.progress, loss=loss)


def _baselines(names: list[str] | None) -> tuple[Baseline, ...]:
    if names is None:
        return config.DEFAULT_BASELINES
    for name in names:
        if name not in config.BASELINES:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(config.BASELINES)}")
    return tuple(names)  # type: ignore[arg-type] # checked above
