"""A client of the HTTP service: upload, submit, wait, download. Loads no torch.

with Client("http://127.0.0.1:8080", key) as client:
    dataset = client.upload_dataset("my_images/").wait()
    job = client.submit(dataset.id, "letters_vit", "test_resnet").wait()
    job.fetch_student().download("student/")

`AsyncClient` has the same methods, to be awaited. Answers are the models of `tdmr.wire`; what a
newer server adds to them is passed over.
"""

from tdmr.client.async_client import AsyncClient
from tdmr.client.async_things import AsyncDataset, AsyncJob, AsyncModel, AsyncStudent
from tdmr.client.errors import (
    ApiError,
    ConflictError,
    DigestError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RateLimitedError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnexpectedAnswerError,
)
from tdmr.client.sync_client import Client
from tdmr.client.sync_things import Dataset, Job, Model, Student

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncDataset",
    "AsyncJob",
    "AsyncModel",
    "AsyncStudent",
    "Client",
    "ConflictError",
    "Dataset",
    "DigestError",
    "ForbiddenError",
    "InvalidError",
    "Job",
    "Model",
    "NotFoundError",
    "RateLimitedError",
    "Student",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UnexpectedAnswerError",
]
