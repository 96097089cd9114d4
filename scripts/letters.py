"""Characters to pre-train on: printed letters of many scripts, and invented pen-stroke alphabets.

Printed letters come from the fonts that matplotlib carries. Only code points of the Unicode
letter categories (L*) are drawn, never a number (N*), nor a letter that is named after one.
Letters that merely look like a digit, such as O or l, are letters and stay.
Everything random is drawn from the generator that is passed in. `strength`, from 0 to 1, says how
far a sample departs from the clean shape.
"""

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GLYPH_SIZE = 64
IMAGE_SIZE = 32
SHAPE_SIZE = 16
SAME_SHAPE = 0.94  # cosine of two blurred glyphs above which they are one class
MAX_ASPECT = 2.6

_FONT_NAMES = ("DejaVu*.ttf", "STIXGeneral*.ttf", "cm[bmrt]*.ttf", "cmss10.ttf")
_ASCII_ONLY = "cm"  # Computer Modern files map other code points to unrelated shapes
_NUMBER_NAME = re.compile(
    r"\b(DIGIT|NUMBER|NUMERAL|NUMERIC|(TONE|LETTER) (ONE|TWO|THREE|FOUR|FIVE|SIX|SEVEN|EIGHT|NINE)"
    r"|TRESILLO|CUATRILLO)\b"
)


@dataclass(frozen=True)
class GlyphBank:
    """White-on-black glyphs, uint8 (glyphs, 64, 64), each with its class and its source."""

    images: Tensor
    labels: Tensor
    chars: tuple[str, ...]
    fonts: tuple[str, ...]

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def shapes(self) -> Tensor:
        """Mean glyph of every class, (classes, 1, 16, 16) in [0, 1]."""
        small = F.avg_pool2d(self.images.float()[:, None] / 255, GLYPH_SIZE // SHAPE_SIZE)
        total = torch.zeros(self.classes, 1, SHAPE_SIZE, SHAPE_SIZE)
        return total.index_add_(0, self.labels, small) / self.labels.bincount().view(-1, 1, 1, 1)

    @property
    def scripts(self) -> set[str]:
        return {script(char) for char in self.chars}


def is_letter(char: str) -> bool:
    """Whether Unicode calls `char` a letter, and neither its name nor its value says a number."""
    if not unicodedata.category(char).startswith("L") or unicodedata.category(char) == "Lm":
        return False
    numeric = unicodedata.numeric(char, None) is not None
    return not numeric and not _NUMBER_NAME.search(unicodedata.name(char, "UNNAMED NUMBER"))


def script(char: str) -> str:
    """First word of the plain letter's Unicode name, which is all but always its script."""
    plain = unicodedata.normalize("NFKC", char)
    return unicodedata.name(plain if len(plain) == 1 else char).split()[0]


def base_letter(char: str) -> str:
    """The letter without its typographic style: a double-struck or fraktur A is an A."""
    plain = unicodedata.normalize("NFKC", char)
    styled = unicodedata.name(char).startswith(("MATHEMATICAL", "DOUBLE-STRUCK", "SCRIPT"))
    return plain if styled and len(plain) == 1 else char


def is_accented(char: str) -> bool:
    """Whether the character is another letter with a mark set on it."""
    return len(unicodedata.normalize("NFD", char)) > 1


def font_files() -> list[Path]:
    """matplotlib's text fonts that hold letters, in a fixed order."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    return sorted({path for name in _FONT_NAMES for path in folder.glob(name)})


def letters_of(path: Path) -> list[str]:
    """The unaccented letters that a font really draws."""
    names = TTFont(path).getBestCmap()
    chars = [chr(code) for code, glyph in sorted(names.items()) if glyph != ".notdef"]
    if path.name.startswith(_ASCII_ONLY):
        chars = [char for char in chars if char.isascii()]
    return [char for char in chars if is_letter(char) and not is_accented(char)]


def render(char: str, font: ImageFont.FreeTypeFont) -> Image.Image | None:
    """The glyph in a 56-pixel box amid 64 x 64; None where it is blank or a long ligature."""
    left, top, right, bottom = font.getbbox(char)
    width, height = math.ceil(right - left), math.ceil(bottom - top)
    if min(width, height) < 1 or max(width, height) > MAX_ASPECT * font.size:
        return None
    page = Image.new("L", (width + 8, height + 8))
    ImageDraw.Draw(page).text((4 - left, 4 - top), char, font=font, fill=255)
    box = page.getbbox()
    if box is None or box[2] - box[0] > MAX_ASPECT * (box[3] - box[1]):
        return None
    ink = page.crop(box)
    fit = (GLYPH_SIZE - 8) / max(ink.size)
    size = (max(1, round(ink.width * fit)), max(1, round(ink.height * fit)))
    glyph = Image.new("L", (GLYPH_SIZE, GLYPH_SIZE))
    corner = ((GLYPH_SIZE - size[0]) // 2, (GLYPH_SIZE - size[1]) // 2)
    glyph.paste(ink.resize(size, Image.Resampling.BOX), corner)
    return glyph


@cache
def glyph_bank() -> GlyphBank:
    """Every letter of every font; look-alikes of different scripts share one class."""
    images, chars, fonts = [], [], []
    for path in font_files():
        font = ImageFont.truetype(path, 96, layout_engine=ImageFont.Layout.BASIC)
        for char in letters_of(path):
            glyph = render(char, font)
            if glyph is not None:
                images.append(np.asarray(glyph))
                chars.append(char)
                fonts.append(path.stem)
    stack = torch.from_numpy(np.stack(images))
    return GlyphBank(stack, shape_classes(stack, chars), tuple(chars), tuple(fonts))


def shape_classes(images: Tensor, chars: list[str]) -> Tensor:
    """Number the letters, giving the number of the first look-alike to each later one."""
    first: dict[str, int] = {}
    for index, char in enumerate(chars):
        first.setdefault(base_letter(char), index)
    small = F.avg_pool2d(images[list(first.values())].float()[:, None], 4)  # (letters, 1, 16, 16)
    shapes = F.normalize(F.avg_pool2d(small, 3, 1, 1).flatten(1), dim=1)
    numbers, kept = {}, []
    for index, letter in enumerate(first):
        alike = shapes[kept] @ shapes[index] if kept else torch.zeros(1)
        if alike.max() > SAME_SHAPE:
            numbers[letter] = int(alike.argmax())
        else:
            numbers[letter] = len(kept)
            kept.append(index)
    return torch.tensor([numbers[base_letter(char)] for char in chars])


@dataclass(frozen=True)
class InventedAlphabet:
    """Random characters of one to four pen strokes, each a cubic Bezier curve.

    `strokes` is (classes, 4, 4, 2), control points in [-1, 1]; a character of fewer strokes
    repeats its first. About half of the strokes start where another one passes, as in letters.
    """

    strokes: Tensor

    @classmethod
    def draw(cls, classes: int, generator: torch.Generator) -> "InventedAlphabet":
        strokes = torch.rand(classes, 4, 4, 2, generator=generator) * 2 - 1
        bend = torch.rand(classes, 4, 1, 1, generator=generator)
        ends = strokes[:, :, [0, 3]]
        straight = torch.stack([ends[:, :, 0].lerp(ends[:, :, 1], t / 3) for t in range(4)], 2)
        strokes = torch.where(bend < 0.3, straight, strokes)
        for stroke in range(1, 4):
            joint = _bezier(strokes[:, stroke - 1])  # (classes, points, 2)
            point = torch.randint(joint.shape[1], (classes,), generator=generator)
            start = joint[torch.arange(classes), point]
            joined = torch.rand(classes, 1, generator=generator) < 0.6
            strokes[:, stroke, 0] = torch.where(joined, start, strokes[:, stroke, 0])
        count = torch.tensor([0.15, 0.4, 0.3, 0.15]).multinomial(
            classes, replacement=True, generator=generator
        )
        spare = torch.arange(4) > count[:, None]  # (classes, strokes)
        return cls(torch.where(spare[:, :, None, None], strokes[:, :1], strokes))

    def shapes(self) -> Tensor:
        """Every character as it was invented, (classes, 1, 16, 16) in [0, 1]."""
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(len(self.strokes))
        drawn = [self.write(part, generator, strength=0) for part in labels.split(256)]
        return F.avg_pool2d(torch.cat(drawn), IMAGE_SIZE // SHAPE_SIZE)

    def write(self, labels: Tensor, generator: torch.Generator, strength: float) -> Tensor:
        """One hand-written sample per label, (n, 1, 32, 32) in [0, 1]."""
        count = len(labels)
        wobble = 0.12 * strength * torch.randn(count, 4, 4, 2, generator=generator)
        points = _bezier(self.strokes[labels] + wobble).flatten(1, 2)  # (n, points, 2)
        low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
        points = (points - (low + high) / 2) / ((high - low).amax(2, keepdim=True) / 2 + 0.1)
        points = points @ random_linear(count, generator, strength).transpose(1, 2)
        low, high = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
        reach = uniform((count, 1, 1), 0.65, 1.0, generator)
        points = (points - (low + high) / 2) / ((high - low).amax(2, keepdim=True) / 2 + 0.05)
        shift = 0.06 * strength * torch.randn(count, 1, 2, generator=generator)
        return _ink(points * reach + shift, uniform((count, 1), 0.06, 0.24, generator))


def _ink(points: Tensor, width: Tensor) -> Tensor:
    """What a round pen leaves at points (n, points, 2) in [-1, 1], as (n, 1, 32, 32)."""
    axis = (torch.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE * 2 - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, -1, 2)
    distance = torch.cdist(grid.expand(len(points), -1, -1), points).amin(2)  # (n, pixels)
    ink = ((width - distance) * IMAGE_SIZE / 2 + 0.5).clamp(0, 1)
    return ink.view(-1, 1, IMAGE_SIZE, IMAGE_SIZE)


def _bezier(control: Tensor, points: int = 20) -> Tensor:
    """Points along cubic curves: (..., 4, 2) to (..., points, 2)."""
    t = torch.linspace(0, 1, points)[:, None]
    weights = torch.cat([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], 1)
    return weights @ control


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [low, high)."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def random_linear(count: int, generator: torch.Generator, strength: float) -> Tensor:
    """Random rotation, shear and anisotropic scale, (n, 2, 2)."""
    angle, shear, stretch = strength * torch.randn(3, count, generator=generator)
    cos, sin = (0.2 * angle).cos(), (0.2 * angle).sin()
    stretch = (0.2 * stretch).exp()
    turn = torch.stack([cos, -sin, sin, cos], 1).view(count, 2, 2)
    slant = torch.stack([stretch, 0.25 * shear, torch.zeros(count), 1 / stretch], 1)
    return turn @ slant.view(count, 2, 2)


def warp(glyphs: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Affine and smooth elastic deformation of (n, 1, 64, 64) glyphs, to (n, 1, 32, 32)."""
    count = len(glyphs)
    size = 1 + strength * uniform((count, 1, 1), -0.15, 0.35, generator)
    shift = 0.08 * strength * torch.randn(count, 2, 1, generator=generator)
    theta = torch.cat([random_linear(count, generator, strength) * size, shift], 2)
    grid = F.affine_grid(theta, [count, 1, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
    knots = torch.randn(count, 2, 4, 4, generator=generator)
    knots = knots * uniform((count, 1, 1, 1), 0.0, 0.16 * strength, generator)
    bend = F.interpolate(knots, IMAGE_SIZE, mode="bicubic", align_corners=True)
    return F.grid_sample(glyphs, grid + bend.permute(0, 2, 3, 1), align_corners=False)


def restroke(images: Tensor, generator: torch.Generator) -> Tensor:
    """Thicken, thin or keep each image's strokes, by dilation and erosion."""
    choice = torch.randint(6, (len(images), 1, 1, 1), generator=generator)
    wide = F.max_pool2d(images, 3, 1, 1)
    wider = F.max_pool2d(wide, 3, 1, 1)
    thin = -F.max_pool2d(-images, 2, 1, 1)[:, :, 1:, 1:]
    images = torch.where(choice == 0, thin, images)
    images = torch.where((choice == 1) | (choice == 2), wide, images)
    return torch.where(choice == 3, wider, images)


def resample(images: Tensor, generator: torch.Generator) -> Tensor:
    """Reduce each image to a random resolution of 6 to 16 pixels and enlarge it; keep a tenth."""
    order = torch.randperm(len(images), generator=generator)
    resampled = images.clone()
    for part in order.chunk(8):
        side = int(torch.randint(6, 17, (1,), generator=generator))
        kept, bicubic = torch.rand(2, generator=generator).tolist()
        if kept < 0.1:
            continue
        small = F.interpolate(images[part], side, mode="area")
        mode = "bicubic" if bicubic < 0.8 else "bilinear"
        resampled[part] = F.interpolate(small, IMAGE_SIZE, mode=mode, antialias=True)
    return resampled.clamp(0, 1)


def tone(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random gamma, contrast and noise; one image in twenty is dark on light."""
    shape = (len(images), 1, 1, 1)
    images = images.clamp_min(1e-3) ** (0.25 * torch.randn(shape, generator=generator)).exp()
    images = images * uniform(shape, 0.7, 1.0, generator)
    noise = uniform(shape, 0.0, 0.06, generator)
    images = images + noise * torch.randn(images.shape, generator=generator)
    images = torch.where(torch.rand(shape, generator=generator) < 0.05, 1 - images, images)
    return images.clamp(0, 1)


def finish(strokes: Tensor, generator: torch.Generator) -> Tensor:
    """From clean strokes (n, 1, 32, 32) in [0, 1] to images (n, 3, 32, 32) in [-1, 1]."""
    images = tone(resample(strokes, generator), generator)
    return (images * 2 - 1).expand(-1, 3, -1, -1)


def photograph(glyphs: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Random renderings, (n, 3, 32, 32) in [-1, 1], of uint8 glyphs (n, 64, 64)."""
    images = warp(glyphs[:, None].float() / 255, generator, strength)
    return finish(restroke(images, generator), generator)
