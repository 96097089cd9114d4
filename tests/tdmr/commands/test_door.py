"""The door: help, completion, and what remote commands never load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from benchmarks.served import Running
from tdmr import config
from tdmr.cli import app
from tdmr.commands.distill import BASELINE_HELP
from tests.app.live import publish
from tests.tdmr.commands.conftest import COMMAND, Call, environment

HEAVY = {"torch", "timm", "torchvision", "numpy", "PIL"}
RUN = """
import sys
from tdmr.cli import app
try:
    app(sys.argv[1:])
finally:
    print(*sorted({heavy} & set(sys.modules)), file=sys.stderr)
"""


def every_command() -> list[list[str]]:
    group = typer.main.get_command(app)
    found: list[list[str]] = [[]]
    for name, command in group.commands.items():  # type: ignore[attr-defined]  # not in the stubs
        found.append([name])
        found += [[name, below] for below in getattr(command, "commands", ())]
    return found


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_explains_itself(call: Call, command: list[str]) -> None:
    done = call(*command, "--help")
    assert (done.status, done.error) == (0, "")
    assert "Usage:" in done.out


def test_every_remote_command_speaks_json() -> None:
    remote = [each for each in every_command() if len(each) == 2]
    assert len(remote) >= 19
    for name, below in remote:
        command = typer.main.get_command(app).commands[name].commands[below]  # type: ignore[attr-defined]  # not in the stubs
        assert any("--json" in parameter.opts for parameter in command.params), (name, below)


def test_help_tells_the_exit_codes(call: Call) -> None:
    for command in ([], ["jobs"], ["datasets"], ["students"], ["models"]):
        words = " ".join(call(*command, "--help", COLUMNS="300").out.split())
        assert "4 the server can't be reached; 130 interrupted." in words


def test_remote_commands_load_nothing_heavy(here: Running, tmp_path: Path) -> None:
    student_id = publish(here, {"config.json": b"{}"})
    calls = [
        ["--help"],
        ["jobs", "list"],
        ["datasets", "list", "--json"],
        ["models", "list"],
        ["models"],
        ["students", "show", student_id],
        ["students", "download", student_id, str(tmp_path / "student")],
    ]
    code = RUN.replace("{heavy}", repr(HEAVY))
    for given in calls:
        done = subprocess.run(
            [sys.executable, "-c", code, *given],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[-1] == "", given


def test_commands_load_what_they_need_when_they_run() -> None:
    """Help needs neither httpx nor pydantic, which take longer to load than all the rest."""
    code = "import tdmr.cli, sys; print(*{'httpx', 'pydantic', 'rich'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "\n"


def test_every_baseline_is_named_in_the_help() -> None:
    assert f"{', '.join(config.BASELINES)}; repeat." == BASELINE_HELP


def test_the_shell_completes_commands() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("tdmr")],
        env={
            **environment(),
            "_TDMR_COMPLETE": "complete_bash",
            "COMP_WORDS": "tdmr jobs re",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["retry", "resume", "restore"]


def test_stdout_holds_one_document_in_a_process_too(here: Running) -> None:
    done = subprocess.run(
        [*COMMAND, "jobs", "list", "--json"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert isinstance(json.loads(done.stdout), list)
    assert done.stderr == ""


def test_the_door_is_small() -> None:
    source = Path(sys.modules["tdmr.cli"].__file__ or "").read_text()
    functions = [each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.FunctionDef)]
    assert [each.name for each in functions] == ["main"]
