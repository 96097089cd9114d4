"""The stages of a job by their names, in order: what progress, costs and pages speak of."""

from __future__ import annotations

from collections.abc import Iterable

OURS = "distil"
SHARED = ("prepare", "cache", "reprogram")  # before anything of a student is trained
PACKAGE = "bundle"


def trained(baselines: Iterable[str]) -> tuple[str, ...]:
    """What a job trains, each a stage: its student, and the baselines that take steps."""
    return OURS, *(name for name in baselines if name != "probe")


def of_job(baselines: Iterable[str], *, package: bool = True) -> list[str]:
    """A job's stages; without `package` it ends where it is trained."""
    end = (PACKAGE,) if package else ()
    return [*SHARED, *trained(baselines), "evaluate", *end]


def of_rescue(*, package: bool = True) -> list[str]:
    """The stages of making a student out of checkpoints."""
    return ["prepare", "rescue", "evaluate", *([PACKAGE] if package else [])]
