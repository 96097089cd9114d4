"""The demo's foundation model has only seen letters, and loads in plain timm."""

import sys
import unicodedata
from pathlib import Path

import pytest
import timm
import torch
from PIL import ImageFont
from safetensors import safe_open

ROOT = Path(__file__).parent.parent
ASSET = ROOT / "tdmr" / "assets" / "letters_vit"
sys.path.insert(0, str(ROOT / "scripts"))

import letters  # noqa: E402 - the scripts are not a package

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


def test_committed_weights_are_small_and_bf16() -> None:
    assert sum(file.stat().st_size for file in ASSET.iterdir()) <= 8_000_000
    with safe_open(ASSET / "model.safetensors", framework="pt") as file:
        dtypes = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert dtypes == {torch.bfloat16}


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
