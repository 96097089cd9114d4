"""What makes a set of readable images trainable, and what is suspicious about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from app.datasets import names
from app.datasets.findings import Findings, shown
from app.datasets.layout import LAYOUT_ADVICE, Layout
from tdmr.data.index import IndexedImage

MIN_PER_CLASS = 2


def check_classes(layout: Layout, images: Sequence[IndexedImage], findings: Findings) -> None:
    """Report missing, single, empty and small classes. `images` have the upload's own splits."""
    labels = sorted({label for _, label in layout.classes})
    if not labels:
        findings.error(
            "no_class_folder", "There is no class folder and no manifest.", LAYOUT_ADVICE
        )
        return
    if len(labels) == 1:
        findings.error(
            "one_class",
            f"There is one class only: {shown(labels[0])}.",
            "Add a second one: a classifier needs at least two classes.",
        )
    _check_alike(labels, findings)
    trained = Counter(image.label for image in images if image.split in (None, "train"))
    present = {image.label for image in images}
    for label in labels:
        if label not in present:
            _empty(label, findings)
        elif not trained[label]:
            findings.error(
                "class_not_in_training",
                f"Class {shown(label)} has no image in the training split.",
                "Add at least two training images of it, or remove the class.",
            )
        elif trained[label] < MIN_PER_CLASS:
            findings.error(
                "too_few_images",
                f"Class {shown(label)} has {trained[label]} image to train on.",
                f"Add images: each class needs at least {MIN_PER_CLASS}.",
            )


def _check_alike(labels: Sequence[str], findings: Findings) -> None:
    """Report classes whose names differ in capitals or accents' encoding alone."""
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(names.fold(label), label)
        if other != label:
            findings.error(
                "label_collision",
                f"{shown(other)} and {shown(label)} are two classes with one name.",
                "Write the class in one way everywhere.",
            )


def _empty(label: str, findings: Findings) -> None:
    findings.error(
        "empty_class",
        f"Class {shown(label)} has no readable image.",
        "Add images to it, or leave the class out.",
    )


def check_held_out(layout: Layout, images: Sequence[IndexedImage], findings: Findings) -> None:
    """Report what can't be measured. `images` have their final splits."""
    splits = {image.split for image in images}
    if not splits & {"test", "val"} and not layout.has_splits:
        return  # classes of one image, which are reported already
    if not splits & {"test", "val"}:
        findings.error(
            "nothing_held_out",
            "No image is held out, so that accuracy couldn't be measured.",
            "Add images for testing, or upload without splits: a fifth is then held out.",
        )
        return
    held_out = "test" if "test" in splits else "val"
    tested = {image.label for image in images if image.split == held_out}
    for label in sorted({image.label for image in images} - tested):
        findings.warn(
            "class_not_tested",
            f"Class {shown(label)} has no image in {held_out}.",
            f"Add some: the accuracy says nothing about {shown(label)}.",
        )


def check_duplicates(images: Sequence[IndexedImage], findings: Findings) -> None:
    """Report images that are equal byte for byte: across classes, across splits, and otherwise."""
    by_content: dict[str, list[IndexedImage]] = defaultdict(list)
    for image in images:
        by_content[image.sha256].append(image)
    for copies in by_content.values():
        if len(copies) > 1:
            _report_copies(copies, findings)


def _report_copies(copies: Sequence[IndexedImage], findings: Findings) -> None:
    first = copies[0]
    other = next((copy for copy in copies if copy.label != first.label), None)
    if other is not None:
        findings.error(
            "same_image_in_two_classes",
            f"{shown(first.source)} and {shown(other.source)} are the same image.",
            f"Leave it in one of {shown(first.label)} and {shown(other.label)}.",
            other.source,
        )
        return
    trained = [copy for copy in copies if copy.split == "train"]
    held_out = [copy for copy in copies if copy.split != "train"]
    if trained and held_out:
        findings.warn(
            "leak",
            f"{shown(held_out[0].source)} is held out and also trained on, "
            f"as {shown(trained[0].source)}.",
            "Remove one of them: the measured accuracy is too high with both.",
            held_out[0].source,
        )
    if len(trained) > 1 or len(held_out) > 1:
        same = trained if len(trained) > 1 else held_out
        findings.warn(
            "duplicate",
            f"{shown(same[1].source)} is the same image as {shown(same[0].source)}.",
            "Remove one of them: a copy adds nothing.",
            same[1].source,
        )
