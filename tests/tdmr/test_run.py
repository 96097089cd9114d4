"""The whole recipe, locally and as a worker's process, and the bundle it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import tdmr
from tdmr.config import JobSpec
from tdmr.data.index import load_index
from tdmr.errors import TdmrError
from tdmr.jobdir import JobDir, ProgressLine
from tdmr.stages import of_job

# Run with -P, from an empty folder, with this project's own modules out of reach.
PLAIN_TIMM = """
import json, sys
import timm, torch
from PIL import Image
folder, *paths = sys.argv[1:]
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    batch = torch.stack([transform(Image.open(p).convert("RGB")) for p in paths])
    print(json.dumps(model(batch).argmax(1).tolist()))
assert not {"tdmr", "app", "worker"} & set(sys.modules)
"""


@pytest.fixture
def distil(spec: JobSpec, shapes: Path, tmp_path: Path) -> Callable[..., tdmr.Distilled]:
    def call(**changes: Any) -> tdmr.Distilled:
        arguments: dict[str, Any] = {
            "foundation": spec.foundation,
            "student": spec.student,
            "out": tmp_path / "out",
            "options": spec.options,
            "device": "cpu",
            **changes,
        }
        return tdmr.distill(arguments.pop("data", shapes), **arguments)

    return call


def test_a_bundle_that_plain_timm_loads(
    distil: Callable[..., tdmr.Distilled], shapes: Path, tmp_path: Path
) -> None:
    lines: list[ProgressLine] = []
    result = distil(on_progress=lines.append)
    metrics = result.metrics
    assert set(metrics["baselines"]) == {"scratch", "probe", "kd"}
    assert metrics["images"] == 24
    assert result.interval[0] < result.accuracy < result.interval[1]
    # 18 training images in 3 views, and 24 held-out ones for the probe.
    assert metrics["foundation"]["forwards"] == 18 * 3 + 24
    seen = [line.stage.name for line in lines if line.stage]
    assert list(dict.fromkeys(seen)) == [
        "prepare", "cache", "reprogram", "distil", "scratch", "kd", "evaluate", "bundle",
    ]  # fmt: skip

    manifest = json.loads((result.bundle / "manifest.json").read_text())
    files = {row["name"]: row for row in manifest["files"]}
    assert set(files) == {p.name for p in result.bundle.iterdir()} - {"manifest.json"}
    for name, row in files.items():
        raw = (result.bundle / name).read_bytes()
        assert (len(raw), sha256(raw).hexdigest()) == (row["bytes"], row["sha256"])
    assert json.loads((result.bundle / "classes.json").read_text()) == metrics["dataset"]["classes"]

    held_out = load_index(shapes).held_out
    paths = [str(shapes / image.file) for image in held_out]
    printed = subprocess.run(
        [sys.executable, "-P", "-c", PLAIN_TIMM, str(result.bundle), *paths],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    ).stdout  # fmt: skip
    right = [
        metrics["dataset"]["classes"][place] == image.label
        for place, image in zip(json.loads(printed), held_out, strict=True)
    ]
    assert sum(right) / 24 == pytest.approx(result.accuracy, abs=1e-6)


def test_the_same_inputs_give_the_same_student(
    distil: Callable[..., tdmr.Distilled], tmp_path: Path, spec: JobSpec
) -> None:
    def digest(name: str, **changes: Any) -> str:
        bundle = distil(
            out=tmp_path / name, baselines=[], cache=tmp_path / f"cache-{name[0]}", **changes
        )
        return sha256((bundle.bundle / "model.safetensors").read_bytes()).hexdigest()

    first = digest("a")
    assert digest("b") == first
    assert digest("a2") == first  # from a warm cache
    other = spec.options.model_copy(update={"seed": 1})
    assert digest("c", options=other) != first


def test_a_second_student_reuses_the_cache(
    distil: Callable[..., tdmr.Distilled], tmp_path: Path
) -> None:
    distil(cache=tmp_path / "cache")
    again = distil(cache=tmp_path / "cache", student="test_vit", out=tmp_path / "b").metrics
    assert again["cache"]["reused"] is True
    assert again["foundation"]["forwards"] == 1 + 24  # the live check, and the probe


def test_the_same_images_in_another_order_are_another_entry(
    distil: Callable[..., tdmr.Distilled], shapes: Path, tmp_path: Path
) -> None:
    """The version is the same; rows of features would belong to other images."""
    distil(cache=tmp_path / "cache", baselines=[])
    renamed = tmp_path / "renamed"
    shutil.copytree(shapes, renamed)
    for number, path in enumerate(sorted((renamed / "train").glob("*/*.png"), reverse=True)):
        path.rename(path.with_name(f"z{number:03}.png"))
    assert load_index(renamed).version == load_index(shapes).version
    again = distil(data=renamed, cache=tmp_path / "cache", out=tmp_path / "b", baselines=[])
    assert again.metrics["cache"]["reused"] is False


def test_an_existing_folder_is_not_overwritten(
    distil: Callable[..., tdmr.Distilled], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(TdmrError, match="exists already"):
        distil()


def test_an_error_leaves_no_half_made_bundle(
    distil: Callable[..., tdmr.Distilled], tmp_path: Path
) -> None:
    with pytest.raises(TdmrError, match="no folder"):
        distil(data=tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def job_dir(path: Path, spec: JobSpec | dict[str, Any], data: Path) -> JobDir:
    path.mkdir()
    (path / "data").symlink_to(data)
    text = spec.model_dump_json() if isinstance(spec, JobSpec) else json.dumps(spec)
    (path / "config.json").write_text(text)
    return JobDir(path)


def run_process(job: JobDir) -> tuple[int, list[ProgressLine]]:
    command = [sys.executable, "-m", "tdmr", "run", str(job.path), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, [line for _, line in job.read()]


def test_the_worker_s_process(spec: JobSpec, shapes: Path, tmp_path: Path) -> None:
    job = job_dir(tmp_path / "job", spec, shapes)
    status, lines = run_process(job)
    assert status == 0
    assert lines[-1].event == "done"
    assert lines[-1].result == json.loads((job.out / "metrics.json").read_text())
    assert [line.stage.count for line in lines if line.stage] == [len(of_job(spec.baselines))] * (
        len(lines) - 1
    )


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"student": "resnet81"}, "unknown_model", "resnet18"),
        ({"options": {"unheard_of": 1}}, "options", "unheard_of"),
    ],
)
def test_a_failure_is_the_last_line(
    spec: JobSpec,
    shapes: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    code: str,
    words: str,
) -> None:
    body = {**spec.model_dump(mode="json"), **changes}
    status, lines = run_process(job_dir(tmp_path / "job", body, shapes))
    assert status == 1
    failure = lines[-1].failure
    assert failure is not None
    assert (failure.code, failure.user_error) == (code, True)
    assert words in f"{failure.detail} {failure.suggestion}"


def test_a_device_that_is_not_there(distil: Callable[..., tdmr.Distilled]) -> None:
    with pytest.raises(TdmrError, match="no device 'cuda:99'"):
        distil(device="cuda:99")
