"""The architectures that are pre-trained, one of each family, and how their weights are learned."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from letters import IMAGE_SIZE
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

MUON_LR, ADAM_LR, WEIGHT_DECAY = 0.02, 5e-3, 0.05


@dataclass(frozen=True)
class Family:
    """A timm architecture with the arguments that shrink it to 32 x 32 images.

    `textures` is the share of textures in its pre-training, `kernels` says whether Muon also
    trains its convolutions, each as the matrix of its filters.
    """

    architecture: str
    model_args: dict[str, Any]
    steps: int
    first_conv: str
    classifier: str
    textures: float = 0.0
    kernels: bool = False
    tag: str = "letters"

    def create(self) -> nn.Module:
        """The model with random weights and without a classifier."""
        model: nn.Module = timm.create_model(self.architecture, num_classes=0, **self.model_args)
        return model


# With timm's layer scale of 1e-6 the blocks hardly act in so short a training.
FAMILIES = {
    # Keys and values of 4 x 4, 4 x 4, 2 x 2 and 1 positions.
    "transformer": Family(
        "pvt_v2_b0", {"sr_ratios": [2, 1, 1, 1]}, 4000, "patch_embed.proj", "head"
    ),
    "cnn": Family(
        "test_convnext2",
        {"dims": [48, 80, 112, 140], "kernel_sizes": [5, 3, 3, 3], "ls_init_value": 0.5},
        4000,
        "stem.0",
        "head.fc",
        textures=0.27,
        kernels=True,
        tag="letters_textures",
    ),
    "hybrid": Family(
        "edgenext_xx_small",
        {
            "depths": [1, 2, 2, 1],
            "dims": [32, 64, 88, 104],
            "heads": [4, 4, 4, 4],
            "kernel_sizes": [5, 3, 3, 3],
            "ls_init_value": 0.5,
        },
        4000,
        "stem.0",
        "head.fc",
        textures=0.27,
        kernels=True,
        tag="letters_textures",
    ),
}
FOLDERS = {"transformer": "letters_vit", "cnn": "letters_cnn", "hybrid": "letters_hybrid"}


class MatrixMuon(Muon):
    """Muon for contiguous weights of any rank, all dimensions but the first taken as one."""

    def __init__(self, weights: list[nn.Parameter], **options: float) -> None:
        self.weights = weights
        views = [nn.Parameter(weight.detach().view(len(weight), -1)) for weight in weights]
        super().__init__(views, **options)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        for matrix, weight in zip(self.param_groups[0]["params"], self.weights, strict=True):
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        return super().step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for weight in self.weights:
            weight.grad = None


def matrices(model: nn.Module, kernels: bool) -> list[nn.Parameter]:
    """Weights for Muon: of the linear layers past the first convolution, and of convolutions."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][1:]
    return [
        layer.weight
        for layer in layers
        if isinstance(layer, nn.Linear) or (kernels and layer.groups == 1)
    ]


def optimizers(model: nn.Module, heads: nn.Module, kernels: bool) -> list[Optimizer]:
    """Muon for the matrices of the model, AdamW for all the rest."""
    inner = matrices(model, kernels)
    inside = {id(weight) for weight in inner}
    others = [w for part in (model, heads) for w in part.parameters() if id(w) not in inside]
    groups = [
        {"params": [w for w in others if w.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [w for w in others if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return [
        MatrixMuon(inner, lr=MUON_LR, weight_decay=WEIGHT_DECAY),
        AdamW(groups, lr=ADAM_LR, betas=(0.9, 0.98), fused=True),
    ]


def stored(value: Tensor) -> Tensor:
    """As it is written: floats in bf16, counters as they are."""
    return (value.bfloat16() if value.is_floating_point() else value).contiguous()


def save(model: nn.Module, family: Family, folder: Path) -> None:
    """Write the bf16 weights and the config that `timm.create_model("local-dir:...")` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: stored(value) for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = {
        "architecture": family.architecture,
        "num_classes": 0,
        "num_features": model.num_features,
        "global_pool": "avg",
        "model_args": family.model_args,
        "pretrained_cfg": {
            "tag": family.tag,
            "custom_load": False,
            "input_size": [3, IMAGE_SIZE, IMAGE_SIZE],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": 0,
            "pool_size": None,
            "first_conv": family.first_conv,
            "classifier": family.classifier,
            "license": "apache-2.0",
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
