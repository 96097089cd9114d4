"""The corpus of hostile and good uploads: `make fuzz` (FAST=1 for a smaller one).

Each upload goes through what the upload route judges and then through the check, in a process of
its own with its real limits. Hostile are those made by hand and those that Hypothesis makes; each
has to be refused with its stated code. `worst_seconds` is processor time, as machines are shared;
by the clock it is `worst_clock_seconds`. `worst_extra_bytes` is the peak of resident memory above
what the process had before its check; the code it runs is loaded then, but mapped files count as
they are touched. A damaged upload is a good one with a few bytes changed: it has to be refused, or
hold the same images. Ends with a status other than 0 when a promise was broken. Writes
benchmarks/results/corpus.json, or corpus_fast.json.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.corpus.sandbox import Sandbox
from benchmarks.corpus.tally import Tally
from benchmarks.machine import commit, machine, write_result
from tests.app.datasets.corpus import generated, good, hand, harmless
from tests.app.datasets.corpus.hand import Case

FAST = bool(os.environ.get("FAST"))
GENERATED, DAMAGED, GOOD = (500, 100, 60) if FAST else (10_000, 1000, 500)


class Run:
    """One pass over the corpus."""

    def __init__(self, sandbox: Sandbox, progress: Progress, keep: Path | None) -> None:
        self.tally = Tally()
        self._sandbox, self._progress, self._keep = sandbox, progress, keep

    def by_hand(self) -> None:
        """Hostile archives, and hostile images among good ones."""
        cases = dict(hand.archives())
        for name, case in hand.images().items():
            cases[f"image-{name}"] = Case(hand.among_good_ones(case.content), case.code)
        for name, (content, code) in self._progress.track(
            cases.items(), description="made by hand", total=len(cases)
        ):
            kept = self.tally.add_hostile(name, code, self._sandbox.run(content))
            self._note(name, content, kept)

    def generated(self, count: int, number: int) -> None:
        """Hostile uploads by Hypothesis."""

        def one(name: str, case: Case) -> None:
            kept = self.tally.add_hostile(name, case.code, self._sandbox.run(case.content))
            self._note(name, case.content, kept)

        self._drawn("generated", generated.hostile(), one, count, number)

    def damaged(self, count: int, number: int) -> None:
        """Good uploads with a few bytes changed."""
        versions = {self._sandbox.run(content).version for content in generated.whole()}
        (version,) = versions

        def one(name: str, content: bytes) -> None:
            kept = self.tally.add_damaged(name, version, self._sandbox.run(content))
            self._note(name, content, kept)

        self._drawn("damaged", generated.damaged(), one, count, number)

    def good(self, count: int, number: int) -> None:
        """Good uploads by a recipe, and odd ones that do no harm."""
        odd = [(f"harmless-{name}", content) for name, content in harmless.uploads().items()]
        task = self._progress.add_task("good", total=count + len(odd))
        for name, content in [*odd, *good.archives(count, number)]:
            self._note(name, content, self.tally.add_good(name, self._sandbox.run(content)))
            self._progress.advance(task)

    def _drawn(
        self,
        title: str,
        strategy: SearchStrategy[object],
        one: Callable[..., None],
        count: int,
        number: int,
    ) -> None:
        """Exactly `count` examples; Hypothesis gives fewer when some of its draws lead nowhere."""
        task = self._progress.add_task(title, total=count)
        done = 0
        while done < count:

            @seed(number)
            @settings(
                max_examples=count - done,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(strategy)
            def draw(value: object) -> None:
                nonlocal done
                one(f"{title}-{done}", value)
                done += 1
                self._progress.advance(task)

            draw()
            number += 1

    def _note(self, name: str, content: bytes, kept: bool) -> None:
        """Keep what broke a promise, to be looked at."""
        if not kept and self._keep is not None:
            self._keep.mkdir(parents=True, exist_ok=True)
            (self._keep / name).write_bytes(content)


def main() -> None:
    """Run, print and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where to leave uploads that broke a promise")
    given_ = parser.parse_args()
    console = Console(width=120)
    columns = (TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn())
    with Sandbox() as sandbox, Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        run = Run(sandbox, progress, given_.keep)
        run.by_hand()
        run.good(GOOD, given_.seed)
        run.damaged(DAMAGED, given_.seed)
        run.generated(GENERATED, given_.seed)
    tally = run.tally
    table = Table("figure", "value", title="hostile and good uploads")
    for name, value in tally.figures().items():
        table.add_row(name, str(value))
    console.print(table)
    result = {
        **tally.figures(),
        "broken": tally.broken[:100],
        "made_by_hand": len(hand.archives()) + len(hand.images()),
        "archives_by_hand": len(hand.archives()),
        "images_by_hand": len(hand.images()),
        "generated": GENERATED,
        "command": ("FAST=1 " if FAST else "") + "make fuzz",
        "seed": given_.seed,
        "commit": commit(),
        "machine": machine(),
    }
    path = write_result("corpus_fast" if FAST else "corpus", result)
    console.print(f"Stored in {path}")
    for each in tally.broken:
        console.print(f"[red]broken[/red] {each}", highlight=False)
    sys.exit(bool(tally.broken))


if __name__ == "__main__":
    main()
