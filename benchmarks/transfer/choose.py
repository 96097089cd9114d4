"""Each method's setting: chosen for every method in the same way, and on no image of the results.

Per method, student and shots: training images are drawn from the half of the digits that no
result is measured on, and the rest of that half says which augmentation, then which budget, then
which rate is best. What is chosen with the transformer foundation serves the others too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.transfer.grid import Draw, Setting, choices
from benchmarks.transfer.lab import CHOICE, Lab, write


def choose(draw: Draw, methods: tuple[str, ...], cache: Path) -> dict[str, Any]:
    """For each method its best setting, and the trials that it was chosen by."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(draw, root / "data", CHOICE)
        lab = Lab(draw, root / "data", cache)
        return {method: _search(lab, method) for method in methods}


def _search(lab: Lab, method: str) -> dict[str, Any]:
    best, seen = Setting(), {}
    for axis in range(len(choices(best))):
        for setting in choices(best)[axis]:
            if setting not in seen:
                seen[setting] = lab.train(method, setting)["accuracy"]
        # The first of equals: the cheaper one.
        best = max(choices(best)[axis], key=lambda s: seen[s])
    trials = [{**vars(setting), "accuracy": value} for setting, value in seen.items()]
    return {"setting": vars(best), "trials": trials}
