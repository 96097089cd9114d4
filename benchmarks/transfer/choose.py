"""Each method's setting: chosen for every method in the same way, and on no image of the results.

Per method and student: few training images are drawn from the half of the digits that no result is
measured on, and the rest of that half says which budget and augmentation, and then which rate, is
best. What is chosen with the transformer foundation on digits serves the others too.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.transfer.grid import CHOICE_SHOTS, Draw, Setting, trials
from benchmarks.transfer.lab import CHOICE, Lab, write


def choose(draw: Draw, methods: tuple[str, ...], cache: Path) -> dict[str, Any]:
    """For each method its best setting, and the trials that it was chosen by."""
    with ExitStack() as stack:
        labs = []
        for place, shots in enumerate(CHOICE_SHOTS):
            data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            mine = replace(draw, shots=shots, seed=draw.seed + place)
            write(mine, data, CHOICE)
            labs.append(Lab(mine, data, cache))
        return {method: _search(labs, method) for method in methods}


def _search(labs: list[Lab], method: str) -> dict[str, Any]:
    seen: dict[Setting, list[float]] = {}
    best = Setting()
    for number in range(len(trials(best))):
        candidates = trials(best)[number]
        for setting in candidates:
            if setting not in seen:
                seen[setting] = [lab.train(method, setting)["accuracy"] for lab in labs]
        # The first of equals: the cheaper one.
        best = max(candidates, key=lambda setting: mean(seen[setting]))
    found = [{**vars(setting), "accuracies": values} for setting, values in seen.items()]
    return {"setting": vars(best), "trials": found}
