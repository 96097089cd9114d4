"""Write tdmr/assets/catalog.json: every timm architecture that offers intermediate features.

    python scripts/make_catalog.py        about 6 minutes on 2 cores, without a network

The server can't import timm, yet must say at once whether a model's name is right and what the
model costs. Models are built on the meta device: no weights are made or fetched.
"""

from __future__ import annotations

import json
import logging
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import timm
import torch
from rich.progress import track
from torch.utils.flop_counter import FlopCounterMode

ASSETS = Path(__file__).parent.parent / "tdmr" / "assets"
BUNDLED = ("letters_vit", "letters_cnn", "letters_hybrid")

# timm's own modules, by what they mix pixels with.
TRANSFORMERS = {
    "beit", "cait", "convit", "crossvit", "davit", "deit", "eva", "gcvit", "hiera", "hieradet_sam2",
    "mvitv2", "naflexvit", "nest", "pit", "pvt_v2", "sequencer", "swin_transformer",
    "swin_transformer_v2", "swin_transformer_v2_cr", "tnt", "twins", "vision_transformer",
    "vision_transformer_relpos", "vision_transformer_sam", "vitamin", "volo", "xcit", "mambaout",
    "mlp_mixer", "rdnet", "visformer",
}  # fmt: skip
HYBRIDS = {
    "coat", "csatv2", "edgenext", "efficientformer", "efficientformer_v2", "efficientvit_mit",
    "efficientvit_msra", "fasternet", "fastvit", "levit", "maxxvit", "mobilevit", "nextvit",
    "poolformer", "repghost", "shvit", "swiftformer", "tiny_vit", "vision_transformer_hybrid",
    "byoanet", "metaformer",
}  # fmt: skip
CONVOLUTIONAL = {"fasternet", "mambaout", "rdnet", "repghost"}


def family(name: str) -> str:
    """cnn, transformer or hybrid, by the timm module that the model is defined in."""
    module = timm.model_entrypoint(name).__module__.rsplit(".", 1)[-1]
    if module in CONVOLUTIONAL:
        return "cnn"
    if module in HYBRIDS:
        return "hybrid"
    return "transformer" if module in TRANSFORMERS else "cnn"


def describe(name: str, tags: list[str], source: str | None = None) -> dict[str, Any] | None:
    """One catalog entry, or None for a model without intermediate features."""
    with torch.device("meta"):
        model = timm.create_model(source or name).eval()
    if not hasattr(model, "forward_intermediates"):
        return None
    config = model.pretrained_cfg
    size = config["input_size"]
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        model.forward_intermediates(torch.zeros(1, *size, device="meta"))
    return {
        "name": name,
        "family": family(config["architecture"]),
        "params": sum(p.numel() for p in model.parameters()),
        "gmacs": round(flops.get_total_flops() / 2e9, 3),
        "input_size": size[-1],
        "licence": config.get("license"),
        "tags": tags,
    }


def main() -> None:
    """Describe every architecture; say which were left out and why."""
    logging.getLogger("timm").setLevel(logging.ERROR)
    tags: dict[str, list[str]] = defaultdict(list)
    for tagged in timm.list_models(pretrained=True):
        name, _, tag = tagged.partition(".")
        tags[name].append(tag)
    entries = [describe(name, [], f"local-dir:{ASSETS / name}") for name in BUNDLED]
    left_out = []
    for name in track(timm.list_models(), description="models"):
        try:
            entry = describe(name, tags[name])
        except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError) as error:
            left_out.append(f"{name}: {type(error).__name__}: {str(error)[:80]}")
            continue
        if entry:
            entries.append(entry)
        else:
            left_out.append(f"{name}: no forward_intermediates")
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    (ASSETS / "catalog.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(
        f"{len(entries)} models; left out {len(left_out)}:", *left_out, sep="\n  ", file=sys.stderr
    )


if __name__ == "__main__":
    main()
