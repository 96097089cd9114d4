"""`tdmr bench` from the command line: stand-ins of two datasets, models that take a second."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tdmr import api
from tdmr.cli import app
from tdmr.errors import DiskFullError, NonFiniteLossError, OutOfMemoryError
from tdmr.suite import sources
from tdmr.suite.results import METHODS, Results
from tdmr.suite.statistics import paired
from tests.tdmr.suite import standins
from tests.tdmr.suite.conftest import Publisher

QUICK = {
    "image_size": 32,
    "foundation_size": 32,
    "views": {"count": 2},
    "reprogram": {"proxy_dim": 8, "steps": 3, "batch_size": 8},
    "training": {"steps": 2, "batch_size": 6},
}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def arguments(
    foundation_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """The command over two unpacked stand-ins, but for datasets, shots and seeds."""
    for name in ("cifar-100", "pets"):
        standins.WRITERS[name](tmp_path / "data" / name / "original")
        monkeypatch.setitem(sources.SOURCES, name, standins.source(name))
    return [
        *("bench", "--suite", "standard", "--device", "cpu", "--students", "test_resnet"),
        *("--data", str(tmp_path / "data"), "--out", str(tmp_path / "results.json")),
        *("--foundations", f"local-dir:{foundation_folder}", "--options", json.dumps(QUICK)),
    ]


@pytest.fixture
def distilled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which datasets and seeds were distilled; the real function does it."""
    calls: list[str] = []
    real = api.distill

    def count(data: Path, **given: Any) -> api.Distilled:
        calls.append(f"{data.parent.name}/{data.name} {given['options'].seed}")
        return real(data, **given)

    monkeypatch.setattr(api, "distill", count)
    return calls


def call(*given: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(given))
    return done.exit_code, done.stdout, done.stderr


def results(tmp_path: Path) -> Results:
    return Results.read(tmp_path / "results.json")


def test_two_datasets_end_to_end_and_nothing_twice(
    arguments: list[str], distilled: list[str], tmp_path: Path
) -> None:
    first = [*arguments, "--datasets", "cifar-100,pets", "--shots", "1", "--seeds", "1"]
    status, out, error = call(*first)
    assert status == 0, error
    assert len(distilled) == 2
    assert "cifar-100" in out
    assert "pets" in out
    before = results(tmp_path)
    assert [run.train_images for run in before.runs] == [3, 3]
    assert [run.test_images for run in before.runs] == [6, 6]
    assert [run.forwards for run in before.runs] == [3 * 2 + 6] * 2

    assert call(*first)[0] == 0
    assert len(distilled) == 2

    status, out, error = call(*first[:-1], "2")
    assert status == 0, error
    assert [entry.rpartition(" ")[2] for entry in distilled] == ["0", "0", "1", "1"]
    after = results(tmp_path)
    assert after.runs[:2] == before.runs
    for group in after.summary:
        columns = {
            name: [run.accuracy[name] for run in after.runs if run.cell.dataset == group.dataset]
            for name in METHODS
        }
        assert group.seeds == [0, 1]
        assert group.mean["tdmr"] == pytest.approx(sum(columns["tdmr"]) / 2)
        assert group.tdmr_minus["kd"] == paired(columns["tdmr"], columns["kd"])
        assert str(group.tdmr_minus["scratch"]) in out
    left = sorted(p.name for p in (tmp_path / "data").iterdir())
    assert left == ["cache", "cifar-100", "pets"]


def test_it_downloads_when_told_to(
    arguments: list[str], publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "pets" / "original").rename(tmp_path / "official")
    source, publisher.files = standins.published("pets", tmp_path / "official", publisher.address)
    monkeypatch.setitem(sources.SOURCES, "pets", source)
    wanted = [*arguments, "--datasets", "pets", "--shots", "all", "--seeds", "1"]
    status, _, error = call(*wanted)
    assert status == 2
    assert "Add --download" in error
    assert not (tmp_path / "results.json").exists()
    assert call(*wanted, "--download")[0] == 0
    assert results(tmp_path).runs[0].train_images == source.train


KILLED = """
import sys
from tdmr import api, cli
from tdmr.suite import sources
from tests.tdmr.suite import standins

sources.SOURCES["pets"] = standins.source("pets")
real, calls = api.distill, []

def distill(*given, **options):
    calls.append(0)
    if len(calls) == 2:
        print("second", flush=True)
        import time
        time.sleep(60)
    return real(*given, **options)

api.distill = distill
cli.app(sys.argv[1:])
"""


def test_a_killed_run_loses_only_the_cell_it_was_in(
    arguments: list[str], distilled: list[str], tmp_path: Path
) -> None:
    wanted = [*arguments, "--datasets", "pets", "--shots", "1", "--seeds", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *wanted],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"second\n"
        os.kill(process.pid, signal.SIGKILL)
    finished = results(tmp_path)
    assert [run.cell.seed for run in finished.runs] == [0]
    status, _, error = call(*wanted)
    assert status == 0, error
    assert distilled == ["subsets/1-shots-seed-1 1"]
    assert results(tmp_path).runs[0] == finished.runs[0]
    assert [run.cell.seed for run in results(tmp_path).runs] == [0, 1]


def test_a_cell_that_fails_is_recorded_and_tried_again(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [*arguments, "--datasets", "pets", "--shots", "1", "--seeds", "2"]
    real = api.distill

    def fail_once(data: Path, **given: Any) -> api.Distilled:
        if given["options"].seed == 0:
            raise NonFiniteLossError("kd", 3, {"loss": float("inf")}, 0.002)
        return real(data, **given)

    with monkeypatch.context() as patched:
        patched.setattr(api, "distill", fail_once)
        status, _, error = call(*wanted)
    assert status == 1
    assert "failed:" in error
    found = results(tmp_path)
    assert [failed.cell.seed for failed in found.failed] == [0]
    assert "step 3" in found.failed[0].detail
    assert [run.cell.seed for run in found.runs] == [1]
    assert call(*wanted)[0] == 0
    assert not results(tmp_path).failed
    assert results(tmp_path).summary[0].seeds == [0, 1]


def test_a_model_too_large_for_the_device_is_a_failed_cell(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(data: Path, **given: Any) -> api.Distilled:
        raise OutOfMemoryError("distil")

    monkeypatch.setattr(api, "distill", too_large)
    status, _, error = call(*arguments, "--datasets", "pets", "--shots", "1", "--seeds", "2")
    assert status == 1
    assert error.count("failed:") == 2
    assert "image_size" in results(tmp_path).failed[0].detail


def test_a_full_disk_ends_the_run(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(data: Path, **given: Any) -> api.Distilled:
        raise DiskFullError("There is no room.")

    monkeypatch.setattr(api, "distill", full)
    status, _, error = call(*arguments, "--datasets", "pets", "--shots", "1", "--seeds", "2")
    assert status == 2
    assert "no room" in error
    assert not (tmp_path / "results.json").exists()


def test_a_dry_run_lists_cells_and_cost_and_touches_nothing(
    arguments: list[str], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    wanted = ["--datasets", "pets,cifar-100", "--shots", "1,all", "--seeds", "3", "--dry-run"]
    status, out, _ = call(*arguments, *wanted)
    assert status == 0
    assert "12 cells to run" in out
    assert "not measured" in out
    # Per seed and dataset: 3 and 9 training images in 2 views, and twice 6 test images.
    assert str(2 * 3 * (12 * 2 + 12)) in out
    assert "CC BY-SA 4.0" in out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("--suite", "other"), "no suite 'other'"),
        (("--datasets", "pet"), "no dataset of this suite"),
        (("--students", "resnet81"), "resnet18"),
        (("--shots", "none"), "can't be drawn"),
        (("--options", '{"sed": 1}'), "sed"),
        (("--options", '{"seed": 1}'), "--seeds"),
        (("--options", "{"), "isn't JSON"),
        (("--options", "[]"), "isn't a JSON object"),
    ],
)
def test_a_mistake_ends_before_any_work(
    arguments: list[str], tmp_path: Path, changes: tuple[str, str], words: str
) -> None:
    status, _, error = call(*arguments, "--datasets", "pets", *changes)
    assert status == 2
    assert words in " ".join(error.split())
    assert not (tmp_path / "data" / "pets" / "dataset").exists()


def test_runs_with_other_options_are_never_mixed(arguments: list[str], tmp_path: Path) -> None:
    wanted = ["--datasets", "pets", "--shots", "1", "--seeds", "1"]
    assert call(*arguments, *wanted)[0] == 0
    other = json.dumps({**QUICK, "training": {"steps": 3, "batch_size": 6}})
    status, _, error = call(*arguments, *wanted, "--options", other)
    assert status == 2
    assert "Choose another --out" in " ".join(error.split())
    (tmp_path / "results.json").write_text('{"runs": 3}')
    status, _, error = call(*arguments, *wanted)
    assert status == 2
    assert "isn't a results file" in " ".join(error.split())


def test_options_come_from_a_file_too(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(json.dumps(QUICK))
    given = ["--options", f"@{tmp_path / 'options.json'}", "--datasets", "pets", "--dry-run"]
    assert call(*arguments, *given)[0] == 0


def test_help_and_dry_run_load_no_torch(tmp_path: Path) -> None:
    run = "from tdmr.cli import app; app(sys.argv[1:], standalone_mode=False)"
    code = f"import sys; {run}; assert 'torch' not in sys.modules, 'torch is loaded'"
    out = str(tmp_path / "results.json")
    for given in (["--help"], ["bench", "--help"], ["bench", "--dry-run", "--out", out]):
        subprocess.run([sys.executable, "-c", code, *given], check=True, capture_output=True)
