"""The models that a job can name, and what they cost. Loads no torch and no timm."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tdmr.errors import UnknownModelError, near_matches

Role = Literal["foundation", "student"]
ASSETS = Path(__file__).parent / "assets"
BUNDLED = ("letters_vit", "letters_cnn", "letters_hybrid")

# A short list to choose from; every other architecture of the catalog works by its name.
RECOMMENDED: dict[Role, tuple[str, ...]] = {
    "foundation": (
        *BUNDLED,
        "vit_small_patch14_dinov2.lvd142m",
        "vit_base_patch14_dinov2.lvd142m",
        "vit_small_patch16_dinov3.lvd1689m",
        "vit_base_patch16_clip_224.openai",
        "convnext_base.fb_in22k_ft_in1k",
        "convnextv2_tiny.fcmae_ft_in22k_in1k",
        "coatnet_rmlp_2_rw_224.sw_in12k_ft_in1k",
        "maxvit_base_tf_224.in21k",
        "swin_base_patch4_window7_224.ms_in22k",
    ),
    "student": (
        "test_resnet",
        "mobilenetv3_small_100",
        "mobilenetv4_conv_small",
        "efficientnet_lite0",
        "repvit_m0_9",
        "resnet18",
        "mobilevit_xs",
        "fastvit_t8",
        "efficientformerv2_s0",
        "vit_tiny_patch16_224",
        "deit_tiny_patch16_224",
        "tiny_vit_5m_224",
    ),
}


class CatalogEntry(BaseModel):
    """A model: its size in parameters and in GMACs at `input_size` pixels, licence and family."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    roles: list[Role]
    family: Literal["cnn", "transformer", "hybrid"]
    params: int
    gmacs: float
    input_size: int
    licence: str | None
    offline: bool
    recommended: bool
    tags: list[str]


@cache
def _architectures() -> dict[str, CatalogEntry]:
    rows = json.loads((ASSETS / "catalog.json").read_text(encoding="utf-8"))
    return {row["name"]: _entry(row) for row in rows}


def _entry(row: dict[str, Any]) -> CatalogEntry:
    bundled = row["name"] in BUNDLED
    roles: list[Role] = ["foundation", "student"] if row["tags"] else ["student"]
    return CatalogEntry(
        **row,
        roles=["foundation"] if bundled else roles,
        offline=bundled,
        recommended=False,
    )


def entries(role: Role | None = None) -> list[CatalogEntry]:
    """The recommended models, those that can play `role` or all of them."""
    roles: tuple[Role, ...] = (role,) if role else ("foundation", "student")
    return [_recommended(name, each) for each in roles for name in RECOMMENDED[each]]


def _recommended(name: str, role: Role) -> CatalogEntry:
    entry = _architectures()[name.partition(".")[0]]
    # A student starts from random weights, so it needs nothing from a network.
    offline = role == "student" or entry.offline
    update = {"name": name, "roles": [role], "offline": offline, "recommended": True}
    return entry.model_copy(update=update)


def names(role: Role) -> list[str]:
    """Every name that `require` takes for `role`, without the tags of published weights."""
    return [entry.name for entry in _architectures().values() if role in entry.roles]


def find(name: str) -> CatalogEntry | None:
    """A model's entry by its name, with or without a tag; None for one of no known size."""
    return _architectures().get(name.partition(".")[0])


def require(name: str, role: Role) -> str:
    """Check a model's name and give what timm calls it.

    Raises UnknownModelError, with the nearest known names, for a name that can't play `role`.
    """
    if name in BUNDLED and role == "foundation":
        return f"local-dir:{ASSETS / name}"
    architecture, _, tag = name.partition(".")
    entry = _architectures().get(architecture)
    if entry is None or role not in entry.roles:
        known = names(role)
        reason = "has no published weights" if entry else "isn't a timm model that offers taps"
        raise UnknownModelError(
            f"{name!r} {reason}, so it can't be the {role}.",
            suggestion=near_matches(architecture, [n for n in known if n != name]),
        )
    if tag and tag not in entry.tags:
        raise UnknownModelError(
            f"{architecture!r} has no weights tagged {tag!r}.",
            suggestion=f"Known: {', '.join(entry.tags) or 'none'}.",
        )
    return name
