"""The bundle: a student as a folder that plain timm loads, with this project absent.

config.json          timm's own: architecture, arguments, preprocessing
model.safetensors    the weights
classes.json         class names, in the order of the logits
preprocessing.json   how an image becomes the model's input, in words any runtime can follow
metrics.json         how good it is, against what, and what it cost
README.md            the model card
manifest.json        size and SHA-256 of every file above
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tdmr import trained
from tdmr.config import JobSpec
from tdmr.errors import TrainedResultError

MEDIA_TYPES = {
    ".json": "application/json",
    ".md": "text/markdown",
    ".safetensors": "application/octet-stream",
}


def package(
    folder: Path, out: Path, on_bytes: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Make the bundle `out` of what was trained, in `folder` (`tdmr.trained`); give its metrics.

    `on_bytes(done, total)` is told how much of the weights is copied. Raises TrainedResultError
    for files that are missing or damaged.
    """
    found = trained.read(folder)
    student, metrics = found.student, found.metrics
    try:
        card = model_card(found.spec, metrics)
    except (LookupError, TypeError, ValueError) as error:
        raise TrainedResultError("trained.json is damaged: its metrics aren't whole.") from error
    out.mkdir(parents=True, exist_ok=True)
    trained.copy_weights(folder, student, out / trained.WEIGHTS, on_bytes)
    write_json(out / "config.json", student.timm)
    write_json(out / "classes.json", student.classes)
    write_json(out / "preprocessing.json", student.preprocessing)
    write_json(out / "metrics.json", metrics)
    (out / "README.md").write_text(card, encoding="utf-8")
    files = [describe(path) for path in sorted(out.iterdir()) if path.name != "manifest.json"]
    write_json(out / "manifest.json", {"files": files})
    return metrics


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


def model_card(spec: JobSpec, metrics: dict[str, Any]) -> str:
    """What the student is, how good, made from what, and where not to trust it."""
    dataset, student, foundation = (metrics[k] for k in ("dataset", "student", "foundation"))
    rows = [_row("TDMR student", metrics), *(_row(k, v) for k, v in metrics["baselines"].items())]
    return f"""---
library_name: timm
tags: [image-classification, timm, distillation]
---
# {student["architecture"]} for {len(dataset["classes"])} classes
{_warning(metrics.get("partial"))}
Distilled from the frozen foundation model `{foundation["name"]}` by task-driven model
reprogramming (a reading of TDMR, arXiv 2304.02263): a proxy space is fitted on the foundation's
features of the target images, and the student is taught from it, progressively.

| model | held-out accuracy | 95 % interval |
|---|---|---|
{chr(10).join(rows)}

- Classes: {", ".join(dataset["classes"][:50])}{" …" if len(dataset["classes"]) > 50 else ""}
- Data: {dataset["train_images"]} training and {metrics["images"]} held-out images, version
  `{dataset["version"]}`
- Student: {student["params"]:,} parameters, {student["bytes"]:,} bytes, input
  {student["input_size"]} x {student["input_size"]} pixels
- Foundation: `{foundation["name"]}`, {foundation["params"]:,} parameters; its licence is
  {foundation["licence"] or "not stated"}, and may bind what is distilled from it
- Seed: {spec.options.seed}

```python
import json
import timm, torch
from PIL import Image

folder = "."  # where this file lies
model = timm.create_model(f"local-dir:{{folder}}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
classes = json.load(open(f"{{folder}}/classes.json"))
with torch.inference_mode():
    logits = model(transform(Image.open("image.png").convert("RGB")).unsqueeze(0))
print(classes[logits.argmax().item()])
```

## Limits
Accuracy was measured once, on the held-out images of the same upload; other cameras, other light
or other classes will do worse. Probabilities are not calibrated.
"""


def _warning(partial: dict[str, Any] | None) -> str:
    """What must be known first of a student whose training was stopped early."""
    if partial is None:
        return ""
    step, steps, stage = partial["step"], partial["steps"], partial["stage"]
    where = f"at step {step:,} of {steps:,} of stage `{stage}`"
    if step == steps:
        where = f"after the last step, {steps:,}, of stage `{stage}`"
    missing = f" Not measured: {', '.join(partial['missing'])}." if partial["missing"] else ""
    return f"""
**Training was stopped early, {where}.** These are the averaged weights of that
moment.{missing}
"""


def _row(name: str, figures: dict[str, Any]) -> str:
    low, high = figures["interval"]
    return f"| {name} | {figures['accuracy']:.3f} | {low:.3f} to {high:.3f} |"
