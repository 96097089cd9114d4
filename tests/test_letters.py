"""The bundled foundations have seen only letters and textures, and load in plain timm."""

import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import ImageFont
from safetensors import safe_open
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tdmr import catalog

ROOT = Path(__file__).parent.parent
ASSET = catalog.ASSETS / "letters_vit"
SMALL = ("letters_cnn", "letters_hybrid")
sys.path.insert(0, str(ROOT / "scripts"))

import families  # noqa: E402 - the scripts are not a package
import letters  # noqa: E402 - neither
import textures  # noqa: E402 - neither

sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="module")
def drawable() -> dict[str, list[str]]:
    return {path.stem: letters.letters_of(path) for path in letters.font_files()}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_character_of_every_font_is_a_letter_and_none_a_number(
    drawable: dict[str, list[str]],
) -> None:
    chars = {char for chars in drawable.values() for char in chars}
    assert {unicodedata.category(char) for char in chars} == {"Lu", "Ll", "Lt", "Lo"}
    assert not [char for char in chars if unicodedata.numeric(char, None) is not None]
    plain = {unicodedata.normalize("NFKC", char) for char in chars}
    assert not [text for text in plain if any(part.isnumeric() for part in text)]
    words = {word for char in chars for word in unicodedata.name(char).split()}
    assert not words & {"DIGIT", "NUMBER", "NUMERAL", "NUMERIC", "TRESILLO", "CUATRILLO"}
    assert not [char for char in chars if "LETTER TONE" in unicodedata.name(char)]


@pytest.mark.parametrize(
    "char",
    ["0", "7", "²", "½", "Ⅷ", "٣", "ƻ", "\N{LATIN CAPITAL LETTER TONE TWO}", "Ꜭ", "一", "+", "ʰ"],
)
def test_numbers_and_signs_are_refused(char: str) -> None:
    assert not letters.is_letter(char)


@pytest.mark.parametrize("char", ["A", "z", "Ω", "Ж", "א", "ᐁ"])
def test_letters_of_many_scripts_are_taken(char: str) -> None:
    assert letters.is_letter(char)


def test_fonts_hold_the_documented_letters(drawable: dict[str, list[str]]) -> None:
    chars = {letters.base_letter(char) for chars in drawable.values() for char in chars}
    scripts = {letters.script(char) for char in chars}
    assert sum(bool(chars) for chars in drawable.values()) == 22
    assert len(chars) == 2157
    assert len(scripts - {"TURNED"}) == 16  # turned letters are Latin
    assert {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "GEORGIAN", "HEBREW", "TIFINAGH"} <= scripts
    assert "LastResortHE-Regular" not in drawable  # it draws a box around the name of a script
    assert "cmsy10" not in drawable  # it draws signs in the place of small letters


def test_accents_and_typographic_styles_make_no_class_of_their_own() -> None:
    assert letters.is_accented("é")
    assert letters.base_letter("\N{MATHEMATICAL DOUBLE-STRUCK CAPITAL A}") == "A"
    assert letters.base_letter("\N{MATHEMATICAL SCRIPT CAPITAL A}") == "A"
    assert letters.base_letter("ﺏ") == "ﺏ"  # a form of an Arabic letter is a shape of its own


def test_a_glyph_fills_its_box() -> None:
    font = ImageFont.truetype(letters.font_files()[0], 96, layout_engine=ImageFont.Layout.BASIC)
    glyph = letters.render("H", font)
    assert glyph is not None
    assert glyph.size == (64, 64)
    left, top, right, bottom = glyph.getbbox() or (0, 0, 0, 0)
    assert max(right - left, bottom - top) == 56
    assert letters.render("\u2003", font) is None


def test_look_alikes_share_a_class() -> None:
    font = ImageFont.truetype(
        next(path for path in letters.font_files() if path.stem == "DejaVuSans"), 96
    )
    chars = ["A", "B", "А", "Α", "c", "C"]  # noqa: RUF001 - Cyrillic and Greek capitals on purpose
    glyphs = [letters.render(char, font) for char in chars]
    stack = torch.stack([torch.tensor(list(g.tobytes())).view(64, 64) for g in glyphs if g])
    assert letters.shape_classes(stack, chars).tolist() == [0, 1, 0, 0, 2, 2]


def test_renderings_follow_the_seed() -> None:
    glyphs = torch.zeros(16, 64, 64, dtype=torch.uint8)
    glyphs[:, 8:56, 26:38] = 255
    first = letters.photograph(glyphs, seeded(3), strength=1.0)
    assert first.shape == (16, 3, 32, 32)
    assert -1 <= first.min() < first.max() <= 1
    torch.testing.assert_close(first, letters.photograph(glyphs, seeded(3), strength=1.0))
    assert not torch.equal(first, letters.photograph(glyphs, seeded(4), strength=1.0))


def test_invented_characters_follow_the_seed_and_differ() -> None:
    alphabet = letters.InventedAlphabet.draw(8, seeded(0))
    again = letters.InventedAlphabet.draw(8, seeded(0))
    torch.testing.assert_close(alphabet.strokes, again.strokes)
    written = alphabet.write(torch.tensor([1, 1, 2]), seeded(5), strength=1.0)
    assert written.shape == (3, 1, 32, 32)
    assert not torch.equal(written[0], written[1])
    shapes = alphabet.shapes().flatten(1)
    assert torch.cdist(shapes, shapes).fill_diagonal_(9).min() > 1


def test_textures_follow_the_seed_and_keep_the_order_of_the_labels() -> None:
    bank = textures.Textures.draw(seeded(0))
    assert bank.classes == 500
    torch.testing.assert_close(bank.frequency, textures.Textures.draw(seeded(0)).frequency)
    labels = torch.tensor([499, 0, 250, 0, 499, 250])
    first = bank.render(labels, seeded(1), strength=0.0)
    assert first.shape == (6, 3, 32, 32)
    assert -1 <= first.min() < first.max() <= 1
    torch.testing.assert_close(first, bank.render(labels, seeded(1), strength=0.0))
    assert not torch.equal(first, bank.render(labels, seeded(2), strength=0.0))
    # Each kind draws its own numbers, so a change of one label leaves the other kinds alone.
    other = bank.render(torch.tensor([499, 7, 250, 7, 499, 250]), seeded(1), strength=0.0)
    same = [torch.equal(one, another) for one, another in zip(first, other, strict=True)]
    assert same == [True, False, True, False, True, True]


def test_every_grating_has_two_directions() -> None:
    bank = textures.Textures.draw(seeded(0))
    assert bool((bank.amplitude.norm(dim=2)[:, :2] > 0.2).all())
    direction = F.normalize(bank.frequency[:, :2], dim=2)
    assert (direction[:, 0] * direction[:, 1]).sum(1).abs().max() < 0.95


def test_muon_takes_kernels_as_matrices() -> None:
    plain, kernel = nn.Parameter(torch.randn(8, 27)), nn.Parameter(torch.empty(8, 3, 3, 3))
    kernel.data.copy_(plain.data.view(8, 3, 3, 3))
    for weight, optim in (
        (plain, torch.optim.Muon([plain], lr=0.1)),
        (kernel, families.MatrixMuon([kernel], lr=0.1)),
    ):
        for _ in range(2):
            optim.zero_grad()
            (weight**2).sum().backward()
            optim.step()
    torch.testing.assert_close(kernel.flatten(1), plain)


@pytest.mark.parametrize("name", catalog.BUNDLED)
def test_committed_weights_are_small_and_bf16(name: str) -> None:
    folder = catalog.ASSETS / name
    limit = 950_000 if name in SMALL else 6_000_000
    assert (folder / "model.safetensors").stat().st_size <= limit
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        dtypes = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118 - no mapping
    assert dtypes == {torch.bfloat16}


def test_all_committed_weights_together_are_small() -> None:
    folders = [catalog.ASSETS / name for name in catalog.BUNDLED]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) <= 8_000_000


@pytest.mark.parametrize("family", families.FAMILIES)
def test_committed_folders_hold_what_the_script_would_write(family: str) -> None:
    spec, folder = families.FAMILIES[family], catalog.ASSETS / families.FOLDERS[family]
    config = json.loads((folder / "config.json").read_text())
    assert (config["architecture"], config["model_args"]) == (spec.architecture, spec.model_args)
    made = {name: weight.shape for name, weight in spec.create().state_dict().items()}
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        shapes = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    assert shapes == made


def test_committed_weights_load_in_plain_timm() -> None:
    model = timm.create_model(f"local-dir:{ASSET}", pretrained=True, num_classes=0).eval()
    config = timm.data.resolve_model_data_config(model)
    assert list(config["input_size"]) == [3, 32, 32]
    assert config["interpolation"] == "bicubic"
    assert [*config["mean"], *config["std"]] == [0.5] * 6
    with torch.no_grad():
        final, depths = model.forward_intermediates(torch.zeros(2, 3, 32, 32))
        features = model(torch.zeros(2, 3, 32, 32))
    assert features.shape == (2, 256)
    assert [tuple(depth.shape[1:]) for depth in depths] == [
        (32, 8, 8),
        (64, 4, 4),
        (160, 2, 2),
        (256, 1, 1),
    ]
    torch.testing.assert_close(final.mean((2, 3)), features)


@pytest.mark.parametrize("name", SMALL)
def test_the_small_foundations_offer_four_taps(name: str) -> None:
    model = timm.create_model(f"local-dir:{catalog.ASSETS / name}", pretrained=True, num_classes=0)
    config = timm.data.resolve_model_data_config(model)
    assert list(config["input_size"]) == [3, 32, 32]
    assert [*config["mean"], *config["std"]] == [0.5] * 6
    with torch.no_grad():
        depths = model.eval().forward_intermediates(
            torch.zeros(2, 3, 32, 32), intermediates_only=True
        )
    assert len(model.feature_info) == len(depths) == 4
    assert [depth.shape[-1] for depth in depths] == [8, 4, 2, 1]


@pytest.fixture(scope="module")
def even_digits() -> tuple[Tensor, Tensor]:
    """300 of the digits with even numbers: the odd ones are kept for measuring the method."""
    digits = load_digits()
    images = torch.from_numpy(digits.images[::6]).float()[:, None] / 16
    images = F.interpolate(images, 32, mode="bicubic").clamp(0, 1)
    return (images * 2 - 1).expand(-1, 3, -1, -1), torch.from_numpy(digits.target[::6])


def five_shot(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Held-out accuracy of ridge regression on five images per class, the mean of ten draws."""
    with torch.no_grad():
        features = model.eval()(images).double()
    scores = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(labels))
        chosen = [order[labels[order] == label][:5] for label in range(10)]
        train = torch.from_numpy(np.concatenate(chosen))
        held_out = torch.ones(len(labels), dtype=torch.bool).index_fill(0, train, False)
        mean, deviation = features[train].mean(0), features[train].std(0) + 1e-6
        scaled = (features - mean) / deviation
        kernel = scaled @ scaled[train].T / scaled.shape[1]
        targets = F.one_hot(labels[train], 10).double() - 0.1
        weights = torch.linalg.solve(kernel[train] + 0.05 * torch.eye(50), targets)
        right = (kernel @ weights).argmax(1) == labels
        scores.append(right[held_out].double().mean())
    return float(torch.stack(scores).mean())


@pytest.mark.parametrize(
    ("name", "bound"), [("letters_vit", 0.93), ("letters_cnn", 0.92), ("letters_hybrid", 0.92)]
)
def test_pre_training_makes_few_digits_enough(
    name: str, bound: float, even_digits: tuple[Tensor, Tensor]
) -> None:
    torch.manual_seed(0)
    trained, untrained = (
        five_shot(
            timm.create_model(f"local-dir:{catalog.ASSETS / name}", pretrained=kept, num_classes=0),
            *even_digits,
        )
        for kept in (True, False)
    )
    assert trained > bound
    assert untrained < 0.82
