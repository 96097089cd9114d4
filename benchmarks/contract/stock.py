"""Something to find: a dataset, own models, jobs in several states, a student that can predict."""

from __future__ import annotations

import httpx

from app.foundations import service as foundations
from app.settings import Settings
from benchmarks.served import Running
from benchmarks.server import stock as jobs
from tests.app.foundations.files import GOOD
from tests.app.live import database_of, publish
from tests.app.service import BUNDLE, FITS, OCTETS


def stock(server: Running) -> dict[str, list[str]]:
    """Fill the server; ids by the names of the parameters that take them."""
    made = jobs.fill(Settings(data_dir=server.data), 9)
    student = publish(server, BUNDLE)
    with server.client() as client:
        models = [own_model(client, name) for name in ("checked", "unchecked")]
        datasets = [row["id"] for row in client.get("/v1/datasets").json()["data"]]
        files = [row["name"] for row in client.get(f"/v1/students/{student}").json()["files"]]
    with database_of(server) as database, database.write() as session:
        foundations.settle(session, models[0], FITS)
    return {
        "dataset_id": datasets,
        "model_id": models,
        "job_id": [job_id for ids in made.values() for job_id in ids],
        "student_id": [student],
        "name": files,
        "number": ["0"],
    }


def own_model(client: httpx.Client, name: str) -> str:
    """The id of an own foundation that is uploaded and still to be checked."""
    told = {"architecture": "test_vit", "name": name}
    made = client.post("/v1/models", params=told, content=GOOD, headers=OCTETS)
    model_id: str = made.json()["id"]
    return model_id
