"""Foundations of an engineer's own: `mod_…` names one, and JOB_DIR brings it along.

models/mod_…/model.json           an `OwnModel`: what it is
models/mod_…/model.safetensors    its weights, as they were uploaded

A name means something only while its folder is offered, and in this process alone. So nothing that
is kept of a job, neither spec nor checkpoint nor bundle, says where the weights were. Loads no
torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from tdmr.wire.datasets import Finding

ABOUT, WEIGHTS, REPORT = "model.json", "model.safetensors", "report.json"
_NAME = re.compile(r"mod_[0-9a-z]{1,36}")


class OwnModel(BaseModel):
    """model.json: the owner's name for it, the timm architecture, and the file's SHA-256.

    The architecture has a tag or none: it tells size, mean and deviation. No licence is one that
    the owner hasn't stated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    architecture: str
    licence: str | None
    sha256: str


class CheckOptions(BaseModel):
    """config.json of `check-model`: which model, and how much its check may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    memory_bytes: int | None = Field(
        None, description="Address space beside the libraries'; null: any."
    )
    cpu_seconds: int | None = Field(None, description="Processor time of the check; null: any.")


class Report(BaseModel):
    """out/report.json of `check-model`: what the model is, or what is wrong with it.

    `params` counts what a foundation uses of it, without a classifier; `input_size` is a side in
    pixels, `fingerprint` the SHA-256 of those weights as they are loaded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    params: int | None = None
    input_size: int | None = None
    channels: int | None = None
    fingerprint: str | None = None
    findings: list[Finding] = []

    @property
    def ok(self) -> bool:
        """Whether it can be a job's foundation."""
        return not self.findings


@dataclass(frozen=True)
class Found:
    """A model that is offered here: what it is, and where its weights are."""

    about: OwnModel
    file: Path


_OFFERED: ContextVar[Path | None] = ContextVar("offered", default=None)


def is_own(name: str) -> bool:
    """Whether a model's name is one that a server gives to uploaded weights."""
    return _NAME.fullmatch(name) is not None


def place(folder: Path, name: str, about: OwnModel) -> Path:
    """Make room for a model in JOB_DIR/models; where its weights are to be put."""
    made = folder / name
    made.mkdir(parents=True)
    (made / ABOUT).write_text(about.model_dump_json(), encoding="utf-8")
    return made / WEIGHTS


@contextmanager
def offered(folder: Path) -> Iterator[None]:
    """Until the end of the block, the models in `folder` are known by their names."""
    token = _OFFERED.set(folder)
    try:
        yield
    finally:
        _OFFERED.reset(token)


def find(name: str) -> Found | None:
    """The model that is offered under `name`, or None."""
    folder = _OFFERED.get()
    if folder is None or not is_own(name) or not (folder / name / ABOUT).is_file():
        return None
    about = OwnModel.model_validate_json((folder / name / ABOUT).read_bytes())
    return Found(about, folder / name / WEIGHTS)
