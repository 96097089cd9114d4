"""The frozen foundation and the student."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from tdmr.errors import ModelWeightsError, OptionsError, UnknownModelError
from tdmr.models import load_foundation, make_student, tap_indices

CPU = torch.device("cpu")


def test_no_gradient_passes_the_foundation(foundation_folder: Path) -> None:
    foundation = load_foundation(f"local-dir:{foundation_folder}", None, 4, CPU)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    assert all(not tap.requires_grad for tap in foundation.features(images))
    assert not any(p.requires_grad for p in foundation.model.parameters())
    assert not any(m.training for m in foundation.model.modules())


def test_taps_are_mean_patch_and_class_token(foundation_folder: Path) -> None:
    foundation = load_foundation(f"local-dir:{foundation_folder}", None, 4, CPU)
    taps = foundation.features(torch.rand(5, 3, 32, 32))
    assert [tap.shape for tap in taps] == [(5, 96)] * 4
    assert foundation.widths == (96,) * 4
    assert foundation.forwards == 5


def test_the_last_tap_is_what_the_model_itself_gives(foundation_folder: Path) -> None:
    foundation = load_foundation(f"local-dir:{foundation_folder}", None, 4, CPU)
    images = torch.rand(3, 3, 32, 32)
    tokens = foundation.model.forward_features((images - 0.5) / 0.5)
    last = foundation.features(images)[-1]
    normed = foundation.model.norm  # timm's intermediates come before the final norm
    mean = normed(
        foundation.model.forward_intermediates(
            (images - 0.5) / 0.5, indices=1, intermediates_only=True, output_fmt="NLC"
        )[0]
    )
    torch.testing.assert_close(mean, tokens[:, 1:], rtol=1e-4, atol=1e-4)
    assert last.shape == (3, 96)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_a_student_classifies_as_its_timm_model_does(name: str) -> None:
    student = make_student(name, 32, 4, 5, pretrained=False, seed=1)
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(
        student(images).logits, student.model((images - student.mean) / student.std)
    )
    assert [tap.shape[1] for tap in student(images).taps] == student.tap_widths()


def test_a_student_is_a_function_of_its_seed() -> None:
    first, second, third = (
        make_student("test_resnet", 32, 4, 5, pretrained=False, seed=s).state_dict()
        for s in (1, 1, 2)
    )
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["model.fc.weight"], third["model.fc.weight"])


def test_taps_lie_at_quarters_of_the_depth() -> None:
    assert tap_indices(timm.create_model("test_vit"), 4) == [1, 2, 4, 5]
    assert tap_indices(timm.create_model("test_resnet"), 4) == [1, 2, 3, 4]
    assert tap_indices(timm.create_model("test_resnet"), 8) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "near"), [("resnet81", "resnet18"), ("mobilnetv3_small_100", "mobilenetv3_small_100")]
)
def test_an_unknown_name_is_answered_with_near_ones(name: str, near: str) -> None:
    with pytest.raises(UnknownModelError, match=near):
        make_student(name, None, 4, 5, pretrained=False, seed=0)


def test_weights_that_are_not_safetensors_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelWeightsError, match=r"no model\.safetensors"):
        load_foundation(f"local-dir:{tmp_path}", None, 4, CPU)


def test_a_folder_that_is_no_model() -> None:
    with pytest.raises(ModelWeightsError, match=r"no config\.json"):
        load_foundation("local-dir:/nowhere", None, 4, CPU)


def test_a_size_that_does_not_fit() -> None:
    with pytest.raises(OptionsError, match="image_size"):
        make_student("test_convnext", 16, 4, 5, pretrained=False, seed=0)


def test_another_size_is_resampled(foundation_folder: Path) -> None:
    foundation = load_foundation(f"local-dir:{foundation_folder}", 64, 2, CPU)
    assert [t.shape for t in foundation.features(torch.rand(2, 3, 64, 64))] == [(2, 96)] * 2
