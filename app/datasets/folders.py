"""Class folders, with or without train/, val/ and test/ above them."""

from __future__ import annotations

from collections.abc import Iterable

from app.datasets.findings import Findings, shown
from app.datasets.layout import LAYOUT_ADVICE, Layout, ignored, looks_like_image
from app.datasets.members import Archive, Member, Parts
from tdmr.data.index import SPLITS, Split


def place(archive: Archive, findings: Findings) -> Layout:
    """Sort the archive's files into classes and splits, and report what is in no class."""
    files = [(member.parts, member) for member in archive.members]
    folders = archive.folders
    wrapper = _wrapper([parts for parts, _ in files], folders)
    if wrapper is not None:
        findings.warn(
            "wrapping_folder",
            f"The archive wraps everything in the folder {shown(wrapper)}, which was taken off.",
            "Nothing needs to be done.",
        )
        files = [(parts[1:] or parts, member) for parts, member in files]
        folders = {parts[1:] for parts in folders if len(parts) > 1}
    splits = _splits({parts[0] for parts in _folders(files, folders)}, findings)
    return _sort(files, folders, splits, findings)


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
            layout.classes.add((splits.get(parts[0]), parts[depth]))
    for parts, member in files:
        if len(parts) > depth + 1 and (not splits or parts[0] in splits):
            layout.add(member, parts[depth], splits.get(parts[0]), may_be_other=True)
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


def _listed(names: Iterable[str]) -> str:
    some = sorted(names)
    return ", ".join(shown(name) for name in some[:5]) + (", …" if len(some) > 5 else "")
