"""Where an upload's images belong: which class, and which split where it says."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.datasets.findings import Findings, shown
from app.datasets.members import Member
from tdmr.data.index import Split

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".heic", ".heif", ".avif", ".jp2", ".ico"}
)
LAYOUT_ADVICE = (
    "Put the images of each class into a folder of its own, named like the class, or add a CSV "
    "with the columns file and label."
)


@dataclass(frozen=True, slots=True)
class Placed:
    """A file that should be an image of a class; one in a class folder `may_be_other`."""

    member: Member
    label: str
    split: Split | None
    may_be_other: bool = False


@dataclass
class Layout:
    """Every file of a class, and every (split, class) that the upload speaks of."""

    placed: list[Placed] = field(default_factory=list)
    classes: set[tuple[Split | None, str]] = field(default_factory=set)

    def add(
        self, member: Member, label: str, split: Split | None, *, may_be_other: bool = False
    ) -> None:
        """Place a file."""
        self.placed.append(Placed(member, label, split, may_be_other))
        self.classes.add((split, label))

    @property
    def has_splits(self) -> bool:
        """Whether the upload says what is for training and what for testing."""
        return any(split for split, _ in self.classes)


def looks_like_image(name: str) -> bool:
    """By its suffix: what the user surely meant to be an image."""
    return "." + name.rpartition(".")[2].casefold() in IMAGE_SUFFIXES


def ignored(member: Member, findings: Findings) -> None:
    """Report a file that isn't an image and doesn't claim to be one."""
    findings.warn(
        "ignored_file",
        f"{shown(member.name)} isn't an image and was ignored.",
        "Nothing needs to be done.",
        member.name,
    )
