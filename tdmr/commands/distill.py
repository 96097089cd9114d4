"""`tdmr distill`: on this machine, with no server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdmr.commands.shared import WRONG_USE

if TYPE_CHECKING:
    from rich.table import Table

    from tdmr.config import Baseline

CHECKPOINT_HELP = "Folder to go on from after an interruption."
FOUNDATION_HELP = "timm name, bundled letters_*, local-dir:FOLDER, safetensors:ARCHITECTURE@FILE."
BASELINE_HELP = "scratch, probe, kd, kd_online, fitnet, simkd, aft, rd; repeat."


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
    from pydantic import ValidationError

    from tdmr import api
    from tdmr.commands.bars import StageBars, console
    from tdmr.config import DistillOptions
    from tdmr.errors import TdmrError

    try:
        text = Path(options[1:]).read_text() if options.startswith("@") else options
        with StageBars() as bars:
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
                on_progress=bars.show,
            )
    except (TdmrError, ValidationError, OSError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(WRONG_USE) from error
    if not result.reports:
        return
    if as_json:
        typer.echo(json.dumps(result.metrics))
    else:
        console.print(table(result.metrics))
        console.print(f"Bundle: {result.bundle}")


def _baselines(names: list[str] | None) -> tuple[Baseline, ...]:
    from tdmr import config

    if names is None:
        return config.DEFAULT_BASELINES
    for name in names:
        if name not in config.BASELINES:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(config.BASELINES)}")
    return tuple(names)  # type: ignore[arg-type] # checked above


def table(metrics: dict[str, object]) -> Table:
    """The student beside its baselines."""
    from rich.table import Table

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
