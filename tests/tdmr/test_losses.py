"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tdmr.losses import as_numbers, cka_distance, cosine_distance, distillation, relation


def test_cosine_distance() -> None:
    a = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]])
    b = torch.tensor([[2.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    torch.testing.assert_close(cosine_distance(a, b), torch.tensor([0.0, 1 - 0.5**0.5, 2.0]))


def test_cka_ignores_rotation_scale_and_shift() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 6)
    turn, _ = torch.linalg.qr(torch.randn(6, 6))
    assert cka_distance(x, 3 * x @ turn + 2).item() == pytest.approx(0, abs=1e-5)
    assert cka_distance(x, torch.randn(20, 6)).item() > 0.3


def test_cka_of_a_known_pair() -> None:
    # Centred grams [[1, -1], [-1, 1]] / 2 * scale: two points always align perfectly.
    assert cka_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [9.0]])).item() == (
        pytest.approx(0, abs=1e-6)
    )


def test_relation_compares_structure_across_widths() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 5)
    wide = torch.cat([x, torch.zeros(16, 3)], dim=1)
    assert relation(x, 2 * wide).item() == pytest.approx(0, abs=1e-5)
    assert relation(x, torch.randn(16, 5)).item() > 0.1


def test_distillation_by_hand() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0) * 2]])
    p = torch.tensor([0.25, 0.75])
    expected = (p * (p / 0.5).log()).sum().item() * 4
    assert distillation(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_as_numbers_keeps_names() -> None:
    assert as_numbers({"loss": torch.tensor(2.0), "ce": torch.tensor(0.5)}) == {
        "loss": 2.0,
        "ce": 0.5,
    }
