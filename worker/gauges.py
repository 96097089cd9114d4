"""What a worker finds when it's asked by Prometheus: its cache, its disk, its GPUs."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog
from prometheus_client import start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app import metrics
from worker.site import views
from worker.station import Station

NVIDIA_SMI = "nvidia-smi"
SMI_SECONDS = 5.0
MEBIBYTE = 2**20
# What nvidia-smi tells of each GPU, the metric that it becomes, its unit, and what it is.
ASKED = (
    ("utilization.gpu", "tdmr_gpu_utilization_ratio", 0.01, "Share of time in which kernels ran."),
    ("memory.used", "tdmr_gpu_memory_used_bytes", MEBIBYTE, "Memory of the GPU that is in use."),
    ("memory.total", "tdmr_gpu_memory_size_bytes", MEBIBYTE, "Memory that the GPU has."),
)

log = structlog.get_logger(__name__)


def serve(station: Station, host: str, port: int) -> int:
    """Answer GET /metrics of anybody who reaches `host`, on a thread; the port, if 0 was given.

    Raises OSError where that can't be listened on.
    """
    made = metrics.registry(metrics.WORKER, Gauges(station))
    server, _ = start_http_server(port, host, made)
    return server.server_port


class Gauges(Collector):
    """Looks anew at each scrape."""

    def __init__(self, station: Station) -> None:
        self._station = station

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: to be registered looks nowhere."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All of them, as of now."""
        settings = self._station.settings
        busy = GaugeMetricFamily("tdmr_worker_busy", "Whether a job is being run.")
        busy.add_metric([], int(self._station.busy))
        cache = GaugeMetricFamily("tdmr_cache_bytes", "Views and features that are kept here.")
        cache.add_metric([], _size(views(settings)))
        yield from (busy, cache)
        settings.work_dir.mkdir(parents=True, exist_ok=True)
        yield from metrics.disk(settings.work_dir, "work")
        yield from _gpus()


def _size(folder: Path) -> int:
    """Bytes on the disk below a folder that changes meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except FileNotFoundError:  # it was just let go
                continue
    return total


def _gpus() -> Iterator[GaugeMetricFamily]:
    """What nvidia-smi says; nothing where it isn't there, or says nothing."""
    program = shutil.which(NVIDIA_SMI)
    if program is None:
        return
    fields = ",".join(field for field, *_ in ASKED)
    command = [program, f"--query-gpu=index,{fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - our own command, no shell
            command, capture_output=True, text=True, check=True, timeout=SMI_SECONDS
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("gpu_not_seen", error=str(error))
        return
    rows = [[cell.strip() for cell in row] for row in csv.reader(done.stdout.splitlines())]
    for place, (_, name, unit, said) in enumerate(ASKED, 1):
        family = GaugeMetricFamily(name, said, labels=["gpu"])
        for row in rows:
            if row[place].replace(".", "").isdigit():  # else: [N/A], as on a GPU in parts
                family.add_metric([row[0]], float(row[place]) * unit)
        yield family
