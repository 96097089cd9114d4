"""The whole story in a real browser: from a dropped archive to a student that is asked."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from sklearn.datasets import load_digits

from tests.dashboard.browser import Visitor, drop, shoot

STATUS = ".sheet .badge"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits, 8 of each to train on and 6 to measure with; one twice, and one all but held out."""
    folder, digits = tmp_path_factory.mktemp("digits"), load_digits()
    for label in range(10):
        places = np.flatnonzero(digits.target == label)[:14]
        for number, place in enumerate(places):
            target = folder / ("train" if number < 8 else "test") / str(label)
            target.mkdir(parents=True, exist_ok=True)
            pixels = (digits.images[place] / 16 * 255).round().astype(np.uint8)
            Image.fromarray(pixels).save(target / f"{place}.png")
    shutil.copy(next((folder / "train" / "3").iterdir()), folder / "train" / "3" / "twice.png")
    with Image.open(next((folder / "train" / "5").iterdir())) as image:
        image.putpixel((0, 0), 9)
        image.save(folder / "test" / "5" / "seen.png")
    return folder


def test_the_whole_story(visitor: Visitor, images: Path, tmp_path: Path) -> None:
    page = visitor.page
    shoot(page, "overview")
    upload(visitor, images, tmp_path)
    job = order(visitor, steps=300)
    watch(visitor, job)
    ask(visitor, images)
    download(page, tmp_path)
    see_what_the_foundation_sees(visitor)
    compare(visitor)
    cancel_another(visitor)
    see_a_failure(visitor)
    visitor.go("/access", "Access")
    shoot(page, "access")
    assert visitor.strangers() == []
    assert visitor.complaints == []


def upload(visitor: Visitor, images: Path, tmp_path: Path) -> None:
    """Drop an archive, and wait until it's ready."""
    archive = shutil.make_archive(str(tmp_path / "digits"), "zip", images)
    page = visitor.go("/datasets", "Datasets")
    drop(page, "digits.zip", Path(archive).read_bytes())
    expect(page.locator(".uploads li")).to_have_text("digits.zip: uploaded; it is being checked")
    expect(page.locator(STATUS).first).to_have_text("● ready")  # without reloading
    shoot(page, "datasets")
    page.get_by_role("link", name="digits").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dataset")
    expect(page.locator(".wall img")).to_have_count(24)
    expect(page.locator(".facts")).to_contain_text("142")
    finding = page.get_by_role("row", name=re.compile("Remove one of them"))
    expect(finding.get_by_role("img", name="train/3/twice.png")).to_be_visible()
    page.get_by_label("All splits").select_option("test")
    expect(page.locator(".wall figcaption").first).to_have_text("0, test")
    shoot(page, "dataset")


def order(visitor: Visitor, *, steps: int, foundation: str = "letters_vit") -> str:
    """Fill in the form, look at what is said of it, and submit; the job's path."""
    page = visitor.go("/new", "New job")
    page.get_by_role("radio", name=re.compile(f"^{foundation} ")).check()
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Image size, pixels").fill("32")
    page.get_by_label("Training steps").fill(str(steps))
    page.get_by_label("Training steps").blur()
    said = page.get_by_role("complementary")
    expect(said).to_contain_text("It would be taken.")
    expect(said).to_contain_text("Estimate")
    shoot(page, "new-job")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Job")
    return page.url


def watch(visitor: Visitor, job: str) -> None:
    """See the curve grow and the job succeed, without reloading."""
    page = visitor.page
    expect(page.locator(".steps li.now")).to_have_text("distil")
    first = points(page)
    while (now := points(page)) <= max(first, 2):
        page.wait_for_timeout(300)
        assert "succeeded" not in page.locator(STATUS).first.inner_text(), (first, now)
    shoot(page, "job")
    expect(page.locator(STATUS).first).to_have_text("● succeeded")
    expect(page.locator(".steps li.done")).to_have_count(8)
    assert page.url == job
    page.get_by_role("link", name="the student").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Student")


def points(page: Page) -> int:
    """How many points the curve of the losses has."""
    found: int = page.evaluate(
        """() => { const chart = document.querySelector(".chart");
        const made = getElement(Number(chart.id.slice(1))).chart;
        const [first] = made.getOption().series; return first ? first.data.length : 0; }"""
    )
    return found


def ask(visitor: Visitor, images: Path) -> None:
    """Give the student an image, and see its probabilities."""
    page = visitor.page
    expect(page.get_by_role("heading", name="Confusion matrix")).to_be_visible()
    expect(page.locator(".picture").first).to_have_js_property("complete", True)
    box = page.locator("#try")
    box.locator("input").set_input_files(next((images / "test" / "7").iterdir()))
    expect(box.locator(".bars li")).to_have_count(5)
    expect(box.get_by_role("status")).to_have_text(re.compile(r"^\d, \d+\.\d %$"))
    shoot(page, "student")


def download(page: Page, tmp_path: Path) -> None:
    """Everything as one archive, whole."""
    with page.expect_download() as got:
        page.get_by_role("link", name="Download everything").click()
    path = tmp_path / "student.zip"
    got.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert "model.onnx" in archive.namelist()


def see_what_the_foundation_sees(visitor: Visitor) -> None:
    """Behind the student: the same image in training and among those it was measured with."""
    page = visitor.page
    page.get_by_role("link", name="its dataset").click()
    expect(page.get_by_role("heading", name="What the foundation sees")).to_be_visible()
    pair = page.locator(".pair").filter(has=page.get_by_role("img", name="test/5/seen.png"))
    expect(pair.locator("img")).to_have_count(2)
    expect(pair).to_contain_text("alike")
    shoot(page, "audit")


def compare(visitor: Visitor) -> None:
    """The student on the plane, and in the table."""
    page = visitor.go("/compare", "Compare")
    row = page.get_by_role("row", name=re.compile("test_resnet"))
    expect(row).to_contain_text("on the front")
    shoot(page, "compare")
    row.get_by_role("checkbox").uncheck()
    expect(row).not_to_contain_text("on the front")


def cancel_another(visitor: Visitor) -> None:
    """A job of hours is called off."""
    order(visitor, steps=1_000_000)
    page = visitor.page
    expect(page.locator(STATUS).first).to_have_text("◔ running")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(STATUS).first).to_have_text("— cancelled")
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()


def see_a_failure(visitor: Visitor) -> None:
    """Weights that can't be had: what happened, and what to do."""
    order(visitor, steps=100, foundation="vit_small_patch14_dinov2.lvd142m")
    page = visitor.page
    trouble = page.get_by_role("alert").locator(".trouble")
    expect(trouble).to_contain_text("Failed in prepare")
    expect(trouble).to_contain_text("What to do:")
    expect(trouble.get_by_role("button", name="Retry as it was")).to_be_visible()
    shoot(page, "failure")
    visitor.go("/jobs", "Jobs")
    expect(page.locator(STATUS)).to_have_count(3)
    shoot(page, "jobs")
