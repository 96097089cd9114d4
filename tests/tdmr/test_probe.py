"""The closed-form probe against scikit-learn's, and its folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as TheirRidge

from tdmr import probe


@pytest.mark.parametrize(("rows", "width"), [(30, 8), (20, 50)])
def test_ridge_is_that_of_scikit_learn(rows: int, width: int) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(rows, width) + 1, torch.randn(rows, 3)
    ((weight, bias),) = probe._solve(x, y, (0.1,))
    centred = x - x.mean(0)
    gram = centred @ centred.T if width > rows else centred.T @ centred
    theirs = TheirRidge(alpha=0.1 * gram.diagonal().mean().item()).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(weight.numpy().T, theirs.coef_, atol=1e-4)
    np.testing.assert_allclose(bias.numpy(), theirs.intercept_, atol=1e-4)


def test_folds_are_stratified() -> None:
    labels = torch.tensor([0] * 10 + [1] * 5 + [2])
    fold = probe.fold_numbers(labels, 5, seed=0)
    assert fold[labels == 0].bincount(minlength=5).tolist() == [2] * 5
    assert fold[labels == 1].bincount(minlength=5).tolist() == [1] * 5
    assert torch.equal(fold, probe.fold_numbers(labels, 5, seed=0))


def test_out_of_fold_logits_cannot_remember_random_labels() -> None:
    torch.manual_seed(0)
    labels = torch.arange(40) % 4
    images = torch.arange(40).repeat(3)
    x = torch.randn(40, 200).repeat(3, 1) + 0.05 * torch.randn(120, 200)
    fitted = probe.fit(x, images, labels, classes=4, folds=5, seed=0)
    remembered = fitted.full.logits(x).argmax(1) == labels[images]
    honest = fitted.out_of_fold(x, images).argmax(1) == labels[images]
    assert remembered.float().mean() > 0.95
    assert honest.float().mean() < 0.5
    assert fitted.accuracy == pytest.approx(honest.float().mean().item(), abs=1e-6)


def test_a_separable_task_is_solved_out_of_fold() -> None:
    torch.manual_seed(0)
    labels = torch.arange(30) % 3
    images = torch.arange(30)
    x = torch.nn.functional.one_hot(labels, 8).float() * 4 + 0.1 * torch.randn(30, 8)
    assert probe.fit(x, images, labels, classes=3, folds=5, seed=0).accuracy == 1.0
