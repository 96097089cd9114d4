"""`tdmr students`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tdmr.commands.shared import (
    AsJson,
    Limit,
    Permanently,
    connected,
    deleted,
    document,
    facts,
    line,
    table,
)

if TYPE_CHECKING:
    from tdmr.client import Student

app = typer.Typer(no_args_is_help=True, help="Look at students, fetch them, and use them.")
StudentId = Annotated[str, typer.Argument(metavar="STUDENT", help="A student's id: stu_…")]


@app.command("list")
def list_(limit: Limit = 20, as_json: AsJson = False) -> None:
    """List your students, the newest first."""
    with connected() as client:
        found = list(islice(client.students(), limit))
    if as_json:
        document(found)
        return
    rows = (
        (s.id, s.architecture, s.foundation, _share(s.accuracy), _partial(s.partial), s.created_at)
        for s in found
    )
    table(("student", "architecture", "foundation", "accuracy", "", "made"), rows)


@app.command()
def show(student_id: StudentId, as_json: AsJson = False) -> None:
    """Show how good a student is, against what, and its files."""
    with connected() as client:
        _show(client.student(student_id), as_json)


def _show(found: Student, as_json: bool) -> None:
    if as_json:
        document(found)
        return
    facts(
        ("student", found.id),
        ("job", found.job_id),
        ("dataset", found.dataset_id),
        ("architecture", found.architecture),
        ("foundation", found.foundation),
        ("parameters", found.params and f"{found.params:,}"),
        ("training", _partial(found.partial)),
    )
    ours = {"accuracy": found.accuracy, "interval": found.interval}
    rows = [*found.baselines.items(), ("tdmr", ours)]
    columns = ("model", "held-out accuracy", "95 % interval")
    table(columns, ((name, _share(row["accuracy"]), _span(row["interval"])) for name, row in rows))
    table(("file", "bytes", "SHA-256"), ((f.name, f"{f.bytes:,}", f.sha256) for f in found.files))


@app.command()
def download(
    student_id: StudentId,
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    as_json: AsJson = False,
) -> None:
    """Fetch every file of a student; what was cut off goes on where it was."""
    from tdmr.commands.bars import ByteBars

    with connected() as client, ByteBars() as bars:
        client.download(student_id, folder, on_progress=bars.bar("fetched"))
    if as_json:
        line({"student_id": student_id, "folder": str(folder.resolve())})
    else:
        typer.echo(f"{student_id} is in {folder}.")


@app.command()
def predict(
    student_id: StudentId,
    images: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Images.")],
    top: Annotated[int, typer.Option(min=1, max=1000, help="Classes for each.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Say what images show, by the student's own ONNX file at the server."""
    with connected() as client:
        found = client.predict(student_id, images, top)
    if as_json:
        named = zip(images, found, strict=True)
        line([{"image": str(path), **row.model_dump(mode="json")} for path, row in named])
        return
    rows = (
        (path, each.name, f"{each.probability:.3f}")
        for path, row in zip(images, found, strict=True)
        for each in row.classes
    )
    table(("image", "class", "probability"), rows)


@app.command()
def delete(
    student_id: StudentId, permanently: Permanently = False, as_json: AsJson = False
) -> None:
    """Delete a student and its files; for a while `restore` brings it back."""
    with connected() as client:
        client.delete_student(student_id, permanently=permanently)
    deleted(student_id, as_json)


@app.command()
def restore(student_id: StudentId, as_json: AsJson = False) -> None:
    """Bring a deleted student back."""
    with connected() as client:
        _show(client.restore_student(student_id), as_json)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _span(interval: list[float] | None) -> str:
    return "" if not interval else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _partial(partial: bool) -> str:
    return "ended early" if partial else ""
