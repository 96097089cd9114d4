"""The alert rules and the dashboard: they ask for what there is, and say what they should.

Every expression is parsed strictly and worked out (tests/promql.py) over a service that is well and
over one that isn't.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.served import ROOT
from tests.promql import Parser, PromqlError, Sample, Scrapes

GUIDE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
RULES = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
ALERTS: dict[str, Any] = {
    rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]
}
BOARD = json.loads((ROOT / "deploy/grafana/tdmr.json").read_text(encoding="utf-8"))
LISTED = set(re.findall(r"^\| `([a-z_]+)` \|", GUIDE, re.MULTILINE))
HISTOGRAM = "tdmr_http_request_duration_seconds"
KNOWN = (LISTED - {HISTOGRAM}) | {f"{HISTOGRAM}_{end}" for end in ("bucket", "count", "sum")}
OLDEST = "tdmr_jobs_oldest_seconds"
JOB = 'route="/v1/jobs/{job_id}",method="GET"'

WELL = f"""
up{{job="tdmr-server",instance="s"}} 1
tdmr_database_up{{instance="s"}} 1
tdmr_workers{{device="cuda:0"}} 4
tdmr_jobs{{queue="default",kind="distil",state="queued"}} 12
tdmr_jobs_oldest_seconds{{queue="default",kind="distil",state="queued"}} 3000
tdmr_jobs_oldest_seconds{{queue="default",kind="ingest",state="queued"}} 4
tdmr_jobs_oldest_seconds{{queue="default",kind="distil",state="running"}} 90000
tdmr_jobs_heartbeat_late 0
tdmr_jobs_lease_expired 0
tdmr_heartbeats_total{{instance="w",outcome="kept"}} 500
tdmr_heartbeats_total{{instance="w",outcome="failed"}} 2
tdmr_jobs_swept_total{{kind="distil"}} 40
tdmr_jobs_ended_total{{kind="distil",state="failed",code="worker_lost"}} 9
tdmr_jobs_ended_total{{kind="distil",state="failed",code="dataset"}} 100
{HISTOGRAM}_count{{{JOB},status="200"}} 10000
{HISTOGRAM}_count{{{JOB},status="500"}} 5
{HISTOGRAM}_bucket{{{JOB},status="200",le="0.5"}} 10000
{HISTOGRAM}_bucket{{{JOB},status="200",le="1.0"}} 10000
{HISTOGRAM}_bucket{{{JOB},status="200",le="+Inf"}} 10000
tdmr_outbox_oldest_seconds 1
tdmr_webhook_deliveries_overdue_seconds 0
tdmr_disk_free_bytes{{instance="s",folder="data"}} 50
tdmr_disk_size_bytes{{instance="s",folder="data"}} 100
tdmr_worker_busy{{instance="w"}} 1
tdmr_gpu_utilization_ratio{{instance="w",gpu="0"}} 0.9
process_open_fds{{job="tdmr-server",instance="s"}} 50
process_max_fds{{job="tdmr-server",instance="s"}} 1024
"""
# What has become of the service, sample by sample, when each alert has to be raised.
ILL: dict[str, list[tuple[str, str]]] = {
    "TdmrServerDown": [("up", "0")],
    "TdmrDatabaseDown": [("tdmr_database_up", "0")],
    "TdmrNoWorkers": [("tdmr_workers", "")],
    "TdmrTrainingsWait": [(f'{OLDEST}{{queue="default",kind="distil",state="queued"', "15000")],
    "TdmrChecksWait": [(f'{OLDEST}{{queue="default",kind="ingest"', "700")],
    "TdmrHeartbeatsLate": [("tdmr_jobs_heartbeat_late", "2")],
    "TdmrLeasesNotSwept": [("tdmr_jobs_lease_expired", "1")],
    "TdmrHeartbeatsFail": [('tdmr_heartbeats_total{instance="w",outcome="failed"', "9")],
    "TdmrWorkersDie": [("tdmr_jobs_swept_total", "46")],
    "TdmrJobsFail": [
        ('tdmr_jobs_ended_total{kind="distil",state="failed",code="worker_lost"', "13")
    ],
    "TdmrAnswersFail": [
        (f'{HISTOGRAM}_count{{{JOB},status="200"', "10100"),
        (f'{HISTOGRAM}_count{{{JOB},status="500"', "8"),
    ],
    "TdmrAnswersSlow": [
        (f'{HISTOGRAM}_bucket{{{JOB},status="200",le="0.5"', "10090"),
        (f'{HISTOGRAM}_bucket{{{JOB},status="200",le="1.0"', "10100"),
        (f'{HISTOGRAM}_bucket{{{JOB},status="200",le="+Inf"', "10100"),
    ],
    "TdmrBellsWait": [("tdmr_outbox_oldest_seconds", "301")],
    "TdmrWebhooksWait": [("tdmr_webhook_deliveries_overdue_seconds", "901")],
    "TdmrDiskFull": [("tdmr_disk_free_bytes", "9")],
    "TdmrGpuIdle": [("tdmr_gpu_utilization_ratio", "0.01")],
    "TdmrDescriptorsRunOut": [("process_open_fds", "900")],
}  # fmt: skip


def samples(text: str) -> list[Sample]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def changed(text: str, start: str, value: str) -> str:
    """The text with another value in the one line that begins so; without the line, for none."""
    lines = text.splitlines()
    (place,) = [
        number
        for number, line in enumerate(lines)
        if line.startswith(start) and line[len(start)] in "{ ,}"
    ]
    lines[place] = f"{lines[place].rpartition(' ')[0]} {value}" if value else ""
    return "\n".join(lines) + "\n"


def raised(scrapes: Scrapes) -> set[str]:
    return {name for name, rule in ALERTS.items() if Parser(rule["expr"]).node(scrapes)}


def test_no_alert_is_raised_while_all_is_well() -> None:
    well = samples(WELL)
    assert raised(Scrapes(well, well)) == set()


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_is_raised_by_what_it_is_for_and_by_that_alone(name: str) -> None:
    ill = WELL
    for start, value in ILL[name]:
        ill = changed(ill, start, value)
    assert raised(Scrapes(samples(WELL), samples(ill))) == {name}


def test_what_isnt_running_isnt_idle() -> None:
    ill = changed(changed(WELL, "tdmr_gpu_utilization_ratio", "0"), "tdmr_worker_busy", "0")
    assert raised(Scrapes(samples(WELL), samples(ill))) == set()


@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_asks_for_what_there_is_and_has_its_section(name: str) -> None:
    rule = ALERTS[name]
    assert Parser(rule["expr"]).names <= KNOWN | {"up"}
    assert re.fullmatch(r"\d+[mh]", rule["for"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"


def test_every_alert_and_no_other_has_a_section() -> None:
    assert re.findall(r"^### (Tdmr\w+)$", GUIDE, re.MULTILINE) == list(ALERTS)


def test_each_panel_asks_for_what_there_is_and_together_for_everything() -> None:
    asked = set()
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            asked |= Parser(target["expr"]).names
    assert asked <= KNOWN
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    left_out = {f"{HISTOGRAM}_sum"} | {name for name in KNOWN if name.startswith("process_")}
    assert KNOWN - asked <= left_out


@pytest.mark.parametrize(
    "wrong",
    ["rate(a)", "sum(a", "a{b=1}", "a >", "nosuch(a)", "a b", "rate(a[5 m])", "a{b=~}", "@a", ""],
)
def test_what_isnt_promql_is_refused(wrong: str) -> None:
    with pytest.raises(PromqlError):
        Parser(wrong)
