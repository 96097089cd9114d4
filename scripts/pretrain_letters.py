"""Pre-train the bundled foundations: a transformer on letters, a CNN and a hybrid on textures too.

The transformer's architecture is timm's Pyramid Vision Transformer v2 (arXiv 2106.13797), which at
this size learned in seconds what a plain ViT had not begun to learn in minutes. The CNN is a narrow
ConvNeXt (arXiv 2201.03545), the hybrid a narrow EdgeNeXt (arXiv 2206.10589), both of under half a
million parameters.

They learn 888 classes of printed letters (2,157 letters of 16 scripts in 22 fonts; look-alikes
share a class) and 1,000 invented pen-stroke characters; the two small ones also 500 textures. No
number is among them. Two heads, dropped afterwards, tell the class (cosine classifier) and the
clean, blurred shape of a character: the second is what makes few images enough. The matrices of the
model, for the small ones also the kernels of full convolutions, are trained with Muon
(https://kellerjordan.github.io/posts/muon/), the rest with AdamW; the average of the weights is
stored in bf16.

The stored weights of the transformer come from

    python scripts/pretrain_letters.py --seed 0 --steps 4000 --threads 1

in 1,845 seconds on one of two shared AMD EPYC cores (torch 2.15, CPU): 768,000 images. They put
61.3 % of 4,000 renderings of held-out glyphs, deformed at full strength, in the right one of the
1,888 classes; by the nearest mean feature of a class, without the head, 54.2 %.

The weights of the CNN and of the hybrid come from

    python scripts/pretrain_letters.py --family cnn --seed 0 --steps 4000 --threads 1
    python scripts/pretrain_letters.py --family hybrid --seed 0 --steps 4000 --threads 1

in 1,863 and 2,099 seconds, both at once on two such cores that were busy with other programs: each
had about a quarter of that in core time, and 768,000 images. By the nearest mean feature they put
47.3 % and 47.5 % of the glyphs in the right class, and 27.4 % and 24.9 % of 4,000 new renderings of
the textures.
"""

import argparse
import math
import time
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from families import FAMILIES, FOLDERS, Family, optimizers, save
from letters import SHAPE_SIZE, InventedAlphabet, finish, glyph_bank, photograph
from rich.progress import track
from textures import Textures
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

INVENTED_CLASSES = 1000
INVENTED_SHARE = 0.4
BATCH = 192
WARM_UP, RAMP = 0.1, 0.4  # parts of the run over which the rate and the deformations grow
COSINE_SCALE = 16.0
LABEL_SMOOTHING = 0.1
SHAPE_WEIGHT = 3.0
EMA = 0.995
EVERY_HELD_OUT = 20


class Drawings:
    """Images (n, 3, 32, 32) with their class numbers: letters, invented characters, textures."""

    def __init__(self, seed: int, textures: float) -> None:
        self.bank = glyph_bank()
        self.alphabet = InventedAlphabet.draw(INVENTED_CLASSES, torch.Generator().manual_seed(seed))
        self.textures = Textures.draw(torch.Generator().manual_seed(seed))
        self.characters = self.bank.classes + INVENTED_CLASSES
        self.classes = self.characters + (self.textures.classes if textures else 0)
        self.textured = round(BATCH * textures)
        counts = self.bank.labels.bincount()[self.bank.labels]
        every = torch.arange(len(counts)) % EVERY_HELD_OUT == 0
        self.held_out = every & (counts >= EVERY_HELD_OUT // 2)  # glyphs, never whole classes
        self.weights = counts.float().rsqrt()

    def shapes(self) -> Tensor:
        """Each character's blurred clean shape, standardised over them, (characters, 256)."""
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

    def texture(
        self, size: int, generator: torch.Generator, strength: float
    ) -> tuple[Tensor, Tensor]:
        drawn = torch.randint(self.textures.classes, (size,), generator=generator)
        return self.textures.render(drawn, generator, strength), drawn + self.characters

    def batch(self, generator: torch.Generator, strength: float) -> tuple[Tensor, Tensor]:
        """A training batch of letters, invented characters and textures, in this order."""
        characters = BATCH - self.textured
        invented = round(characters * INVENTED_SHARE)
        images, labels = self.letters(
            characters - invented, generator, strength=strength, held_out=False
        )
        drawn = torch.randint(INVENTED_CLASSES, (invented,), generator=generator)
        written = finish(self.alphabet.write(drawn, generator, strength), generator)
        parts = [(images, labels), (written, drawn + self.bank.classes)]
        if self.textured:
            parts.append(self.texture(self.textured, generator, strength))
        return torch.cat([part for part, _ in parts]), torch.cat([part for _, part in parts])


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
        """Both losses; of a batch, the textures come last and have no shape."""
        logits = self.logits(features)
        shaped = int((labels < len(shapes)).sum())
        return {
            "class": F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING),
            "shape": F.mse_loss(self.shape(features[:shaped]), shapes[labels[:shaped]]),
        }


def rate(done: float) -> float:
    """Share of the peak learning rate: a linear warm-up, then a cosine to zero."""
    if done < WARM_UP:
        return done / WARM_UP
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def train(drawings: Drawings, family: Family, steps: int, seed: int) -> tuple[nn.Module, Heads]:
    """The averaged model, in evaluation mode, and its heads."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    model = family.create()
    heads = Heads(model.num_features, drawings.classes)
    weights = [*model.parameters(), *heads.parameters()]
    shapes = drawings.shapes()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA))
    optims = optimizers(model, heads, family.kernels)
    peaks = [group["lr"] for optim in optims for group in optim.param_groups]
    for step in track(range(steps), "Pre-training"):
        done = step / steps
        for group, peak in zip(
            [group for optim in optims for group in optim.param_groups], peaks, strict=True
        ):
            group["lr"] = peak * rate(done)
        images, labels = drawings.batch(generator, min(1.0, 0.1 + 0.9 * done / RAMP))
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
def accuracy(model: nn.Module, directions: Tensor, drawings: Drawings, textures: bool) -> float:
    """Share put in the right class of 4,000 renderings at full strength, by the largest cosine.

    They are of held-out glyphs, or new ones of the textures; `directions` is (classes, features).
    """
    generator = torch.Generator().manual_seed(2**31)
    right = 0
    for _ in range(16):
        if textures:
            images, labels = drawings.texture(250, generator, strength=1.0)
        else:
            images, labels = drawings.letters(250, generator, strength=1.0, held_out=True)
        cosine = F.normalize(model(images), dim=1) @ F.normalize(directions, dim=1).T
        right += int((cosine.argmax(1) == labels).sum())
    return right / 4000


@torch.no_grad()
def means(model: nn.Module, drawings: Drawings, textures: bool) -> Tensor:
    """Mean unit feature of every class, (classes, features), of 16,000 training renderings.

    It needs the stored weights alone, where the heads are dropped after training.
    """
    generator = torch.Generator().manual_seed(2**31 + 1)
    total = torch.zeros(drawings.classes, int(model.num_features))
    for _ in range(64):
        if textures:
            images, labels = drawings.texture(250, generator, strength=1.0)
        else:
            images, labels = drawings.letters(250, generator, strength=1.0, held_out=False)
        total.index_add_(0, labels, F.normalize(model(images), dim=1))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=FAMILIES, default="transformer")
    parser.add_argument("--out", type=Path, help="default: tdmr/assets/ and the family's name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="batches of 192 images; default: the family's")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    family = FAMILIES[args.family]
    folder = args.out or Path("tdmr/assets") / FOLDERS[args.family]
    started = time.perf_counter()
    drawings = Drawings(args.seed, family.textures)
    print(f"{len(drawings.bank.labels)} glyphs, {drawings.classes} classes")
    model, heads = train(drawings, family, args.steps or family.steps, args.seed)
    save(model, family, folder)
    stored = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    for kind in ("letters", "textures") if family.textures else ("letters",):
        textures = kind == "textures"
        by_head = accuracy(stored, heads.directions, drawings, textures)
        by_mean = accuracy(stored, means(stored, drawings, textures), drawings, textures)
        print(f"held-out accuracy of the stored weights on {kind}: {by_head:.3f}", end="")
        print(f", by the nearest mean feature of a class {by_mean:.3f}")
    print(f"{time.perf_counter() - started:.0f} seconds")


if __name__ == "__main__":
    main()
