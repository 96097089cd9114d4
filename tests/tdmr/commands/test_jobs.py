"""`tdmr jobs`: ordered, watched, stopped and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.served import Running
from tdmr.errors import Failure
from tests.app.live import Worker, ready_dataset
from tests.support import free_port
from tests.tdmr.client import answers
from tests.tdmr.client.misbehaving import misbehaving, refuses, says
from tests.tdmr.commands.conftest import COMMAND, Call, environment, said

MODELS = ("--foundation", "letters_vit", "--student", "test_resnet")


@pytest.fixture
def order(here: Running) -> tuple[str, ...]:
    """`jobs submit` on a dataset that is ready."""
    return ("jobs", "submit", "--dataset", ready_dataset(here), *MODELS)


@pytest.fixture
def job_id(call: Call, order: tuple[str, ...]) -> str:
    """A queued job."""
    found: str = json.loads(call(*order, "--json").out)["id"]
    return found


def test_an_order_says_everything(
    call: Call, here: Running, order: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "options.json").write_text('{"image_size": 32, "training": {"steps": 10}}')
    done = call(
        *(*order, "--options", f"@{tmp_path / 'options.json'}", "--option", "training.steps=300"),
        *("--option", "distil.depth=flat", "--option", "views.count=null", "--baseline", "kd"),
        *("--max-seconds", "60", "--priority", "5", "--json"),
    )
    assert (done.status, done.error) == (0, "")
    job = json.loads(done.out)
    assert job == said(here, f"jobs/{job['id']}")
    options = job["options"]
    assert (options["image_size"], options["training"]["steps"]) == (32, 300)
    assert (options["distil"]["depth"], options["views"]["count"]) == ("flat", None)
    assert (job["baselines"], job["priority"]) == (["kd"], 5)
    assert job["budget"] == {"max_seconds": 60.0}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--option", "steps"), "isn't like training.steps=300"),
        (("--option", "=3"), "isn't like training.steps=300"),
        (("--option", "seed=1", "--option", "seed.x=1"), "seed is no group of options"),
        (("--options", "{"), "can't be read as JSON"),
        (("--options", "[]"), "must be a JSON object"),
        (("--options", "@/nowhere"), "can't be read as JSON"),
        (("--priority", "high"), "--priority"),
    ],
)
def test_wrong_use_is_2(
    call: Call, order: tuple[str, ...], given: tuple[str, ...], words: str
) -> None:
    done = call(*order, *given, COLUMNS="300")
    assert (done.status, done.out) == (2, "")
    assert words in done.error


def test_a_refusal_is_3_and_lists_what_is_wrong(call: Call, order: tuple[str, ...]) -> None:
    done = call(*order, "--option", "sed=1", "--baseline", "magic")
    assert (done.status, done.out) == (3, "")
    assert done.error.startswith("error: 422 invalid: ")
    assert "/options/sed: There is no such field here." in done.error
    assert "/baselines/0: " in done.error
    assert call("jobs", "show", "job_none").status == 3


def test_nobody_there_is_4(call: Call) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    done = call("jobs", "list", TDMR_URL=address, TDMR_KEY="k", TDMR_PATIENCE="0")
    assert (done.status, done.out) == (4, "")
    assert "can't be reached" in done.error
    done = call("jobs", "list", TDMR_URL=address, TDMR_KEY="k", TDMR_PATIENCE="long")
    assert (done.status, done.out) == (2, "")


def test_jobs_are_listed_and_shown(call: Call, here: Running, job_id: str) -> None:
    found = json.loads(call("jobs", "list", "--limit", "2", "--json").out)
    assert found == said(here, "jobs", limit=2)["data"][: len(found)]
    assert found[0]["id"] == job_id
    listed = call("jobs", "list", "--status", "queued").out
    assert f"{job_id} │ queued │ letters_vit │ test_resnet" in listed
    assert call("jobs", "list", "--status", "failed", "--json").out == "[]\n"
    shown = call("jobs", "show", job_id).out
    assert f"job           {job_id}\n" in shown
    assert "(no_worker)\n" in shown
    assert json.loads(call("jobs", "show", job_id, "--json").out) == said(here, f"jobs/{job_id}")


def test_a_job_is_stopped_and_gone_on_with(call: Call, here: Running, job_id: str) -> None:
    acts = [("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")]
    for act, status in acts:
        done = call("jobs", act, job_id, "--json")
        assert (done.status, json.loads(done.out)["status"]) == (0, status)
    again = call("jobs", "cancel", job_id)
    assert again.status == 3
    assert again.error.startswith("error: 409 ")
    retried = call(
        *("jobs", "retry", job_id, "--option", "seed=7", "--max-seconds", "9"),
        *("--priority", "1", "--baseline", "probe", "--json"),
    )
    job = json.loads(retried.out)
    assert (job["retry_of"], job["options"]["seed"], job["priority"]) == (job_id, 7, 1)
    assert (job["baselines"], job["budget"]) == (["probe"], {"max_seconds": 9.0})
    assert f"retry of    {job_id}" in call("jobs", "cancel", job["id"]).out


def drain(worker: Worker, job_id: str) -> Any:
    """Claim until it's this job."""
    while (claim := worker.claim()).job_id != job_id:
        worker.fail(claim, Failure(code="options", user_error=True, detail="In the way."))
    return claim


def test_logs_and_watching_end_with_the_job(call: Call, here: Running, job_id: str) -> None:
    worker = Worker(here)
    claim = drain(worker, job_id)
    worker.tell(claim, 10)
    lines = call("jobs", "logs", job_id).out.splitlines()
    assert [line.split()[0::2][:2] for line in lines] == [
        ["1", "submitted"],
        ["2", "started"],
        ["3", "progress"],
    ]
    assert "stage=" in lines[2]
    assert "stage  4/6 distil 50%, step 10 of 20" in call("jobs", "show", job_id).out.replace(
        "stage       ", "stage  "
    )
    student_id = worker.succeed(claim, {"config.json": b"{}"})
    followed = call("jobs", "logs", job_id, "--follow", "--after", "2", "--json").out
    events = [json.loads(line) for line in followed.splitlines()]
    assert events == said(here, f"jobs/{job_id}/events")["data"][2:]
    watched = call("jobs", "watch", job_id)
    assert watched.status == 0
    assert student_id in watched.out
    in_json = call("jobs", "watch", job_id, "--json")
    assert [json.loads(line) for line in in_json.out.splitlines()] == [said(here, f"jobs/{job_id}")]


def test_a_bad_end_is_1_and_says_why(call: Call, here: Running, job_id: str) -> None:
    worker = Worker(here)
    failure = Failure(code="options", user_error=True, detail="Bad\x1b[31m.", suggestion="Change.")
    worker.fail(drain(worker, job_id), failure)
    done = call("jobs", "watch", job_id)
    assert done.status == 1
    assert "failure     options: Bad\\x1b[31m.\n" in done.out
    assert "what to do  Change.\n" in done.out
    assert call("jobs", "show", job_id).status == 0


def test_submit_can_watch(call: Call) -> None:
    told = [
        says(answers.job(state), ETag=f'"{state}"') for state in ("queued", "running", "failed")
    ]
    with misbehaving(*told) as server:
        done = call(
            *("jobs", "submit", "--dataset", "ds_1", *MODELS, "--watch", "--json"),
            TDMR_URL=server.address,
            TDMR_KEY="k",
        )
    assert done.status == 1
    states = [json.loads(line)["status"] for line in done.out.splitlines()]
    assert states == ["running", "failed"]


def test_a_busy_server_is_waited_for(call: Call) -> None:
    with misbehaving(refuses(503), says(answers.job())) as server:
        done = call("jobs", "show", "job_1", TDMR_URL=server.address, TDMR_KEY="k")
    assert done.status == 0


def test_ctrl_c_leaves_the_job_running(here: Running, job_id: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "jobs", "watch", job_id, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["status"] == "queued"
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert error == (
        f"{job_id} goes on. Watch it again: tdmr jobs watch {job_id}\n"
        f"Call it off: tdmr jobs cancel {job_id}\n"
    )
    assert said(here, f"jobs/{job_id}")["status"] == "queued"


def test_a_reader_that_goes_away_is_no_error_of_the_server(here: Running, job_id: str) -> None:
    near, far = os.pipe()
    os.close(near)
    done = subprocess.run(
        [*COMMAND, "jobs", "logs", job_id],
        stdout=far,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
        check=False,
    )
    os.close(far)
    assert (done.returncode, done.stderr) == (1, "")
