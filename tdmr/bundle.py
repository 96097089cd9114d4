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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm.models import save_for_hf

from tdmr.config import JobSpec
from tdmr.models import Student

MEDIA_TYPES = {
    ".json": "application/json",
    ".md": "text/markdown",
    ".safetensors": "application/octet-stream",
}
COLOURS = {1: "grey (luma, as Pillow's mode L)", 3: "RGB"}


def save_model(student: Student, folder: Path, classes: Sequence[str]) -> int:
    """Write the timm folder, classes and preprocessing; give the weights' size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    mean, std = (buffer.flatten().tolist() for buffer in (student.mean, student.std))
    data = {
        "input_size": (student.channels, student.size, student.size),
        "mean": tuple(round(value, 6) for value in mean),
        "std": tuple(round(value, 6) for value in std),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    save_for_hf(
        student.model.cpu().eval(),
        str(folder),
        model_config={"label_names": list(classes)},
        data_config=data,
        safe_serialization=True,
    )
    write_json(folder / "classes.json", list(classes))
    write_json(
        folder / "preprocessing.json",
        {
            "steps": [
                f"apply the EXIF orientation and convert to {COLOURS[student.channels]}",
                f"resize the shorter side to {student.size} pixels, bicubic with antialiasing",
                f"crop the centre to {student.size} x {student.size}",
                "divide by 255, subtract `mean`, divide by `std`; channels first",
            ],
            **data,
        },
    )
    return (folder / "model.safetensors").stat().st_size


def finish(folder: Path, spec: JobSpec, metrics: dict[str, Any]) -> None:
    """Add metrics and model card, then the manifest over everything."""
    write_json(folder / "metrics.json", metrics)
    (folder / "README.md").write_text(model_card(spec, metrics), encoding="utf-8")
    files = [describe(path) for path in sorted(folder.iterdir()) if path.name != "manifest.json"]
    write_json(folder / "manifest.json", {"files": files})


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


def _row(name: str, figures: dict[str, Any]) -> str:
    low, high = figures["interval"]
    return f"| {name} | {figures['accuracy']:.3f} | {low:.3f} to {high:.3f} |"
