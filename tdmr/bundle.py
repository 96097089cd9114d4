"""The bundle: a student as a folder that other tools use, with this project absent.

config.json          timm's own: architecture, arguments, preprocessing
model.safetensors    the weights
classes.json         class names, in the order of the logits
preprocessing.json   how an image becomes the model's input, in words any runtime can follow
model.onnx           images in [0, 1] to logits and probabilities, batches of any size
model.int8.onnx      the same in 8 bits, where that costs next to no accuracy
model.pt2            the same as model.onnx, as a torch.export program
exports.json         how each of these was verified and what it costs; or why it isn't there
evaluation.json      figures on held-out images (`tdmr.evaluation.report`), with their pictures
audit.json           what the foundation says of the dataset (`tdmr.audit`), unless unasked for
predict_timm.py      classifies an image with timm
predict_onnx.py      classifies an image with onnxruntime, where there is a file for it
metrics.json         how good it is, against what, and what it cost
README.md            the model card
manifest.json        size and SHA-256 of every file above
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tdmr import trained
from tdmr.card import model_card
from tdmr.errors import TrainedResultError
from tdmr.jobdir import AUDIT
from tdmr.progress import Steps

MEDIA_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".md": "text/markdown",
    ".onnx": "application/octet-stream",
    ".pt2": "application/octet-stream",
    ".py": "text/x-python",
    ".safetensors": "application/octet-stream",
    ".svg": "image/svg+xml",
}
METRICS = "metrics.json"
ASSETS = Path(__file__).parent / "assets"
TIMM_SCRIPT, ONNX_SCRIPT = "predict_timm.py", "predict_onnx.py"


def package(
    folder: Path,
    out: Path,
    *,
    data: Path,
    cache: Path,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Make the bundle `out` of what was trained, in `folder` (`tdmr.trained`); give its metrics.

    `data` is the dataset that it was trained on; its decoded images are kept in `cache`. `warn` is
    told of every format that is refused. Loads torch.
    Raises TrainedResultError for files that are missing or damaged, and for another dataset.
    """
    found = trained.read(folder)
    try:
        model_card(found.spec, found.metrics)
    except (LookupError, TypeError, ValueError) as error:
        raise TrainedResultError("trained.json is damaged: its metrics aren't whole.") from error
    from tdmr.examine import EXPORTS, Subject, examine, of_exports, steps_for
    from tdmr.store import ArrayStore

    student = found.student
    steps = Steps(1 + steps_for(found), on_step)
    steps.begin()
    out.mkdir(parents=True, exist_ok=True)
    trained.copy_weights(folder, student, out / trained.WEIGHTS, steps.part)
    write_json(out / "config.json", student.timm)
    write_json(out / "classes.json", student.classes)
    subject = Subject(found, out, data, ArrayStore(cache), steps, warn)
    metrics = {**found.metrics, **examine(subject)}
    write_json(out / EXPORTS, metrics["exports"])
    how = {
        **student.preprocessing,
        "exports": {"steps": of_exports(student.preprocessing)["steps"]},
    }
    write_json(out / "preprocessing.json", how)
    write_json(out / METRICS, metrics)
    (out / "README.md").write_text(model_card(found.spec, metrics), encoding="utf-8")
    if (folder / AUDIT).exists():
        shutil.copyfile(folder / AUDIT, out / AUDIT)
    _add_scripts(out, metrics["exports"]["formats"])
    files = [describe(path) for path in sorted(out.iterdir()) if path.name != "manifest.json"]
    write_json(out / "manifest.json", {"files": files})
    steps.end()
    return metrics


def _add_scripts(out: Path, formats: dict[str, Any]) -> None:
    """The script for timm, and that for onnxruntime if there is a file for it."""
    scripts = {TIMM_SCRIPT: (ASSETS / TIMM_SCRIPT).read_text(encoding="utf-8")}
    published = [
        formats[k]["file"] for k in ("onnx", "int8") if formats.get(k, {}).get("published")
    ]
    if published:
        script = (ASSETS / ONNX_SCRIPT).read_text(encoding="utf-8")
        scripts[ONNX_SCRIPT] = script.replace('"model.onnx"', f'"{published[0]}"')
    for name, text in scripts.items():
        (out / name).write_text(text, encoding="utf-8")


def describe(path: Path) -> dict[str, Any]:
    """One manifest row."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "name": path.name,
        "bytes": path.stat().st_size,
        "sha256": digest,
        "media_type": MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
    }


def write_json(path: Path, value: Any) -> None:
    """Readable, stable JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
