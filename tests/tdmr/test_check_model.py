"""What the check of uploaded weights says of them, and what a job sees of a model of one's own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tdmr import own, weights
from tdmr.check_model import examine
from tdmr.errors import ModelWeightsError, UnknownModelError
from tdmr.models import load_foundation
from tdmr.own import OwnModel, Report

State = dict[str, torch.Tensor]
Change = Callable[[State], State]
NAME = "mod_01"


def state(architecture: str = "test_vit", **options: object) -> State:
    torch.manual_seed(0)
    found: State = timm.create_model(architecture, **options).state_dict()
    return found


def offer(folder: Path, found: State, architecture: str = "test_vit") -> Path:
    """JOB_DIR/models with one model, licensed under isc."""
    about = OwnModel(name="ours", architecture=architecture, licence="isc", sha256="0" * 64)
    save_file(found, own.place(folder, NAME, about))
    return folder


def examined(folder: Path, found: State, architecture: str = "test_vit") -> Report:
    with own.offered(offer(folder, found, architecture)):
        return examine(NAME)


def infinite(found: State) -> State:
    return {**found, "norm.weight": torch.full_like(found["norm.weight"], float("nan"))}


def quantised(found: State) -> State:
    return {**found, "norm.weight": torch.ones_like(found["norm.weight"], dtype=torch.int8)}


def reshaped(found: State) -> State:
    return {**found, "norm.weight": torch.ones(65)}


def without(found: State) -> State:
    return {name: tensor for name, tensor in found.items() if name != "blocks.0.attn.qkv.weight"}


def renamed(found: State) -> State:
    return {f"backbone.encoder.{name}": tensor for name, tensor in found.items()}


def too_large(found: State) -> State:
    wide = found["norm.weight"].double()
    return {**found, "norm.weight": torch.full_like(wide, 1e300)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (infinite, "aren't finite numbers: norm.weight (1 in all)"),
        (too_large, "aren't finite numbers: norm.weight (1 in all)"),
        (quantised, "norm.weight: expected floating-point numbers, found int8"),
        (reshaped, "norm.weight: expected (64,), found (65,)"),
        (without, "blocks.0.attn.qkv.weight: expected (192, 64), found none"),
        (renamed, "and 154 more"),
    ],
)
def test_what_differs_is_said(tmp_path: Path, change: Change, said: str) -> None:
    report = examined(tmp_path, change(state()))
    (finding,) = report.findings
    assert (finding.code, report.params, report.ok) == ("model_weights", None, False)
    assert said in finding.detail
    assert str(tmp_path) not in finding.detail + finding.advice
    assert finding.advice


def test_what_fits_is_described_with_or_without_a_classifier(tmp_path: Path) -> None:
    whole = examined(tmp_path / "whole", state())
    headless = {name: t for name, t in state().items() if not name.startswith("head.")}
    bare = examined(tmp_path / "bare", headless)
    assert (whole.ok, whole.params, whole.input_size, whole.channels) == (True, 306_240, 160, 3)
    assert (bare.ok, bare.params, bare.fingerprint) == (True, 306_240, whole.fingerprint)
    half = {name: tensor.half() for name, tensor in headless.items()}
    assert examined(tmp_path / "half", half).ok
    grey = examined(tmp_path / "grey", state(in_chans=1, num_classes=5))
    assert (grey.ok, grey.channels) == (True, 1)


def test_the_tag_tells_size_mean_and_deviation(tmp_path: Path) -> None:
    tagged = "test_vit.r160_in1k"
    with own.offered(offer(tmp_path, state(), tagged)):
        found = load_foundation(NAME, None, 4, torch.device("cpu"))
        assert weights.locate(NAME, "foundation").reference == tagged
        assert found.bytes == (tmp_path / NAME / own.WEIGHTS).stat().st_size
    assert found.size == timm.models.get_pretrained_cfg(tagged).input_size[-1]


def test_its_licence_is_the_owners_word_and_never_the_architectures(tmp_path: Path) -> None:
    with own.offered(offer(tmp_path, state(), "test_vit.r160_in1k")):
        found = load_foundation(NAME, None, 4, torch.device("cpu"))
        assert found.model.pretrained_cfg["license"] == "apache-2.0"
        assert found.licence == "isc"


def test_a_name_means_something_only_where_it_is_offered(tmp_path: Path) -> None:
    offer(tmp_path, state())
    with pytest.raises(UnknownModelError, match="aren't here"):
        weights.locate(NAME, "foundation")
    seen: list[object] = []
    with own.offered(tmp_path):
        assert own.find(NAME) is not None
        assert [own.find(name) for name in ("mod_02", "..", "mod_../x", "test_vit")] == [None] * 4
        thread = threading.Thread(target=lambda: seen.append(own.find(NAME)))
        thread.start()
        thread.join()
        with pytest.raises(UnknownModelError, match="can't be the student"):
            weights.locate(NAME, "student")
    assert (own.find(NAME), seen) == (None, [None])


def test_nothing_but_safetensors_is_read(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return os.mkdir, (str(tmp_path / "done"),)

    offer(tmp_path / "models", state())
    torch.save({"a": Evil()}, tmp_path / "models" / NAME / own.WEIGHTS)
    with own.offered(tmp_path / "models"):
        (finding,) = examine(NAME).findings
    file = tmp_path / "models" / NAME / own.WEIGHTS
    later = weights.Source(NAME, "foundation", "test_vit", file)  # as if it broke behind its header
    with pytest.raises(ModelWeightsError) as broken:
        weights.create(later, 0, weights=True)
    for said in (finding.detail, broken.value.detail):
        assert said.startswith(f"'{NAME}' can't be read as safetensors")
        assert str(tmp_path) not in said
    assert not (tmp_path / "done").exists()
