"""The `tdmr` command: the door to `tdmr.commands`."""

from __future__ import annotations

from collections.abc import Callable

import typer

from tdmr.commands import account, bench, datasets, distill, jobs, models, process, students, sweeps
from tdmr.commands.shared import ENDINGS

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback(epilog=ENDINGS)
def main() -> None:
    """Distil a frozen vision foundation model into a small student for your classes.

    `distill` works on this machine; the others ask the server that you logged in to.
    """


GROUPS = {"datasets": datasets, "jobs": jobs, "sweeps": sweeps, "students": students}
for name, group in GROUPS.items():
    app.add_typer(group.app, name=name, epilog=ENDINGS)
app.add_typer(models.app, name="models", epilog=ENDINGS)
SHOWN: tuple[Callable[..., None], ...] = (
    account.login,
    account.logout,
    distill.distill,
    bench.bench,
)
HIDDEN: tuple[Callable[..., None], ...] = (
    process.run,
    process.package,
    process.rescue,
    process.check_model,
    process.latency,
)
for command in SHOWN:
    app.command()(command)
for command in HIDDEN:
    app.command(hidden=True)(command)
