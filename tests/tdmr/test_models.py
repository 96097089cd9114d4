"""The frozen foundation and the student."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from tdmr.errors import ModelWeightsError, OptionsError, UnknownModelError
from tdmr.models import (
    Foundation,
    load_foundation,
    make_student,
    matched_size,
    patch_size,
    size_warning,
    tap_indices,
)

CPU = torch.device("cpu")
# The smallest of many kinds, and how many levels of theirs can be tapped, at most 4.
ARCHITECTURES = {
    "cnn": {
        "convnext_atto": 4, "efficientnet_lite0": 4, "mobilenetv3_small_050": 4,
        "mobilenetv4_conv_small": 4, "regnety_002": 4, "repvit_m0_9": 4, "resnet10t": 4,
        "test_mambaout": 4, "test_nfnet": 4,
    },
    "transformer": {
        "convit_tiny": 4, "deit_tiny_distilled_patch16_224": 4, "eva02_tiny_patch14_224": 4,
        "gmlp_ti16_224": 4, "mvitv2_tiny": 4, "pvt_v2_b0": 4, "resmlp_12_224": 4,
        "swin_tiny_patch4_window7_224": 4, "test_vit_relpos": 4, "visformer_tiny": 3,
        "vit_tiny_patch16_dinov3_qkvb": 4, "xcit_nano_12_p16_224": 4,
    },
    "hybrid": {
        "edgenext_xx_small": 4, "efficientformerv2_s0": 4, "efficientvit_b0": 4,
        "fastvit_t8": 4, "levit_128s": 3, "mobilevit_xxs": 4, "mobilevitv2_050": 4,
        "swiftformer_xs": 4, "test_coatnet": 4, "test_maxvit": 4, "tiny_vit_5m_224": 4,
    },
}  # fmt: skip


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


@pytest.mark.parametrize(
    ("name", "levels"), [item for family in ARCHITECTURES.values() for item in family.items()]
)
def test_architectures_serve_both_sides(name: str, levels: int) -> None:
    size = 56 if "patch14" in name else 64
    images = torch.rand(2, 3, size, size)
    student = make_student(name, size, 4, 5, pretrained=False, seed=1).eval()
    with torch.no_grad():
        output = student(images)
        expected = student.model((images - student.mean) / student.std)
    assert (output.logits - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)
    channels = [student.model.feature_info[i]["num_chs"] for i in student.tap_indices]
    assert [tap.shape for tap in output.taps] == [(2, width) for width in channels]
    assert len(channels) == levels

    foundation = Foundation(student.model, name, size, 4)
    taps = foundation.features(images)
    doubled = 2 if getattr(student.model, "cls_token", None) is not None else 1
    if name.startswith(("xcit", "convit")):
        doubled = 1  # their class tokens come after the levels that are tapped
    assert [tap.shape for tap in taps] == [(2, width * doubled) for width in channels]
    assert all(bool(tap.isfinite().all()) for tap in taps)


def test_maps_with_channels_last_are_pooled_over_their_places() -> None:
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, depths=(1, 1, 1, 1)
    )
    foundation = Foundation(model, "swin", 56, 2)
    images = torch.rand(2, 3, 56, 56)
    x = (images - foundation._mean) / foundation._std
    last = model.forward_features(x).mean(dim=(1, 2))
    maps = model.forward_intermediates(
        x, indices=foundation.tap_indices, norm=True, intermediates_only=True
    )
    torch.testing.assert_close(maps[-1].mean(dim=(2, 3)), last)
    assert foundation.features(images)[-1].shape == last.shape == (2, 96)


def test_registers_are_no_class_token() -> None:
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 2}
    images = torch.rand(2, 3, 32, 32)

    def taps(**tokens: object) -> list[torch.Tensor]:
        torch.manual_seed(3)
        model = timm.create_model("vit_tiny_patch16_224", **arguments, **tokens)
        return Foundation(model, "vit", 32, 4).features(images)

    both = taps(reg_tokens=3)
    assert [tap.shape for tap in both] == [(2, 96)] * 4
    alone = taps(reg_tokens=3, class_token=False, global_pool="avg")
    assert [tap.shape for tap in alone] == [(2, 48)] * 4


@pytest.mark.parametrize(
    ("own", "patch", "grid", "resizes", "side"),
    [
        (518, 14, 14, True, 196),  # as many patches as a student of 224 pixels in 16s
        (224, 16, 14, True, 224),
        (224, 16, 7, True, 112),
        (518, 14, None, True, 518),  # a student of several resolutions
        (224, None, 14, True, 224),  # or such a foundation
        (224, 16, 7, False, 224),  # or one that takes no other size
    ],
)
def test_grids_are_matched(
    own: int, patch: int | None, grid: int | None, resizes: bool, side: int
) -> None:
    assert matched_size(own, patch, grid, resizes) == side


def test_a_foundation_is_fed_as_many_patches_as_the_student(tmp_path: Path) -> None:
    student = make_student("test_vit", 64, 4, 5, pretrained=False, seed=0)
    assert student.grid == 4
    assert make_student("test_resnet", 64, 4, 5, pretrained=False, seed=0).grid is None
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=84, patch_size=14, embed_dim=48, depth=4, num_heads=2
    )
    save_for_hf(
        model, str(tmp_path), data_config={"input_size": (3, 84, 84)}, safe_serialization=True
    )
    name = f"local-dir:{tmp_path}"
    assert patch_size(model) == 14
    foundation = load_foundation(name, None, 4, CPU, student_grid=student.grid)
    assert foundation.size == 56
    assert [t.shape for t in foundation.features(torch.rand(2, 3, 56, 56))] == [(2, 96)] * 4
    assert load_foundation(name, None, 4, CPU).size == 84
    assert load_foundation(name, None, 4, CPU, student_grid=None).size == 84
    assert load_foundation(name, 28, 4, CPU, student_grid=student.grid).size == 28


def test_a_foundation_for_one_size_keeps_it(tmp_path: Path) -> None:
    model = timm.create_model("gmlp_ti16_224", img_size=64)
    data = {"input_size": (3, 64, 64)}
    save_for_hf(model, str(tmp_path), data_config=data, safe_serialization=True)
    name = f"local-dir:{tmp_path}"
    assert load_foundation(name, None, 4, CPU, student_grid=7).size == 64


def test_a_foundation_smaller_than_the_student_is_warned_of() -> None:
    assert size_warning(5_000_000, 5_000_000) is None
    warning = size_warning(1_200_000, 5_000_000)
    assert warning is not None
    assert "1,200,000" in warning
    assert "5,000,000" in warning


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
