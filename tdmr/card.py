"""The model card: what the student is, how good, made from what, and where not to trust it."""

from __future__ import annotations

from textwrap import fill
from typing import Any

from tdmr.config import JobSpec

WIDTH = 100
HEAD = """---
library_name: timm
tags: [image-classification, timm, distillation]
---
"""
LIMITS = """## Limits
Everything was measured once, on the held-out images of the same upload; other cameras, other light
or other classes will do worse, and be answered with the same certainty. An image of none of the
classes is given one of them. Latencies are of the machine that is named; the pictures show where
the mistakes are. A `.pt2` file is loaded with pickle: load it only from where you trust.
"""


def model_card(spec: JobSpec, metrics: dict[str, Any]) -> str:
    """The card of a student with `metrics` (metrics.json), in Markdown.

    Before it is evaluated and exported, the card has no sections on that. Raises LookupError,
    TypeError or ValueError for metrics that aren't whole.
    """
    evaluation, exports = metrics.get("evaluation"), metrics.get("exports")
    sections = [_head(metrics), _figures(spec, metrics)]
    if evaluation:
        sections.append(_calibration(evaluation))
    if exports:
        sections.append(_formats(exports))
    return HEAD + "\n".join([*sections, _use(exports), LIMITS])


def _head(metrics: dict[str, Any]) -> str:
    dataset, student, foundation = (metrics[k] for k in ("dataset", "student", "foundation"))
    return f"""# {student["architecture"]} for {len(dataset["classes"])} classes
{_warning(metrics.get("partial"))}
Distilled from the frozen foundation model {_named(foundation)} by task-driven model
reprogramming (a reading of TDMR, arXiv 2304.02263): a proxy space is fitted on the foundation's
features of the target images, and the student is taught from it, progressively.
"""


def _named(foundation: dict[str, Any]) -> str:
    """A foundation by its name; one of its owner's own by theirs, too."""
    own = foundation.get("own")
    if own is None:
        return f"`{foundation['name']}`"
    called = own["name"].replace("`", "'")
    return f"`{called}` (`{foundation['name']}`)"


def _weights(foundation: dict[str, Any]) -> str:
    own = foundation.get("own")
    if own is None:
        return ""
    return f"""- Its weights are the owner's own, for the architecture
  `{own["architecture"]}`; the SHA-256 of their file is `{own["sha256"]}`
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


def _figures(spec: JobSpec, metrics: dict[str, Any]) -> str:
    dataset, student, foundation = (metrics[k] for k in ("dataset", "student", "foundation"))
    rows = [_row("TDMR student", metrics), *(_row(k, v) for k, v in metrics["baselines"].items())]
    return f"""| model | held-out accuracy | 95 % interval |
|---|---|---|
{chr(10).join(rows)}

- Classes: {", ".join(dataset["classes"][:50])}{" …" if len(dataset["classes"]) > 50 else ""}
- Data: {dataset["train_images"]} training and {metrics["images"]} held-out images, version
  `{dataset["version"]}`
- Student: {student["params"]:,} parameters, {student["bytes"]:,} bytes, input
  {student["input_size"]} x {student["input_size"]} pixels
- Foundation: {_named(foundation)}, {foundation["params"]:,} parameters; its licence is
  {foundation["licence"] or "not stated"}, and may bind what is distilled from it
{_weights(foundation)}- Seed: {spec.options.seed}
"""


def _row(name: str, figures: dict[str, Any]) -> str:
    low, high = figures["interval"]
    return f"| {name} | {figures['accuracy']:.3f} | {low:.3f} to {high:.3f} |"


def _calibration(found: dict[str, Any]) -> str:
    how = (
        f"It was fitted on {found['fitting_images']} images of the validation split, which are "
        "not among those."
        if found["fitted_on"] == "val"
        else "It was fitted on all of them; the error after it is that of two halves, each judged "
        "with the temperature of the other."
    )
    text = (
        f"Probabilities are the softmax of the logits over a temperature of "
        f"{found['temperature']:.4g}. On the {found['images']} held-out images the expected "
        f"calibration error ({found['bins']} bins) is {found['ece_before']:.3f} without it and "
        f"{found['ece_after']:.3f} with it, the negative log-likelihood {found['nll_before']:.3f} "
        f"and {found['nll_after']:.3f}. {how} It changes no answer. `evaluation.json` has the "
        "figures of each class, the confusion matrix, risk and coverage, and the surest mistakes."
    )
    return f"""## Calibration
{fill(text, WIDTH)}

![confusion matrix](confusion.svg)
![reliability](reliability.svg)
![risk and coverage](risk_coverage.svg)
"""


def _formats(exports: dict[str, Any]) -> str:
    machine, student = exports["machine"], exports["student"]
    rows = [_format("timm", {**student, "published": True, "agreement": 1.0})]
    rows += [_format(name, row) for name, row in exports["formats"].items()]
    refused = [
        f"- `{row['file']}` was refused: {row['reason']}."
        for row in exports["formats"].values()
        if not row["published"]
    ]
    text = (
        f"Latency is of single images with one thread on {machine['cpu']} ({machine['cores']} "
        "cores), memory that of a process with nothing else in it but the runtime. ONNX and "
        "`.pt2` take `images` (batch, channels, side, side) in [0, 1], normalise them themselves, "
        "and give `logits` and calibrated `probabilities`; the ONNX metadata has classes, "
        "preprocessing and temperature."
    )
    return f"""## Formats
| format | file | bytes | held-out accuracy | agrees with the student | p50 / p95 ms | peak memory |
|---|---|---|---|---|---|---|
{chr(10).join(row for row in rows if row)}

{fill(text, WIDTH)}
{chr(10).join(["", *refused, ""]) if refused else ""}"""


def _format(name: str, row: dict[str, Any]) -> str | None:
    if not row["published"]:
        return None
    times, memory = row["latency"] or {}, row["memory"] or {}
    latency = f"{times['p50_ms']:.2f} / {times['p95_ms']:.2f}" if times else "not measured"
    peak = memory.get("peak_bytes")
    return (
        f"| {name} | `{row['file']}` | {row['bytes']:,} | {row['accuracy']:.3f} | "
        f"{row['agreement']:.4f} | {latency} | {f'{peak / 2**20:.0f} MiB' if peak else '?'} |"
    )


def _use(exports: dict[str, Any] | None) -> str:
    commands = ["python predict_timm.py image.png  # needs timm"]
    published = (exports or {"formats": {}})["formats"]
    if any(published.get(name, {}).get("published") for name in ("onnx", "int8")):
        commands.append("python predict_onnx.py image.png  # needs onnxruntime, numpy and Pillow")
    return f"""## Use
```sh
{chr(10).join(commands)}
```
Each prints the likeliest classes with their probabilities; `preprocessing.json` says in words how
an image becomes the input.
"""
