"""The demo's job: shared by the demo itself and by the benchmark behind README's figures."""

from __future__ import annotations

from tdmr.config import DistillOptions, TrainingOptions, ViewOptions

FOUNDATION = "letters_vit"
STUDENT = "test_resnet"
SHOTS = 5


def options(seed: int) -> DistillOptions:
    """The defaults, at the digits' size, and without mirroring: a mirrored digit is no digit."""
    return DistillOptions(
        seed=seed,
        image_size=32,
        views=ViewOptions(flip=0.0),
        training=TrainingOptions(steps=1200, batch_size=32),
    )
