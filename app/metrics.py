"""What a process counts for Prometheus; what there is at a moment is asked for at each scrape.

A count is this process's own, from its start: Prometheus adds up processes and knows restarts. The
names follow Prometheus's conventions: base units, `_total` for what only grows. docs/operations.md
lists every one of them. Counts of the ledger are made behind the commit (`app.db.after_commit`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

import tdmr

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"  # what a client made up mustn't become a series

# A second series for each, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call] # it has no annotations

REQUESTS = Histogram(
    "tdmr_http_request_duration_seconds",
    "From a request's head to its answer's head, without what it asked to wait (Prefer: wait).",
    ("method", "route", "status"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
    registry=None,
)
UPLOADED = Counter(
    "tdmr_upload_bytes_total", "Bytes of uploads' bodies that were written.", registry=None
)
PREDICTIONS = Counter("tdmr_predictions_total", "Images that were classified.", registry=None)
WEBHOOKS = Counter(
    "tdmr_webhook_attempts_total",
    "Attempts to deliver a webhook, by what became of the delivery.",
    ("status",),
    registry=None,
)
ENDED = Counter(
    "tdmr_jobs_ended_total",
    "Jobs that came to their end, by state and the failure's code.",
    ("kind", "state", "code"),
    registry=None,
)
CLAIMS = Counter(
    "tdmr_claims_total", "Jobs that were claimed: attempts begun.", ("kind",), registry=None
)
BEATS = Counter(
    "tdmr_heartbeats_total",
    "Heartbeats of running jobs: kept, failed (no database) or lost (the lease is another's).",
    ("outcome",),
    registry=None,
)
SWEEPS = Counter("tdmr_sweeps_total", "Rounds of looking for silent workers.", registry=None)
SWEPT = Counter(
    "tdmr_jobs_swept_total",
    "Jobs taken back from a worker that went silent.",
    ("kind",),
    registry=None,
)
FORWARDS = Counter(
    "tdmr_foundation_forwards_total",
    "Images shown to a foundation by trainings that came to their end.",
    registry=None,
)
SAVED = Counter(
    "tdmr_foundation_forwards_saved_total",
    "Views that such trainings found in the cache instead.",
    registry=None,
)
for _outcome in ("kept", "failed", "lost"):
    BEATS.labels(_outcome)

# A job ends where its last transaction is: in a worker, or in a server when it was still waiting.
SERVER: tuple[MetricWrapperBase, ...] = (REQUESTS, UPLOADED, PREDICTIONS, WEBHOOKS, ENDED)
WORKER: tuple[MetricWrapperBase, ...] = (*(ENDED, CLAIMS, BEATS, SWEEPS, SWEPT, FORWARDS, SAVED),)


_OBSERVERS: dict[tuple[str, str, int], Callable[[float], None]] = {}


def registry(counts: Iterable[MetricWrapperBase], *more: Collector) -> CollectorRegistry:
    """What one process answers a scrape with: its counts, what it finds then, and the process."""
    made = CollectorRegistry()
    for each in (*counts, *more, _Build()):
        made.register(each)
    ProcessCollector(registry=made)
    return made


def answered(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count an answer; `route` is a template, None where no route was found."""
    key = (method if method in METHODS else OTHER, route or OTHER, status)
    if (observe := _OBSERVERS.get(key)) is None:  # to find it costs as much as to use it
        observe = _OBSERVERS[key] = REQUESTS.labels(*key).observe
    observe(seconds)


def disk(folder: Path, name: str) -> Iterable[GaugeMetricFamily]:
    """The room on the disk that `folder` is on, which is labelled `name`."""
    usage = shutil.disk_usage(folder)
    for what, value, said in (
        ("free", usage.free, "Room that is left on the folder's disk."),
        ("size", usage.total, "Size of the folder's disk."),
    ):
        family = GaugeMetricFamily(f"tdmr_disk_{what}_bytes", said, labels=["folder"])
        family.add_metric([name], value)
        yield family


class _Build(Collector):
    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Which version runs."""
        said = "Always 1; the label says which version runs."
        family = GaugeMetricFamily("tdmr_build_info", said, labels=["version"])
        family.add_metric([tdmr.__version__], 1)
        yield family
