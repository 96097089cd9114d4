"""Hostile, good and odd uploads, each through door and check in a process of its own.

`make fuzz` runs many more of them, and holds the check to its seconds as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from app.datasets.images import ImageError, canonical, is_archive
from app.datasets.options import CheckOptions
from benchmarks.corpus import controls
from benchmarks.corpus.sandbox import MAX_EXTRA_BYTES, Outcome, Sandbox
from benchmarks.corpus.tally import Tally
from tests.app.datasets.corpus import generated, good, hand, harmless
from tests.app.datasets.corpus.hand import Case
from tests.app.datasets.zips import Raw, png, with_good

ARCHIVES, IMAGES = hand.archives(), hand.images()
GOOD = 60
FEW = settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as opened:
        yield opened


def assert_refused(outcome: Outcome, code: str) -> None:
    """For that reason, and with nothing written, left or held."""
    assert outcome.refused(code), outcome
    assert (outcome.outside, outcome.left) == ((), ())
    assert outcome.extra_bytes is not None
    assert outcome.extra_bytes <= MAX_EXTRA_BYTES


def test_the_corpus_is_as_large_as_it_is_said_to_be() -> None:
    assert len(ARCHIVES) >= 150
    assert len(IMAGES) >= 100
    contents = [case.content for case in (*ARCHIVES.values(), *IMAGES.values())]
    assert len(set(contents)) == len(contents)


@pytest.mark.parametrize("case", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_hostile_archives_are_refused_for_their_reason(sandbox: Sandbox, case: Case) -> None:
    assert_refused(sandbox.run(case.content), case.code)


AT_DOOR = {name: case for name, case in ARCHIVES.items() if case.code == "not_an_archive"}


@pytest.mark.parametrize("case", AT_DOOR.values(), ids=AT_DOOR.keys())
def test_the_check_itself_refuses_what_the_door_would(sandbox: Sandbox, case: Case) -> None:
    """Uploads in pieces are judged by their ends as well, but the check relies on nobody."""
    code = "damaged_file" if case.content.startswith(b"PAR1") else case.code
    assert_refused(sandbox.run(case.content, door=False), code)


@pytest.mark.parametrize("case", IMAGES.values(), ids=IMAGES.keys())
def test_hostile_images_are_refused_for_their_reason(sandbox: Sandbox, case: Case) -> None:
    outcome = sandbox.run(hand.among_good_ones(case.content))
    assert_refused(outcome, case.code)
    assert outcome.codes == (case.code,)
    if not is_archive(case.content):
        with pytest.raises(ImageError) as caught:
            canonical(case.content, CheckOptions().max_image_pixels)
        assert caught.value.code == case.code


@FEW
@given(case=generated.hostile())
def test_generated_hostile_uploads_are_refused_for_their_reason(
    sandbox: Sandbox, case: Case
) -> None:
    assert_refused(sandbox.run(case.content), case.code)


@FEW
@given(content=generated.damaged())
def test_a_damaged_upload_is_refused_or_holds_what_it_held(
    sandbox: Sandbox, content: bytes
) -> None:
    outcome = sandbox.run(content)
    assert outcome.crash is None
    assert (outcome.outside, outcome.left) == ((), ())
    assert not outcome.ok or outcome.version == version_of(sandbox)


def version_of(sandbox: Sandbox) -> str | None:
    return sandbox.run(generated.whole()[0]).version


def test_good_uploads_are_taken(sandbox: Sandbox) -> None:
    for name, content in good.archives(GOOD):
        outcome = sandbox.run(content)
        assert outcome.ok, (name, outcome)
        assert (outcome.outside, outcome.left, outcome.crash) == ((), (), None), name


@pytest.mark.parametrize("name", harmless.uploads())
def test_odd_uploads_that_do_no_harm_are_taken(sandbox: Sandbox, name: str) -> None:
    outcome = sandbox.run(harmless.uploads()[name])
    assert outcome.ok, outcome
    assert outcome.left == ()


# A guard switched off, the upload that it is there for, and what the tally has to say of it.
CONTROLS = {
    "names": ("name-right-to-left", "taken instead of unsafe_name"),
    "ratio": ("bomb-one-file", "unsupported_image instead of compression_ratio"),
    "overlaps": ("zip-overlap", "instead of overlapping_files"),
    "tidiness": ("zip-encrypted", "left check-"),
    "staging": ("name-parent-behind-dot", "wrote 1/2/3/4/5/6/7/8/9.png"),
    "memory": ("zip-method-12", "more bytes"),
}


@pytest.mark.parametrize("guard", controls.GUARDS)
def test_the_harness_notices_a_guard_that_is_off(sandbox: Sandbox, guard: str) -> None:
    name, told = CONTROLS[guard]
    content, code = ARCHIVES[name]
    for without in (None, guard):
        tally = Tally()
        kept = tally.add_hostile(name, code, sandbox.run(content, without=without))
        assert kept == (without is None), tally.broken
    assert told in " ".join(tally.broken)


def test_a_file_with_an_absolute_name_would_be_found(tmp_path: Path) -> None:
    target = tmp_path / "escaped"  # of this test alone: others look at the corpus's own targets
    content = with_good(Raw(target.as_posix().encode(), png(9)))
    with Sandbox(targets=[target]) as sandbox:
        assert target.as_posix() in sandbox.run(content, without="staging").outside
        assert sandbox.run(content).outside == ()


def test_the_tally_notices_what_takes_too_long() -> None:
    tally = Tally()
    slow = Outcome(False, False, ("link",), 0, None, cpu_seconds=2.5)
    assert not tally.add_hostile("slow", "link", slow)
    assert tally.broken == ["slow: took 2.5 s of processor time"]


def test_the_tally_notices_a_good_upload_that_is_refused() -> None:
    tally = Tally()
    assert not tally.add_good("good", Outcome(False, False, ("link",), 0, None))
    assert (tally.good_refused, tally.broken) == (1, ["good: refused for link"])
