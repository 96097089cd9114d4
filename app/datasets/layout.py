"""Where an archive's files belong: class folders, with or without train/, val/, test/ above."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from app.datasets.archive import Archive, Member
from app.datasets.findings import Findings, shown
from tdmr.data.index import SPLITS, Split

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".heic", ".heif", ".avif", ".jp2", ".ico"}
)
LAYOUT_ADVICE = "Put the images of each class into a folder of its own, named like the class."

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """A file in a class folder."""

    member: Member
    label: str
    split: Split | None


@dataclass
class Layout:
    """Every file of a class, and every class folder that was seen."""

    placed: list[Placed] = field(default_factory=list)
    folders: set[tuple[Split | None, str]] = field(default_factory=set)

    @property
    def has_splits(self) -> bool:
        """Whether the upload says what is for training and what for testing."""
        return any(split for split, _ in self.folders)


def looks_like_image(name: str) -> bool:
    """By its suffix: what the user surely meant to be an image."""
    return "." + name.rpartition(".")[2].casefold() in IMAGE_SUFFIXES


def place(archive: Archive, findings: Findings) -> Layout:
    """Sort the archive's files into classes and splits, and report what is in no class."""
    files = [(member.parts, member) for member in archive.members]
    wrapper = _wrapper([parts for parts, _ in files], archive.folders)
    if wrapper is not None:
        findings.warn(
            "wrapping_folder",
            f"The archive wraps everything in the folder {shown(wrapper)}, which was taken off.",
            "Nothing needs to be done.",
        )
        files = [(parts[1:] or parts, member) for parts, member in files]
        archive.folders = {parts[1:] for parts in archive.folders if len(parts) > 1}
    splits = _splits({parts[0] for parts in _folders(files, archive.folders)}, findings)
    return _sort(files, archive.folders, splits, findings)


def _wrapper(files: list[Parts], folders: set[Parts]) -> str | None:
    """The one folder around all class folders, if there is one."""
    tops = {parts[0] for parts in files if len(parts) > 1} | {parts[0] for parts in folders}
    if len(tops) != 1:
        return None
    (top,) = tops
    inside = {parts[1] for parts in folders if len(parts) > 1} | {
        parts[1] for parts in files if len(parts) > 2
    }
    direct = [parts for parts in files if len(parts) <= 2]
    if top.casefold() in SPLITS or not inside or any(looks_like_image(p[-1]) for p in direct):
        return None
    return top


def _folders(files: list[tuple[Parts, Member]], folders: Iterable[Parts]) -> set[Parts]:
    return {parts[:-1] for parts, _ in files if len(parts) > 1} | set(folders)


def _splits(tops: set[str], findings: Findings) -> dict[str, Split]:
    """The top folders that are splits, by their name as written."""
    splits: dict[str, Split] = {
        top: split for top in tops for split in SPLITS if top.casefold() == split
    }
    if "train" not in splits.values():
        if splits and len(splits) == len(tops):
            findings.error(
                "no_training_split",
                f"The archive has {_listed(splits)} and no train folder.",
                "Add a train folder, or leave the split folders out.",
            )
            return splits
        return {}  # a class may well be called `test`
    others = tops - splits.keys()
    if others:
        findings.error(
            "mixed_layout",
            f"Beside {_listed(splits)} there are other folders: {_listed(others)}.",
            "Move each class folder into train, val or test, or leave these three out.",
        )
    return splits


def _sort(
    files: list[tuple[Parts, Member]],
    folders: set[Parts],
    splits: dict[str, Split],
    findings: Findings,
) -> Layout:
    layout = Layout()
    depth = 1 if splits else 0  # of the class folder
    for parts in _folders(files, folders):
        if len(parts) > depth and (not splits or parts[0] in splits):
            layout.folders.add((splits.get(parts[0]), parts[depth]))
    for parts, member in files:
        if len(parts) > depth + 1 and (not splits or parts[0] in splits):
            layout.placed.append(Placed(member, parts[depth], splits.get(parts[0])))
        elif looks_like_image(parts[-1]):
            findings.error(
                "image_outside_class",
                f"{shown(member.name)} is in no class folder.",
                LAYOUT_ADVICE,
                member.name,
            )
        else:
            ignored(member, findings)
    return layout


def ignored(member: Member, findings: Findings) -> None:
    """Report a file that isn't an image and doesn't claim to be one."""
    findings.warn(
        "ignored_file",
        f"{shown(member.name)} isn't an image and was ignored.",
        "Nothing needs to be done.",
        member.name,
    )


def _listed(names: Iterable[str]) -> str:
    some = sorted(names)
    return ", ".join(shown(name) for name in some[:5]) + (", …" if len(some) > 5 else "")
