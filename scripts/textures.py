"""Textures to pre-train on: gratings, thresholded noise and cells, each a random parametrisation.

A class is a set of parameters; an image of it has its own phases, noise or cells, and its own
rotation, scale, colours, light and noise. Everything random is drawn from the generator that is
passed in. `strength`, from 0 to 1, says how far an image's turn, scale and colours depart from the
class's own.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from letters import IMAGE_SIZE, random_linear, uniform
from torch import Tensor

GRATINGS, NOISES, CELLS = 200, 150, 150
WAVES = 3
LATTICE = 16  # knots of the noise along each side; at most 14 of them are seen
POINTS = 7  # cells along each side of the plane that is cut into cells


@dataclass(frozen=True)
class Textures:
    """Parameters of every class; the classes are numbered gratings, noises, cells.

    Gratings are sums of two or three waves: `frequency` (gratings, 3, 2) in cycles per image,
    `amplitude` (gratings, 3, 3) per wave and channel, `sharpness` (gratings, 1, 1) from a sine
    towards a square wave. Noises have `knots` (noises, 1, 2) per image, `octaves` (noises, 3) as
    weights, `level` and `softness` (noises, 1) of the threshold. Cells have `density`
    (cells, 1, 2), `jitter` (cells, 1, 1) and `mixture` (cells, 3, 1) of the distance to the
    centre, of the borders and of a tone per cell. `palette` (classes, 2, 3) holds two colours.
    """

    frequency: Tensor
    amplitude: Tensor
    sharpness: Tensor
    knots: Tensor
    octaves: Tensor
    level: Tensor
    softness: Tensor
    density: Tensor
    jitter: Tensor
    mixture: Tensor
    palette: Tensor

    @classmethod
    def draw(cls, generator: torch.Generator) -> "Textures":
        cycles = 2 ** uniform((GRATINGS, WAVES), 0.6, 3.3, generator)
        apart = uniform((GRATINGS, WAVES), 0.4, 1.4, generator)  # one wave alone would be stripes
        angle = uniform((GRATINGS, 1), 0, math.pi, generator) + apart.cumsum(1)
        waves = torch.randint(2, WAVES + 1, (GRATINGS, 1), generator=generator)
        on = (torch.arange(WAVES) < waves).float() * uniform((GRATINGS, WAVES), 0.6, 1, generator)
        colour = torch.randn(GRATINGS, WAVES, 3, generator=generator)
        colour = 0.5 * F.normalize(colour + colour.mean(2, keepdim=True), dim=2)
        fade = torch.tensor([1.0, 0.6, 0.36]) ** uniform((NOISES, 1), -0.7, 3, generator)
        aspect = torch.randn(2, max(NOISES, CELLS), 1, generator=generator).mul(0.35).exp()
        knots = uniform((NOISES, 1), 1.8, 3.5, generator)
        direction = torch.randn(GRATINGS + NOISES + CELLS, 3, generator=generator)
        reach = F.normalize(direction, dim=1) * uniform((len(direction), 1), 0.4, 0.8, generator)
        density = uniform((CELLS, 1), 1.0, 2.6, generator)
        stretched = [
            torch.cat([many * part, many / part], 1)
            for many, part in ((knots, aspect[0, :NOISES]), (density, aspect[1, :CELLS]))
        ]
        return cls(
            frequency=torch.stack([cycles * angle.cos(), cycles * angle.sin()], 2),
            amplitude=colour * on[..., None],
            sharpness=4 ** uniform((GRATINGS, 1, 1), -0.5, 1.5, generator),
            knots=stretched[0][:, None].clamp(1, 3.5),
            octaves=F.normalize(fade, dim=1),
            level=uniform((NOISES, 1), -0.8, 0.8, generator),
            softness=4 ** uniform((NOISES, 1), 0.3, 1.7, generator),
            density=stretched[1][:, None].clamp(0.8, 3),
            jitter=uniform((CELLS, 1, 1), 0.25, 0.6, generator),
            mixture=torch.randn(CELLS, 3, 1, generator=generator),
            palette=0.5 + torch.stack([reach, -reach], 1) / 2,
        )

    @property
    def classes(self) -> int:
        return len(self.palette)

    def render(self, labels: Tensor, generator: torch.Generator, strength: float) -> Tensor:
        """One image per label, (n, 3, 32, 32) in [-1, 1]."""
        order = labels.argsort()
        ordered = labels[order]
        axis = (torch.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE - 0.5
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, -1, 2)
        zoom = (0.15 * strength * torch.randn(len(labels), 1, 1, generator=generator)).exp()
        places = grid @ (random_linear(len(labels), generator, strength) * zoom)
        ends = torch.searchsorted(ordered, torch.tensor([GRATINGS, GRATINGS + NOISES])).tolist()
        parts = places.tensor_split(ends)
        numbers = ordered.tensor_split(ends)
        palette = self.palette[ordered].tensor_split(ends)
        images = torch.cat(
            [
                self._gratings(numbers[0], parts[0], generator) + palette[0].mean(1, keepdim=True),
                _tint(self._noises(numbers[1] - GRATINGS, parts[1], generator), palette[1]),
                _tint(self._cells(numbers[2] - GRATINGS - NOISES, parts[2], generator), palette[2]),
            ]
        )
        images = images.transpose(1, 2).reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
        return _light(images, generator, strength)[order.argsort()]

    def _gratings(self, numbers: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
        """Coloured waves at `places` (n, pixels, 2), around zero, (n, pixels, 3)."""
        phase = torch.rand(len(numbers), 1, WAVES, generator=generator)
        wave = (2 * math.pi * (places @ self.frequency[numbers].transpose(1, 2) + phase)).sin()
        sharpness = self.sharpness[numbers]
        return (wave * sharpness).tanh() / sharpness.tanh() @ self.amplitude[numbers]

    def _noises(self, numbers: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
        """Thresholded value noise at `places` (n, pixels, 2), (n, pixels) in [0, 1]."""
        value = torch.zeros(places.shape[:2])
        for octave in range(3):
            lattice = torch.randn(len(numbers), 1, LATTICE, LATTICE, generator=generator)
            at = places * self.knots[numbers] * (2 ** (octave + 1) / LATTICE)
            noise = F.grid_sample(
                lattice, at[:, None], "bicubic", padding_mode="reflection", align_corners=False
            )
            value = value + self.octaves[numbers, octave, None] * noise[:, 0, 0]
        value = (value - value.mean(1, keepdim=True)) / (value.std(1, keepdim=True) + 0.1)
        return ((value - self.level[numbers]) * self.softness[numbers]).sigmoid()

    def _cells(self, numbers: Tensor, places: Tensor, generator: torch.Generator) -> Tensor:
        """A Voronoi diagram at `places` (n, pixels, 2), (n, pixels) in [0, 1]."""
        count = len(numbers)
        axis = torch.arange(POINTS) - POINTS / 2 + 0.5
        lattice = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, -1, 2)
        jitter = uniform((count, POINTS**2, 2), -1, 1, generator) * self.jitter[numbers]
        shift = uniform((count, 1, 2), -0.5, 0.5, generator)
        distance = torch.cdist(places * 2 * self.density[numbers], lattice + jitter + shift)
        near, cell = distance.topk(2, dim=2, largest=False)
        tones = torch.rand(count, POINTS**2, generator=generator).gather(1, cell[:, :, 0])
        border = 1 - ((near[..., 1] - near[..., 0]) * 6).clamp(0, 1)
        parts = torch.stack([2 * near[..., 0] - 0.7, border - 0.3, tones - 0.5], 1)
        return (3 * (self.mixture[numbers] * parts).sum(1)).sigmoid()


def _tint(values: Tensor, palette: Tensor) -> Tensor:
    """Between two colours (n, 2, 3): values (n, pixels) in [0, 1] to (n, pixels, 3)."""
    return palette[:, :1].lerp(palette[:, 1:], values[..., None])


def _light(images: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Random colours, light and noise: (n, 3, 32, 32) around [0, 1] to [-1, 1]."""
    count, shape = len(images), (len(images), 1, 1, 1)
    turn = torch.eye(3) + 0.5 * strength * torch.randn(count, 3, 3, generator=generator)
    grey = torch.rand(count, 1, 1, generator=generator) < 0.25
    mix = F.normalize(torch.randn(count, 1, 3, generator=generator), dim=2)
    turn = torch.where(grey, mix.expand(-1, 3, -1), turn)
    middle = images.mean((1, 2, 3), keepdim=True)
    flat = (images - middle).flatten(2)
    images = (turn @ flat).view_as(images) + middle.lerp(
        torch.rand(shape, generator=generator), 0.5
    )
    slope = uniform((2, count, 1, 1, 1), -0.4, 0.4, generator)
    axis = torch.linspace(-1, 1, IMAGE_SIZE)
    images = images * (1 + slope[0] * axis + slope[1] * axis[:, None])
    noise = uniform(shape, 0.0, 0.08, generator)
    images = images + noise * torch.randn(images.shape, generator=generator)
    return images.clamp(0, 1) * 2 - 1
