"""Model names, without torch."""

from __future__ import annotations

import pytest

from tdmr import catalog
from tdmr.errors import UnknownModelError


def test_every_recommended_model_is_known() -> None:
    for role, names in catalog.RECOMMENDED.items():
        assert [entry.name for entry in catalog.entries(role)] == list(names)
        for name in names:
            catalog.require(name, role)


def test_every_family_is_recommended_for_either_role() -> None:
    for role in ("foundation", "student"):
        families = {entry.family for entry in catalog.entries(role)}
        assert families == {"cnn", "transformer", "hybrid"}


def test_the_bundled_foundations_are_offline_one_of_each_family() -> None:
    bundled = catalog.entries("foundation")[: len(catalog.BUNDLED)]
    assert [(entry.name, entry.family) for entry in bundled] == [
        ("letters_vit", "transformer"),
        ("letters_cnn", "cnn"),
        ("letters_hybrid", "hybrid"),
    ]
    for entry in bundled:
        assert (entry.roles, entry.offline, entry.input_size) == (["foundation"], True, 32)
        reference = catalog.require(entry.name, "foundation")
        assert reference == f"local-dir:{catalog.ASSETS / entry.name}"
        assert (catalog.ASSETS / entry.name / "model.safetensors").is_file()
        assert entry.name not in catalog.names("student")


def test_known_figures() -> None:
    figures = {e.name: (e.params, e.input_size) for e in catalog.entries("foundation")}
    assert figures["letters_cnn"] == (451_852, 32)
    assert figures["letters_hybrid"] == (458_112, 32)
    resnet = next(e for e in catalog.entries("student") if e.name == "resnet18")
    assert (resnet.params, resnet.gmacs, resnet.input_size) == (11_689_512, 1.814, 224)


@pytest.mark.parametrize(
    ("name", "role", "words"),
    [
        ("resnet81", "student", "resnet18"),
        ("dinov2_vit_small", "foundation", "no known name|Did you mean"),
        ("resnet18.nothing", "student", "no weights tagged 'nothing'.*a1_in1k"),
        ("letters_vit", "student", "can't be the student"),
        ("letters_cnn", "student", "can't be the student"),
        ("letters_cnm", "foundation", "letters_cnn"),
        ("local-dir:/etc", "foundation", "can't be the foundation"),
        ("../../etc/passwd", "student", "can't be the student"),
    ],
)
def test_a_name_that_cannot_be_used(name: str, role: catalog.Role, words: str) -> None:
    with pytest.raises(UnknownModelError, match=f"(?i){words}"):
        catalog.require(name, role)


def test_a_model_without_published_weights_is_no_foundation() -> None:
    (name, *_) = [n for n in catalog.names("student") if n not in set(catalog.names("foundation"))]
    with pytest.raises(UnknownModelError, match="no published weights"):
        catalog.require(name, "foundation")
