"""The benchmark itself: prepare the datasets, measure the cells, keep what is known after each."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tdmr
from tdmr import api
from tdmr.config import Baseline, DistillOptions, ExportOptions
from tdmr.errors import DiskFullError, OptionsError, TdmrError
from tdmr.jobdir import ProgressLine
from tdmr.suite import sources
from tdmr.suite.plan import FOUNDATIONS, RECIPES, SEEDS, SHOTS, STUDENTS, Cell, cells, options_for
from tdmr.suite.prepare import OnWork, Shots, few_shot, ignore, prepare
from tdmr.suite.results import METHODS, Results, Run

BASELINES: tuple[Baseline, ...] = ("probe", "scratch", "kd")
NO_FORMATS = ExportOptions(formats=())  # students aren't kept
OnProgress = Callable[[ProgressLine], None] | None
Watching = Callable[[Cell, int, int], AbstractContextManager[OnProgress]]


@contextmanager
def unwatched(cell: Cell, number: int, total: int) -> Iterator[OnProgress]:
    """Show nothing of cell `number` of `total`."""
    yield None


@dataclass(frozen=True)
class Request:
    """What to measure, on which data (`data` keeps downloads, datasets and features), and where to.

    `overrides` are options in the form of DistillOptions, laid over every dataset's recipe. Two
    processes may share `data`, but not `out`.
    """

    data: Path
    out: Path
    datasets: list[str] = field(default_factory=lambda: list(RECIPES))
    foundations: list[str] = field(default_factory=lambda: list(FOUNDATIONS))
    students: list[str] = field(default_factory=lambda: list(STUDENTS))
    shots: list[Shots] = field(default_factory=lambda: list(SHOTS))
    seeds: int = SEEDS
    download: bool = False
    device: str = "auto"
    overrides: dict[str, Any] = field(default_factory=dict)


def plan(request: Request) -> tuple[Results, list[Cell]]:
    """What is already known, and the cells that are left to measure.

    Raises OptionsError, UnknownModelError or pydantic.ValidationError before any work is done.
    """
    if "seed" in request.overrides:
        raise OptionsError("The seed belongs to the cell.", suggestion="Give --seeds instead.")
    for name in request.datasets:
        sources.require(name)
    planned = cells(
        request.datasets, request.foundations, request.students, request.shots, request.seeds
    )
    for cell in planned:
        options_for(cell, request.overrides)
    results = Results.read(request.out)
    return results, results.remaining(planned, request.overrides)


def gather(request: Request, left: Iterable[Cell], on_work: OnWork = ignore) -> dict[str, Path]:
    """The dataset folder of every dataset in `left`, by name.

    Raises DatasetError and DownloadError as `prepare` does.
    """
    return {
        name: prepare(
            sources.require(name), request.data, download=request.download, on_work=on_work
        )
        for name in dict.fromkeys(cell.dataset for cell in left)
    }


def run(
    request: Request,
    results: Results,
    left: Sequence[Cell],
    folders: Mapping[str, Path],
    watching: Watching = unwatched,
) -> Results:
    """Measure the cells `left` and add them to `results`; give all of them.

    The file is replaced after each cell, so that an interrupted run loses at most one. A cell that
    ends in a TdmrError is recorded as failed and the next one goes on; a full disk ends the run
    with DiskFullError.
    """
    for number, cell in enumerate(left, 1):
        try:
            with watching(cell, number, len(left)) as on_progress:
                measured = measure(cell, folders[cell.dataset], request, on_progress)
        except DiskFullError:
            raise
        except TdmrError as error:
            results = results.with_failure(cell, str(error))
        else:
            results = results.with_run(measured)
        results.write(request.out)
    return results


def measure(
    cell: Cell,
    dataset: Path,
    request: Request,
    on_progress: OnProgress = None,
) -> Run:
    """Distil one cell with all baselines; the student itself isn't kept."""
    options = options_for(cell, request.overrides)
    data = few_shot(dataset, cell.shots, cell.seed)
    with tempfile.TemporaryDirectory(dir=request.data, prefix=".run-") as folder:
        metrics = api.distill(
            data,
            foundation=cell.foundation,
            student=cell.student,
            out=Path(folder) / "bundle",
            options=options.model_copy(update={"exports": NO_FORMATS, "audit": False}),
            baselines=BASELINES,
            cache=request.data / "cache",
            device=request.device,
            on_progress=on_progress,
        ).metrics
    return _as_run(cell, options, metrics, request.device)


def _as_run(cell: Cell, options: DistillOptions, metrics: dict[str, Any], device: str) -> Run:
    ours = {**metrics, "seconds": metrics["seconds"]["total"]}
    rows = {**metrics["baselines"], "tdmr": ours}
    return Run(
        cell=cell,
        options=options,
        accuracy={name: rows[name]["accuracy"] for name in METHODS},
        seconds={name: rows[name]["seconds"] for name in METHODS},
        forwards=metrics["foundation"]["forwards"],
        train_images=metrics["dataset"]["train_images"],
        test_images=metrics["images"],
        dataset_version=metrics["dataset"]["version"],
        tdmr=tdmr.__version__,
        machine=machine(device),
    )


def machine(device: str) -> str:
    """What a cell was measured on."""
    # The recipe has loaded it by now; this module must not.
    import torch

    names_gpu = torch.cuda.is_available() and device != "cpu"
    index = int(device.partition(":")[2] or 0) if device.startswith("cuda") else 0
    chip = torch.cuda.get_device_name(index) if names_gpu else platform.machine()
    return f"{chip}, {platform.system()}, torch {torch.__version__}"
