"""The `tdmr` command, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tdmr.cli import app
from tdmr.config import JobSpec


def call(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_distill_writes_a_bundle(spec: JobSpec, shapes: Path, tmp_path: Path) -> None:
    models = ("--foundation", spec.foundation, "--student", spec.student)
    (tmp_path / "options.json").write_text(spec.options.model_dump_json())
    status, out, _ = call(
        *("distill", "--data", shapes, *models, "--out", tmp_path / "out", "--device", "cpu"),
        *("--options", f"@{tmp_path / 'options.json'}", "--baseline", "probe", "--json"),
    )
    assert status == 0
    metrics = json.loads(out)
    assert set(metrics["baselines"]) == {"probe"}
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--student", "resnet81"), "resnet18"),
        (("--options", '{"sed": 1}'), "sed"),
        (("--data", "/nowhere"), "no folder"),
    ],
)
def test_a_mistake_says_what_to_change(
    spec: JobSpec, shapes: Path, tmp_path: Path, changes: tuple[str, str], words: str
) -> None:
    given = {
        "--data": str(shapes),
        "--foundation": spec.foundation,
        "--student": spec.student,
        "--out": str(tmp_path / "out"),
        changes[0]: changes[1],
    }
    status, _, error = call("distill", *(part for pair in given.items() for part in pair))
    assert status == 2
    assert words in error
    assert not (tmp_path / "out").exists()


def test_models_are_listed() -> None:
    status, out, _ = call("models", "--role", "foundation")
    assert status == 0
    assert "2.95 M" in out
