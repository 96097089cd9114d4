"""Options that don't go together, or not with the models or the dataset."""

from __future__ import annotations

from collections.abc import Iterator

from app.errors import InvalidError
from app.models import Dataset
from app.plans import load as loads
from app.plans.findings import Finding, error, warning
from tdmr.config import FEW_SHOTS, JobSpec
from tdmr.errors import OptionsError

STRIDE = 32  # of most networks, from an image to its last features


def contradictions(spec: JobSpec) -> Iterator[Finding]:
    """What a job would fail of for certain, as far as that can be told without its models."""
    border, side = spec.options.input.border, loads.foundation_side(spec)
    if side is not None and 2 * border >= side:
        yield error(
            InvalidError,
            "/options/input/border",
            OptionsError.code,
            f"A border of {border} pixels leaves no room in pictures of {side} pixels.",
            f"Choose a border below {-(-side // 2)}, or 0 for none.",
        )


def doubts(spec: JobSpec) -> Iterator[Finding]:
    """What a job may fail of, or what has no effect."""
    options, distil = spec.options, spec.options.distil
    yield from _off_grid("/options/image_size", spec.student, options.image_size)
    if isinstance(options.foundation_size, int):
        size = options.foundation_size
        yield from _off_grid("/options/foundation_size", spec.foundation, size)
    if options.foundation_size == "match" and loads.foundation_side(spec) is None:
        yield warning(
            "/options/foundation_size",
            "nothing_to_match",
            "The models don't both say the size of their patches, so the foundation may keep its "
            "own size.",
            "Give the size in pixels, or leave it null.",
        )
    reused = distil.head == "reused"
    if not (distil.ce or distil.kd or (reused and distil.read)):
        names = "ce, kd and read" if reused else "ce and kd"
        yield warning(
            "/options/distil",
            "nothing_to_learn",
            f"The student's classifier learns nothing: {names} are 0.",
            "Give at least one of them some weight.",
        )


def _off_grid(pointer: str, name: str, side: int | None) -> Iterator[Finding]:
    patch = loads.patch_of(name)
    if side is not None and patch is not None and side % patch:
        near = max(patch, round(side / patch) * patch)
        yield warning(
            pointer,
            "size_off_grid",
            f"{side} pixels are no multiple of {name!r}'s patches of {patch}: it may be refused.",
            f"Choose {near}, or leave it null for the model's own.",
        )
    elif side is not None and side < STRIDE:
        yield warning(
            pointer,
            "size_small",
            f"{name!r} may not take images of {side} pixels.",
            f"Most models need at least {STRIDE}; leave it null for the model's own.",
        )


def few_images(spec: JobSpec, dataset: Dataset) -> Iterator[Finding]:
    """Options that ask for more images of a class than there are."""
    counts = {label: n for label, n in ((dataset.splits or {}).get("train") or {}).items() if n}
    if not counts:
        return
    label, least = min(counts.items(), key=lambda each: each[1])
    options, per_class = spec.options, sum(counts.values()) / len(counts)
    if least < 2:
        yield warning(
            "/dataset_id",
            "few_images",
            f"Class {label!r} has one image to train on: no fold can tell how well it is known.",
            "Add images of it.",
        )
    if loads.takes_input_side(spec) and max(counts.values()) < 2:
        yield warning(
            "/options/input",
            "input_not_tried",
            "With one image of each class nothing is left to try an input side on.",
            "Turn affine and border off, or add images.",
        )
    if options.reprogram.mode == "trained" and per_class < FEW_SHOTS:
        yield warning(
            "/options/reprogram/mode",
            "few_to_train_on",
            f"Projections are to be trained on {per_class:.3g} images per class; the closed form "
            f"does better below {FEW_SHOTS}.",
            "Leave the mode at auto.",
        )
