"""Scopes: what a key allows. Every route of the API declares the one that it needs."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """Something that a key can allow."""

    DATASETS_READ = "datasets:read"
    DATASETS_WRITE = "datasets:write"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    STUDENTS_READ = "students:read"
    STUDENTS_WRITE = "students:write"
    STUDENTS_PREDICT = "students:predict"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    AUDIT_READ = "audit:read"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"


ALL = tuple(Scope)
