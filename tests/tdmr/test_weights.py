"""Names of models, and weights that are refused unless they fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from tdmr.errors import ModelWeightsError, OptionsError, TdmrError, UnknownModelError
from tdmr.models import Foundation, load_foundation, make_student
from tdmr.weights import locate

CPU = torch.device("cpu")
Change = Callable[[dict[str, torch.Tensor]], Any]


def state_of(architecture: str, seed: int = 5, **arguments: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return dict(timm.create_model(architecture, **arguments).state_dict())


def load(name: str, size: int | None = None) -> Foundation:
    return load_foundation(name, size, 4, CPU)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    """Weights of an architecture, changed by a function, as a name for `load`."""

    def make(architecture: str, change: Change = lambda state: None, **arguments: Any) -> str:
        state = state_of(architecture, **arguments)
        change(state)
        save_file(state, tmp_path / "user@home.safetensors")
        return f"safetensors:{architecture}@{tmp_path / 'user@home.safetensors'}"

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A timm folder of test_resnet for 32 pixels and 3 classes."""
    torch.manual_seed(5)
    model = timm.create_model("test_resnet", num_classes=3)
    save_for_hf(
        model, str(tmp_path), data_config={"input_size": (3, 32, 32)}, safe_serialization=True
    )
    return tmp_path


def test_a_file_of_ones_own(file: Callable[..., str]) -> None:
    foundation = load(file("test_resnet"), 32)
    state = state_of("test_resnet")
    assert all(torch.equal(state[k], v) for k, v in foundation.model.state_dict().items())
    assert foundation.size == 32
    # The file, with the classifier that isn't loaded.
    assert foundation.bytes > sum(t.nbytes for t in foundation.model.state_dict().values())


def test_a_tag_tells_size_and_normalisation(file: Callable[..., str]) -> None:
    name = file("test_vit").replace("test_vit@", "test_vit.r160_in1k@")
    foundation = load(name)
    assert foundation.size == 160
    assert foundation.model.pretrained_cfg["tag"] == "r160_in1k"


@pytest.mark.parametrize("classes", [0, 5, 1000])
def test_a_student_starts_from_a_file_with_or_without_a_classifier(
    classes: int, file: Callable[..., str]
) -> None:
    name = file("levit_128s", num_classes=classes)  # whose classifier has a norm of its own
    mine = make_student(name, None, 4, 5, pretrained=True, seed=1).model.state_dict()
    saved = load_file(name.partition("@")[2])
    body = {key for key in mine if not key.startswith("head")}
    assert 0 < len(body) < len(mine)
    assert all(torch.equal(saved[key], mine[key]) for key in body)
    head = "head.linear.weight"
    assert (head in saved and torch.equal(saved[head], mine[head])) == (classes == 5)


def test_a_student_that_is_not_pretrained_takes_the_architecture_alone(
    file: Callable[..., str],
) -> None:
    name = file("test_resnet", num_classes=5)
    mine, plain = (
        make_student(n, 32, 4, 5, pretrained=False, seed=1).state_dict()
        for n in (name, "test_resnet")
    )
    assert all(torch.equal(mine[key], plain[key]) for key in plain)


def test_positions_are_resampled_and_other_shapes_are_not(file: Callable[..., str]) -> None:
    name = file("test_vit", img_size=96)  # 6 x 6 patches, where the architecture has 10 x 10
    assert load(name).model.pos_embed.shape[1] == 1 + 100
    assert load(name, 64).model.pos_embed.shape[1] == 1 + 16
    other = file("test_vit", patch_size=8)
    with pytest.raises(
        ModelWeightsError, match=r"proj.weight: expected .*16, 16\), found .*8, 8\)"
    ):
        load(other)


def test_weights_for_one_size_alone(file: Callable[..., str]) -> None:
    with pytest.raises(ModelWeightsError, match=r"attention_biases.*Leave its size open"):
        load(file("levit_128s"), 64)


def _drop(state: dict[str, torch.Tensor]) -> None:
    del state["conv1.0.weight"]


def _add(state: dict[str, torch.Tensor]) -> None:
    state["extra.weight"] = torch.zeros(3, 4)


def _reshape(state: dict[str, torch.Tensor]) -> None:
    state["conv1.0.weight"] = torch.zeros(7, 3, 5, 5)


def _rename(state: dict[str, torch.Tensor]) -> None:
    for name in list(state):
        state[f"backbone.{name}"] = state.pop(name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop, r"conv1\.0\.weight: expected \(16, 3, 3, 3\), found none\. Name the archi"),
        (_add, r"extra\.weight: expected none, found \(3, 4\)\. Name the architecture"),
        (_reshape, r"conv1\.0\.weight: expected \(16, 3, 3, 3\), found \(7, 3, 5, 5\)\."),
        (_rename, r"conv1\.0\.weight: expected .* found none; .*; and 178 more\."),
    ],
)
def test_weights_of_another_architecture(
    change: Change, said: str, file: Callable[..., str], folder: Path
) -> None:
    with pytest.raises(ModelWeightsError, match=said):
        load(file("test_resnet", change))
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelWeightsError, match=r"don't fit test_resnet: .*config\.json"):
        load(f"local-dir:{folder}")


def test_weights_that_are_not_numbers(file: Callable[..., str]) -> None:
    def spoil(state: dict[str, torch.Tensor]) -> None:
        state["fc.weight"][0, 0] = torch.nan  # which a foundation doesn't have
        state["layer1.0.conv1.weight"][0, 0, 0, 0] = torch.inf

    with pytest.raises(ModelWeightsError, match=r"finite numbers: layer1\.0\.conv1\.weight \(1 "):
        load(file("test_resnet", spoil))


@pytest.mark.parametrize("keep", [0, 4, 100, -10])
def test_a_torn_file(keep: int, file: Callable[..., str], folder: Path) -> None:
    name = file("test_resnet")
    for path in (Path(name.partition("@")[2]), folder / "model.safetensors"):
        path.write_bytes(path.read_bytes()[:keep])
    for torn in (name, f"local-dir:{folder}"):
        with pytest.raises(ModelWeightsError, match="can't be read as safetensors"):
            load(torn)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    torch.save(state_of("test_resnet"), tmp_path / "weights.pth")
    with pytest.raises(ModelWeightsError, match="can't be read as safetensors"):
        load(f"safetensors:test_resnet@{tmp_path / 'weights.pth'}")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{", "isn't JSON"),
        ("[]", "names none"),
        ("{}", "names none"),
        ('{"architecture": "resnet81"}', "'resnet81', which timm doesn't know"),
        ('{"architecture": "test_resnet", "model_args": {"depth": 3}}', "unexpected keyword"),
        ('{"architecture": "test_vit"}', "don't fit test_vit: cls_token: expected"),
    ],
)
def test_a_config_that_does_not_help(written: str, said: str, folder: Path) -> None:
    (folder / "config.json").write_text(written)
    with pytest.raises(ModelWeightsError, match=said) as raised:
        load(f"local-dir:{folder}")
    assert raised.value.suggestion


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("safetensors:test_resnet", ModelWeightsError, "ARCHITECTURE@FILE"),
        ("safetensors:@w.safetensors", ModelWeightsError, "ARCHITECTURE@FILE"),
        ("safetensors:test_resnet@/nowhere", ModelWeightsError, "no file '/nowhere'"),
        ("safetensors:resnet81@/nowhere", UnknownModelError, "resnet18"),
    ],
)
def test_names_that_lead_nowhere(name: str, error: type[TdmrError], said: str) -> None:
    with pytest.raises(error, match=said):
        locate(name, "foundation")


def test_what_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ModelWeightsError, match=r"no route to host Check the network.*local-dir"):
        load("resnet18")
    with pytest.raises(ModelWeightsError, match="Leave student_pretrained off"):
        make_student("resnet18", None, 4, 5, pretrained=True, seed=0)


def test_grey_weights_make_a_grey_model(file: Callable[..., str]) -> None:
    name = file("test_efficientnet", in_chans=1)
    assert locate(name, "foundation").channels == 1
    images = torch.rand(2, 3, 32, 32)
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    foundation = load(name, 32)
    for one, other in zip(
        foundation.features(images), foundation.features(grey.expand(-1, 3, -1, -1)), strict=True
    ):
        torch.testing.assert_close(one, other)
    student = make_student(name, 32, 4, 5, pretrained=True, seed=1).eval()
    assert student.channels == 1
    expected = student.model((grey - 0.449) / 0.226)  # the means of ImageNet's three
    torch.testing.assert_close(student(images).logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(
    channels: int, file: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(ModelWeightsError, match=f"found .*, {channels}, 3, 3"):
        load(file("test_resnet", in_chans=channels))
    model = timm.create_model("test_resnet", in_chans=channels)
    data = {"input_size": (channels, 32, 32)}
    save_for_hf(model, str(tmp_path / "f"), data_config=data, safe_serialization=True)
    with pytest.raises(ModelWeightsError, match=f"images of {channels} channels"):
        load(f"local-dir:{tmp_path / 'f'}")
    with pytest.raises(ModelWeightsError, match=f"images of {channels} channels"):
        make_student(f"local-dir:{tmp_path / 'f'}", 32, 4, 5, pretrained=False, seed=0)


def test_a_size_that_a_model_is_not_made_for(file: Callable[..., str]) -> None:
    with pytest.raises(OptionsError, match="48"):
        load(file("efficientformer_l1"), 48)
