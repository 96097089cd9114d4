"""Views are pure functions, and both sides see the same one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tdmr.config import ViewOptions
from tdmr.views import Views

STILL = {"rotate": 0, "shear": 0, "translate": 0, "brightness": 0, "contrast": 0}


def still(**changes: float) -> ViewOptions:
    return ViewOptions(**{**STILL, "scale_min": 1, "scale_max": 1, "flip": 0, **changes})


def test_a_view_depends_on_its_pair_alone() -> None:
    views = Views(ViewOptions(), "version", seed=3)
    many = views.params(np.arange(10), np.arange(10) % 4)
    one = views.params(np.array([7]), np.array([3]))
    assert torch.equal(many.theta[7], one.theta[0])
    assert torch.equal(many.gain[7:8], one.gain)
    other = Views(ViewOptions(), "version", seed=4).params(np.array([7]), np.array([3]))
    assert not torch.equal(one.theta, other.theta)


def test_draws_fill_their_ranges() -> None:
    views = Views(still(rotate=20), "v", 0)
    theta = views.params(np.arange(4000), np.zeros(4000, dtype=np.int64)).theta
    degrees = torch.rad2deg(torch.atan2(theta[:, 1, 0], theta[:, 0, 0]))
    assert degrees.abs().max() <= 20.001
    assert abs(degrees.mean().item()) < 0.7
    assert degrees.std().item() == pytest.approx(20 / 3**0.5, rel=0.03)


def test_no_augmentation_is_the_image_itself() -> None:
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    params = Views(still(), "v", 0).params(np.arange(3), np.arange(3))
    torch.testing.assert_close(Views.apply(images, params), images / 255, rtol=0, atol=1e-5)


def test_a_certain_flip_mirrors() -> None:
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    params = Views(still(flip=1), "v", 0).params(np.arange(2), np.arange(2))
    torch.testing.assert_close(Views.apply(images, params), images.flip(3) / 255, rtol=0, atol=1e-5)


def test_two_resolutions_see_the_same_view() -> None:
    large = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    large[:, :, 16:40, 20:30] = 255
    small = F.avg_pool2d(large.float(), 2).to(torch.uint8)
    params = Views(still(rotate=30, shear=10, translate=0.2), "v", 1).params(
        np.arange(4), np.arange(4)
    )
    seen = F.avg_pool2d(Views.apply(large, params), 2)
    torch.testing.assert_close(seen, Views.apply(small, params), rtol=0, atol=0.3)
    assert (seen - Views.apply(small, params)).abs().mean() < 0.01


def test_contrast_keeps_the_mean() -> None:
    images = torch.randint(100, 150, (5, 3, 16, 16), dtype=torch.uint8)
    params = Views(still(contrast=0.5), "v", 0).params(np.arange(5), np.arange(5))
    seen = Views.apply(images, params)
    torch.testing.assert_close(seen.mean((1, 2, 3)), images.float().mean((1, 2, 3)) / 255)
    assert not torch.allclose(seen, images / 255, atol=1e-3)


def test_a_mixture_is_the_weighted_mean_of_two_views() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)
    places, numbers = np.arange(6), np.array([0, 1, 2, 0, 1, 2])
    mixed, pure = Views(still(mix=1), "v", 0), Views(still(mix=0), "v", 0)
    mixture = mixed.mixture(places, numbers, 6)
    assert ((mixture.share >= 0.5) & (mixture.share < 1)).all()
    share = torch.from_numpy(mixture.share).view(-1, 1, 1, 1)
    cpu = torch.device("cpu")
    own = pure.render(pixels, places, numbers, cpu)
    other = pure.render(pixels, mixture.partners, numbers, cpu)
    torch.testing.assert_close(
        mixed.render(pixels, places, numbers, cpu), share * own + (1 - share) * other
    )
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    soft = mixed.soft_labels(labels, 3, places, numbers)
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    row = 4
    expected = torch.zeros(3)
    expected[1] += float(mixture.share[row])
    expected[labels[mixture.partners[row]]] += 1 - float(mixture.share[row])
    torch.testing.assert_close(soft[row], expected)


def test_the_share_of_mixed_views_is_as_asked() -> None:
    places = np.arange(5000)
    mixture = Views(still(mix=0.3), "v", 0).mixture(places, places, 5000)
    assert np.mean(mixture.share < 1) == pytest.approx(0.3, abs=0.02)
    assert len(np.unique(mixture.partners)) > 3000


@pytest.mark.parametrize(
    ("images", "draws", "count"),
    [
        (20, 19_200, 500),  # 10,000 in all
        (50, 1_000, 20),  # never more than the training draws
        (100, 19_200, 100),
        (2_000, 64_000, 20),  # at least 20 an image
        (50_000, 64_000, 2),
        (4, 100_000, 1024),
    ],
)
def test_how_many_views_when_none_is_named(images: int, draws: int, count: int) -> None:
    assert ViewOptions().counted(images, draws).count == count
    assert ViewOptions(count=7).counted(images, draws).count == 7
