"""`tdmr bench`: the standard suite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tdmr.commands.shared import ENDED_BADLY, WRONG_USE


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
    from pydantic import ValidationError

    from tdmr.commands.bars import StageBars, console
    from tdmr.errors import TdmrError
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
            bar=StageBars,
        )
    except (TdmrError, ValidationError, OSError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(WRONG_USE) from error
    raise typer.Exit(ENDED_BADLY if results.failed else 0)
