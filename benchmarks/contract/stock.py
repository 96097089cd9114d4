"""Something to find: a dataset, jobs in several states, a student that can predict."""

from __future__ import annotations

from app.settings import Settings
from benchmarks.served import Running
from benchmarks.server import stock as jobs
from tests.app.live import publish
from tests.app.service import BUNDLE


def stock(server: Running) -> dict[str, list[str]]:
    """Fill the server; ids by the names of the parameters that take them."""
    made = jobs.fill(Settings(data_dir=server.data), 9)
    student = publish(server, BUNDLE)
    with server.client() as client:
        datasets = [row["id"] for row in client.get("/v1/datasets").json()["data"]]
        files = [row["name"] for row in client.get(f"/v1/students/{student}").json()["files"]]
    return {
        "dataset_id": datasets,
        "job_id": [job_id for ids in made.values() for job_id in ids],
        "student_id": [student],
        "name": files,
        "number": ["0"],
    }
