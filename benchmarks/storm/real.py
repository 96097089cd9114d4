"""Trainings that are no stand-ins: a killed one must end with the bytes of one that wasn't."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from app.datasets import service as datasets
from app.jobs.idempotency import Idempotency
from app.models import Dataset, Student
from benchmarks.storm import chaos, standin
from benchmarks.storm.arena import OWNERS, Arena, Kill
from benchmarks.storm.chaos import Busy
from benchmarks.storm.fleet import Fleet
from demo import digits
from tdmr import failpoint

QUEUE = "real"
IMAGES, SHOTS = 200, 2
SPEC: dict[str, Any] = {
    "foundation": "letters_vit",
    "student": "test_resnet",
    "baselines": [],
    "options": {
        "seed": 7,
        "image_size": 32,
        "views": {"count": 4, "flip": 0.0},
        "reprogram": {"steps": 40},
        "training": {"steps": 150, "batch_size": 16},
        "audit": False,
        "exports": {"formats": []},  # what is killed is the training
    },
}
LONGEST = 4.0  # seconds between a training's first words and its death
POINTS = failpoint.POINTS[failpoint.POINTS.index("checkpoint.written") :]


class Trainings:
    """Real trainings in an arena, on a queue of their own."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._dataset_id = ""
        self._student = ""  # the SHA-256 of an undisturbed one

    def upload(self) -> None:
        """Digits, checked by the arena's workers as any upload is."""
        arena, dataset_id = self._arena, datasets.new_dataset_id()
        folder = arena.folder / "digits"
        digits.write(folder, SHOTS, 0, np.arange(IMAGES))
        archive = Path(shutil.make_archive(str(folder), "zip", folder))
        upload = arena.storage.put(datasets.upload_key(dataset_id), archive)
        arena.change(
            lambda session: datasets.create(
                session,
                dataset_id=dataset_id,
                owner=OWNERS[0],
                name="digits",
                upload=upload,
                idempotency=Idempotency(None, ""),
                settings=arena.settings,
            )
        )
        arena.relay.nudge()
        assert arena.until(lambda: self._status(dataset_id) != "processing")
        assert self._status(dataset_id) == "ready"
        self._dataset_id = dataset_id

    def _status(self, dataset_id: str) -> str:
        return self._arena.ask(lambda session: session.get_one(Dataset, dataset_id).status)

    def undisturbed(self) -> str:
        """Train once with the product's own worker, and let nothing happen to it: its SHA-256."""
        arena, fleet = self._arena, self._arena.fleet(QUEUE)
        hand, job_id = fleet.start_product(), self._order()
        assert arena.until(lambda: arena.job(job_id).state == "succeeded"), arena.job(job_id).state
        hand.stop()
        student = arena.ask(
            lambda session: session.scalars(select(Student).where(Student.job_id == job_id)).one()
        )
        (key,) = [row["key"] for row in student.files if row["name"] == standin.STUDENT]
        self._student = hashlib.sha256(arena.storage.path(key).read_bytes()).hexdigest()
        arena.orders[job_id] = replace(arena.orders[job_id], student=self._student)
        return self._student

    def _order(self) -> str:
        return self._arena.order(SPEC, self._student, dataset_id=self._dataset_id, queue=QUEUE)

    def storm(self, kills: int, seed: str, told: Callable[[], object]) -> None:
        """Kill trainings, their workers or both, at a random moment after their first words."""
        arena, fleet = self._arena, self._arena.fleet(QUEUE)
        chosen = chaos.choices(f"{seed} real", 0.0, LONGEST)
        for _, choice in zip(range(kills), chosen, strict=False):
            done = None
            while done is None:
                assert arena.until(lambda: self._at_work(fleet) is not None)
                time.sleep(choice.delay)
                victim = self._at_work(fleet)
                done = chaos.strike(victim, choice.target, real=True) if victim else None
            arena.kills.append(done)
            told()

    def _at_work(self, fleet: Fleet) -> Busy | None:
        """A training that has said something; ordered, and its worker started, where need be."""
        fleet.keep(1)
        busy = chaos.busy(self._arena, fleet)
        if not busy and not self._waits():
            self._order()
        found = [b for b in busy if b.job.kind == "distil" and b.job.progress is not None]
        return found[0] if found else None

    def _waits(self) -> bool:
        """Whether there is an order that nobody has ended."""
        ended = ("succeeded", "failed", "cancelled")
        mine = [o for o in self._arena.orders.values() if o.student == self._student]
        return any(self._arena.job(order.job_id).state not in ended for order in mine)

    def struck(self, told: Callable[[], object]) -> list[str]:
        """Let one training die at each point of its own; the points that were come to."""
        reached = []
        for name in POINTS:
            arena, fleet = self._arena, self._arena.fleet(QUEUE, plain=False)
            marker, job_id = arena.folder / f"real-{name}", self._order()
            fleet.start(**{failpoint.VARIABLE: f"{name}:{marker}"})
            arena.settle()
            if marker.exists():
                reached.append(name)
                arena.kills.append(Kill("process", job_id, 0, marker.stat().st_mtime, True))
                told()
            fleet.stop()
        return reached
