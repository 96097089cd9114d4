"""The `tdmr` command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from tdmr import api, catalog
from tdmr.config import Baseline, DistillOptions
from tdmr.errors import TdmrError
from tdmr.jobdir import ProgressLine

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Distil a frozen vision foundation model into a small student for your classes.",
)
console = Console(stderr=True)


@app.callback()
def main() -> None:
    """Distil a frozen vision foundation model into a small student for your classes."""


@app.command()
def distill(
    data: Annotated[Path, typer.Option(help="Folder of class folders.")],
    foundation: Annotated[str, typer.Option(help="timm name, letters_vit, or local-dir:FOLDER.")],
    student: Annotated[str, typer.Option(help="timm name of the small model.")],
    out: Annotated[Path, typer.Option(help="New folder for the bundle.")],
    options: Annotated[str, typer.Option(help="JSON, or @FILE with JSON.")] = "{}",
    baseline: Annotated[list[str] | None, typer.Option(help="scratch, probe, kd; repeat.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where features are kept.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:N.")] = "auto",
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
                on_progress=bar.show,
            )
    except (TdmrError, ValidationError, OSError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(2) from error
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


@app.command(hidden=True)
def run(
    job_dir: Path,
    device: Annotated[str, typer.Option()] = "auto",
    cache: Annotated[Path | None, typer.Option()] = None,
) -> None:
    """Run the job in JOB_DIR: what a worker starts."""
    from tdmr import lifeline

    lifeline.hold()
    raise typer.Exit(api.run_job(job_dir, device=device, cache=cache or job_dir / "cache"))


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
        return api.BASELINES
    for name in names:
        if name not in api.BASELINES:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(api.BASELINES)}")
    return tuple(names)  # type: ignore[arg-type] # checked above
