"""What operators see of one job, from the request that ordered it to the process that trained it.

A real server, a real worker and a real training, looked at from outside.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from app import metrics
from benchmarks.served import ROOT, Running, serving
from tdmr import spans
from tdmr.client import Client
from tests.shapes import draw_dataset
from tests.support import end, wait_until
from tests.test_own_foundations import ONCE
from worker.kinds import Distil

TOKEN = "operators-alone"
TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # the standard's example
ORDER = "order-7.1"  # the request's id, given by the client
STAGES = ("prepare", "cache", "reprogram", "distil", "evaluate")
# What nvidia-smi prints, of a GPU and of one that is split into parts.
SMI = "#!/bin/sh\necho '0, 35, 1024, 81559'\necho '1, [N/A], 5, 81559'\n"
LISTED = re.compile(r"^\| `([a-z_]+)` \|", re.MULTILINE)

Line = dict[str, Any]


class Span(NamedTuple):
    """A span, and the service that sent it."""

    service: str
    data: Any


@dataclass
class Seen:
    """What there was to see once the job's student was there."""

    student: dict[str, Any]
    job_id: str
    server: str  # /metrics, as text
    worker: str
    lines: list[Line]  # of the worker's log
    spans: dict[str, Span]  # by their ids


@contextmanager
def working(
    server: Running, folder: Path, endpoint: str
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A worker of its own beside a server, and its log; it finds a GPU's program."""
    smi = folder / "nvidia-smi"
    smi.write_text(SMI)
    smi.chmod(0o755)
    given = {name: value for name, value in os.environ.items() if not name.startswith("TDMR_")}
    given |= {"TDMR_DATA_DIR": str(server.data), "TDMR_POLL_SECONDS": "0.2"}
    given["TDMR_OTLP_ENDPOINT"] = endpoint
    given["PATH"] = f"{folder}{os.pathsep}{given['PATH']}"
    command = [sys.executable, "-m", "worker", "--device", "cpu", "--metrics-port", "0"]
    path = folder / "worker.log"
    with path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=given, cwd=ROOT)
    try:
        yield process, path
    finally:
        end(process)


def lines_of(path: Path) -> list[Line]:
    """The lines of a log that are whole: it's being written."""
    whole = path.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def port_of(path: Path) -> int | None:
    return next((line["port"] for line in lines_of(path) if line["event"] == "scraped"), None)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("observed")
    draw_dataset(folder / "images", {"train": 4, "test": 3})
    with collecting() as (endpoint, found):
        given = {"metrics_token": TOKEN, "otlp_endpoint": endpoint}
        with (
            serving(folder, "--no-worker", **given) as server,
            working(server, folder, endpoint) as (process, log),
        ):
            wait_until(lambda: port_of(log), process)
            student, job_id = ordered(server, folder / "images")
            key = {"Authorization": f"Bearer {TOKEN}"}
            told = httpx.get(f"{server.address}/metrics", headers=key).text
            worker = httpx.get(f"http://127.0.0.1:{port_of(log)}/metrics").text
        # Both have ended, and sent what they still had.
        return Seen(student, job_id, told, worker, lines_of(log), found)


def ordered(server: Running, images: Path) -> tuple[dict[str, Any], str]:
    """A student's figures and its job, ordered by a request with an id and a trace of its own."""
    with Client(server.address, server.key) as client, server.client() as http:
        spec = {"foundation": "letters_vit", "student": "test_resnet", "baselines": []}
        dataset = client.upload_dataset(images).wait()
        order = {"dataset_id": dataset.id, **spec, "options": ONCE.model_dump(mode="json")}
        headers = {"X-Request-Id": ORDER, "traceparent": f"00-{TRACE}-{CLIENT}-01"}
        made = http.post("/v1/jobs", json=order, headers=headers)
        assert made.headers["X-Request-Id"] == ORDER
        job = client.job(made.json()["id"]).wait()
        return client.student(job.student_id or "").metrics, job.id


@contextmanager
def collecting() -> Iterator[tuple[str, dict[str, Span]]]:
    """A collector of OTLP over HTTP, and what it has taken."""
    spans: dict[str, Span] = {}

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = {a.key: a.value.string_value for a in part.resource.attributes}
                for scope in part.scope_spans:
                    for each in scope.spans:
                        spans[each.span_id.hex()] = Span(service["service.name"], each)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text: str, name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_the_request_can_be_followed_into_the_trainings_process(seen: Seen) -> None:
    mine = [line for line in seen.lines if line.get("request_id") == ORDER]
    of_the_job = [line for line in mine if line["job_id"] == seen.job_id]
    assert {line["event"] for line in of_the_job} >= {"claimed", "process", "left"}
    printed = [line["line"] for line in of_the_job if line["event"] == "process"]
    said = [json.loads(line) for line in printed if line.startswith("{")]
    assert [line["stage"] for line in said if line["event"] == "stage"] == list(STAGES)
    assert said[-1]["event"] == "done"
    for line in said:
        ids = {"job_id": seen.job_id, "attempt": "1", "request_id": ORDER}
        assert ids.items() <= line.items()
    # The packaging is a job of its own, which the same request has brought about.
    packaged = {line["kind"] for line in mine if line["job_id"] != seen.job_id}
    assert packaged == {"package"}
    check = [line for line in seen.lines if line.get("kind") == "ingest"]
    assert check
    assert all(line["request_id"] not in ("", ORDER) for line in check)


def test_the_worker_counts_what_it_does(seen: Seen) -> None:
    for kind in ("ingest", "distil", "package"):
        assert value(seen.worker, "tdmr_claims_total", kind=kind) == 1
        ended = {"kind": kind, "state": "succeeded", "code": ""}
        assert value(seen.worker, "tdmr_jobs_ended_total", **ended) == 1
    forwards = seen.student["foundation"]["forwards"]
    assert value(seen.worker, "tdmr_foundation_forwards_total") == forwards > 0
    assert value(seen.worker, "tdmr_foundation_forwards_saved_total") == 0
    assert value(seen.worker, "tdmr_cache_bytes") >= seen.student["cache"]["bytes"]
    assert value(seen.worker, "tdmr_worker_busy") == 0
    assert value(seen.worker, "tdmr_sweeps_total") >= 1
    assert value(seen.worker, "tdmr_gpu_utilization_ratio") == pytest.approx(0.35)
    assert value(seen.worker, "tdmr_gpu_memory_used_bytes", gpu="0") == 2**30
    assert value(seen.server, "tdmr_workers", device="cpu") == 1
    uploads = {"method": "POST", "route": "/v1/datasets", "status": "201"}
    name = "tdmr_http_request_duration_seconds_count"
    assert value(seen.server, name, **uploads) == 1


def test_views_that_were_in_the_cache_are_counted_as_saved(seen: Seen) -> None:
    training = object.__new__(Distil)
    training._metrics = {**seen.student, "cache": {**seen.student["cache"], "reused": True}}
    before = metrics.SAVED._value.get()
    training._count_forwards()
    views, images = (
        seen.student["cache"]["views_per_image"],
        seen.student["dataset"]["train_images"],
    )
    assert metrics.SAVED._value.get() - before == views * images > 0


def test_the_guide_lists_every_metric_and_no_other(seen: Seen) -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    listed = LISTED.findall(page)
    assert len(listed) == len(set(listed))
    there = families(seen.server) | families(seen.worker)
    counters = {name + "_total" if each.type == "counter" else name for name, each in there.items()}
    assert set(listed) == counters
    for name, each in there.items():
        assert each.documentation.endswith((".", "seconds")) or name.startswith("process_"), name


def test_one_trace_leads_from_the_request_to_the_stages(seen: Seen) -> None:
    mine = {i: span for i, span in seen.spans.items() if span.data.trace_id.hex() == TRACE}
    tree: dict[str, list[str]] = {}
    for span in mine.values():
        parent = span.data.parent_span_id.hex()
        above = mine[parent].data.name if parent in mine else parent
        tree.setdefault(above, []).append(f"{span.service}: {span.data.name}")
    order = "POST /v1/jobs"
    assert {above: sorted(below) for above, below in tree.items()} == {
        CLIENT: [f"tdmr-server: {order}"],
        order: [
            "tdmr-worker: attempt distil",
            "tdmr-worker: attempt package",
            "tdmr-worker: claim",
            "tdmr-worker: claim",
        ],
        "attempt distil": [
            *(f"tdmr-process: stage {name}" for name in sorted(STAGES)),
            "tdmr-worker: store",
        ],
        "attempt package": ["tdmr-process: stage package", "tdmr-worker: store"],
    }
    (attempt,) = (span.data for span in mine.values() if span.data.name == "attempt distil")
    told = {each.key: each.value for each in attempt.attributes}
    assert told["tdmr.job_id"].string_value == seen.job_id
    for span in mine.values():  # the stages lie within the attempt that they belong to
        if span.data.parent_span_id == attempt.span_id:
            assert attempt.start_time_unix_nano <= span.data.start_time_unix_nano
            assert span.data.end_time_unix_nano <= attempt.end_time_unix_nano


OFF = """
import sys
import {modules}
from app.settings import Settings
from tdmr import spans
spans.send(Settings().otlp_endpoint, "tdmr")
spans.of_stages()
with spans.span("nothing") as made:
    assert made is None
print(sorted(name for name in sys.modules if name.partition(".")[0] == "opentelemetry"))
"""


# FastAPI loads OpenTelemetry's interface by itself; what makes and sends spans is the rest.
@pytest.mark.parametrize(
    ("modules", "kept_by_others"),
    [("app.main, app.cli", True), ("worker.cli, worker.pipeline, tdmr.process", False)],
)
def test_without_an_endpoint_nothing_of_opentelemetry_is_loaded(
    modules: str, kept_by_others: bool
) -> None:
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    given[spans.TRACEPARENT] = f"00-{TRACE}-{CLIENT}-01"
    command = [sys.executable, "-c", OFF.format(modules=modules)]
    done = subprocess.run(command, env=given, capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = re.findall(r"'([a-z_.]+)'", done.stdout)
    ours = ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto")
    assert [name for name in loaded if not kept_by_others or name.startswith(ours)] == []
