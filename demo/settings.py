"""The demo's job: shared by the demo itself and by the benchmark behind README's figures."""

from __future__ import annotations

from tdmr.config import DistillOptions, TrainingOptions, ViewOptions

FOUNDATION = "letters_vit"
STUDENT = "test_resnet"
SHOTS = 5


def options(seed: int) -> DistillOptions:
    """The defaults, at the digits' size, without mirroring, in the time that a demo may take."""
    return DistillOptions(
        seed=seed,
        image_size=32,
        views=ViewOptions(count=40, flip=0.0),
        training=TrainingOptions(steps=600),
    )
