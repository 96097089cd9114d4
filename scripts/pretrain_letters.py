"""Pre-train the demo's foundation model: a small vision transformer that has only seen letters.

The architecture is timm's Pyramid Vision Transformer v2 (arXiv 2106.13797), which at this size
learned in seconds what a plain ViT had not begun to learn in minutes.

It learns 888 classes of printed letters (2,157 letters of 16 scripts in 22 fonts; look-alikes share
a class) and 1,000 invented pen-stroke characters. No number is among them. Two heads, dropped
afterwards, tell the class (cosine classifier) and the clean, blurred shape of the class: the second
is what makes few images enough. The matrices of the transformer are trained with Muon
(https://kellerjordan.github.io/posts/muon/), the rest with AdamW; the average of the weights is
stored in bf16.

The stored weights come from

    python scripts/pretrain_letters.py --seed 0 --steps 4000 --threads 1

in 1,845 seconds on one of two shared AMD EPYC cores (torch 2.15, CPU): 768,000 images. They put
61.3 % of 4,000 renderings of held-out glyphs, deformed at full strength, in the right one of the
1,888 classes.
"""

import argparse
import json
import math
import time
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from letters import IMAGE_SIZE, SHAPE_SIZE, InventedAlphabet, finish, glyph_bank, photograph
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

ARCHITECTURE = "pvt_v2_b0"  # Pyramid Vision Transformer v2: overlapping patches, four scales
MODEL_ARGS = {"sr_ratios": [2, 1, 1, 1]}  # keys and values of 4 x 4, 4 x 4, 2 x 2 and 1 positions
INVENTED_CLASSES = 1000
INVENTED_SHARE = 0.4
BATCH = 192
MUON_LR, ADAM_LR, WEIGHT_DECAY = 0.02, 5e-3, 0.05
WARM_UP, RAMP = 0.1, 0.4  # parts of the run over which the rate and the deformations grow
COSINE_SCALE = 16.0
LABEL_SMOOTHING = 0.1
SHAPE_WEIGHT = 3.0
EMA = 0.995
EVERY_HELD_OUT = 20


class Characters:
    """Images (n, 3, 32, 32) with their class numbers: the letters first, then the invented ones."""

    def __init__(self, seed: int) -> None:
        self.bank = glyph_bank()
        self.alphabet = InventedAlphabet.draw(INVENTED_CLASSES, torch.Generator().manual_seed(seed))
        self.classes = self.bank.classes + INVENTED_CLASSES
        counts = self.bank.labels.bincount()[self.bank.labels]
        every = torch.arange(len(counts)) % EVERY_HELD_OUT == 0
        self.held_out = every & (counts >= EVERY_HELD_OUT // 2)  # glyphs, never whole classes
        self.weights = counts.float().rsqrt()

    def shapes(self) -> Tensor:
        """Each class's blurred clean shape, standardised over the classes, (classes, 256)."""
        clean = torch.cat([self.bank.shapes(), self.alphabet.shapes()])
        shapes = F.avg_pool2d(clean, 3, 1, 1).flatten(1)
        return (shapes - shapes.mean(0)) / (shapes.std(0) + 0.05)

    def letters(
        self, size: int, generator: torch.Generator, *, strength: float, held_out: bool
    ) -> tuple[Tensor, Tensor]:
        usable = self.weights * (self.held_out == held_out)
        index = usable.multinomial(size, replacement=True, generator=generator)
        images = photograph(self.bank.images[index], generator, strength)
        return images, self.bank.labels[index]

    def batch(self, generator: torch.Generator, strength: float) -> tuple[Tensor, Tensor]:
        """A training batch of letters and invented characters."""
        invented = round(BATCH * INVENTED_SHARE)
        images, labels = self.letters(
            BATCH - invented, generator, strength=strength, held_out=False
        )
        drawn = torch.randint(INVENTED_CLASSES, (invented,), generator=generator)
        written = finish(self.alphabet.write(drawn, generator, strength), generator)
        return torch.cat([images, written]), torch.cat([labels, drawn + self.bank.classes])


class Heads(nn.Module):
    """What the features must tell: the class, and the clean shape of the class."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(classes, features) * features**-0.5)
        self.shape = nn.Linear(features, SHAPE_SIZE**2)

    def logits(self, features: Tensor) -> Tensor:
        cosine = F.normalize(features, dim=1) @ F.normalize(self.directions, dim=1).T
        return COSINE_SCALE * cosine

    def losses(self, features: Tensor, labels: Tensor, shapes: Tensor) -> dict[str, Tensor]:
        logits = self.logits(features)
        return {
            "class": F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING),
            "shape": F.mse_loss(self.shape(features), shapes[labels]),
        }


def optimizers(model: nn.Module, heads: nn.Module) -> list[Optimizer]:
    """Muon for the matrices of the transformer blocks, AdamW for all the rest."""
    matrices = [weight for weight in model.stages.parameters() if weight.ndim == 2]
    inside = {id(weight) for weight in matrices}
    others = [w for part in (model, heads) for w in part.parameters() if id(w) not in inside]
    groups = [
        {"params": [w for w in others if w.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [w for w in others if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return [
        Muon(matrices, lr=MUON_LR, weight_decay=WEIGHT_DECAY),
        AdamW(groups, lr=ADAM_LR, betas=(0.9, 0.98), fused=True),
    ]


def rate(done: float) -> float:
    """Share of the peak learning rate: a linear warm-up, then a cosine to zero."""
    if done < WARM_UP:
        return done / WARM_UP
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def train(characters: Characters, steps: int, seed: int) -> tuple[nn.Module, Heads]:
    """The averaged model, in evaluation mode, and its heads."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    model = timm.create_model(ARCHITECTURE, num_classes=0, **MODEL_ARGS)
    heads = Heads(model.num_features, characters.classes)
    weights = [*model.parameters(), *heads.parameters()]
    shapes = characters.shapes()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA))
    optims = optimizers(model, heads)
    peaks = [group["lr"] for optim in optims for group in optim.param_groups]
    for step in track(range(steps), "Pre-training"):
        done = step / steps
        for group, peak in zip(
            [group for optim in optims for group in optim.param_groups], peaks, strict=True
        ):
            group["lr"] = peak * rate(done)
        images, labels = characters.batch(generator, min(1.0, 0.1 + 0.9 * done / RAMP))
        with torch.autocast("cpu", torch.bfloat16):
            features = model(images)
        losses = heads.losses(features.float(), labels, shapes)
        loss = losses["class"] + SHAPE_WEIGHT * losses["shape"]
        if not loss.isfinite():
            raise FloatingPointError(f"the loss is not finite at step {step}")
        for optim in optims:
            optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        for optim in optims:
            optim.step()
        average.update_parameters(model)
        if step % 100 == 0:
            parts = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            print(f"step {step}: {parts}", flush=True)
    return average.module.eval(), heads.eval()


@torch.no_grad()
def accuracy(model: nn.Module, heads: Heads, characters: Characters) -> float:
    """Share of 4,000 held-out renderings of letters put in the right class, at full strength."""
    generator = torch.Generator().manual_seed(2**31)
    right = 0
    for _ in range(16):
        images, labels = characters.letters(250, generator, strength=1.0, held_out=True)
        right += int((heads.logits(model(images)).argmax(1) == labels).sum())
    return right / 4000


def save(model: nn.Module, folder: Path) -> None:
    """Write the bf16 weights and the config that `timm.create_model("local-dir:...")` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.bfloat16().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": 0,
        "num_features": model.num_features,
        "global_pool": "avg",
        "model_args": MODEL_ARGS,
        "pretrained_cfg": {
            "tag": "letters",
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
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": "apache-2.0",
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tdmr/assets/letters_vit"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000, help="batches of 192 images")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    started = time.perf_counter()
    characters = Characters(args.seed)
    print(f"{len(characters.bank.labels)} glyphs, {characters.classes} classes")
    model, heads = train(characters, args.steps, args.seed)
    save(model, args.out)
    stored = timm.create_model(f"local-dir:{args.out}", pretrained=True, num_classes=0).eval()
    print(f"held-out accuracy of the stored weights: {accuracy(stored, heads, characters):.3f}")
    print(f"{time.perf_counter() - started:.0f} seconds")


if __name__ == "__main__":
    main()
