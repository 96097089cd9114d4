"""Waiting for jobs and datasets, and lists that come page by page."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benchmarks.served import Running
from tdmr.client import AsyncClient, Client, ConflictError
from tdmr.errors import Failure
from tests.app.live import Worker, ready_dataset
from tests.tdmr.client import answers
from tests.tdmr.client.conftest import Ask
from tests.tdmr.client.misbehaving import Reply, misbehaving, says


def test_only_news_are_shown_and_conditions_sent(ask: Ask) -> None:
    done = answers.job("succeeded", student_id="stu_1")
    script = (
        says(answers.job(step=1), ETag='"1"'),
        Reply(304),
        says(answers.job(step=1), ETag='"1a"'),
        Reply(304, headers={"Preference-Applied": "wait=20"}),
        says(answers.job(step=2), ETag='"2"'),
        says(done, ETag='"3"'),
    )
    seen: list[tuple[str, int]] = []
    with misbehaving(*script) as server:
        ended = ask(
            server.address,
            lambda client: client.wait_for_job(
                "job_1", lambda job: seen.append((job.status, job.step)), every=0.0
            ),
        )
    assert seen == [("running", 1), ("running", 2), ("succeeded", 10)]
    assert ended.student_id == "stu_1"
    assert server.header("If-None-Match") == [None, '"1"', '"1"', '"1a"', '"1a"', '"2"']
    assert server.header("Prefer") == [None] + ["wait=20"] * 5


def test_waiting_ends_in_time(ask: Ask, server: Running) -> None:
    dataset_id = ready_dataset(server)

    def wait(client: Any) -> Any:
        return client.wait_for_job(job.id, timeout=0.0)

    job = ask(
        server.address,
        lambda client: client.submit(dataset_id, "letters_vit", "test_resnet"),
        server.key,
    )
    with pytest.raises(TimeoutError, match=job.id):
        ask(server.address, wait, server.key)
    ask(server.address, lambda client: client.cancel(job.id), server.key)
    assert ask(server.address, wait, server.key).status == "cancelled"
    with pytest.raises(ConflictError):
        ask(server.address, lambda client: client.cancel(job.id), server.key)


def test_a_job_can_be_asked_to_do_everything(server: Running) -> None:
    dataset_id, worker = ready_dataset(server), Worker(server)
    with Client(server.address, server.key) as client:
        job = client.submit(dataset_id, "letters_vit", "test_resnet", metadata={"a": "b"})
        assert (job.status, job.metadata, job.ended) == ("queued", {"a": "b"}, False)
        assert job.pause().status == "paused"
        assert job.resume().status == "queued"
        with pytest.raises(LookupError, match="has no student"):
            job.fetch_student()
        worker.fail(worker.claim(), Failure(code="options", user_error=True, detail="No."))
        failed = job.wait()
        assert failed.failure is not None
        assert (failed.status, failed.failure.code, failed.ended) == ("failed", "options", True)
        again = failed.retry(options={"seed": 5}, priority=3)
        assert (again.retry_of, again.options.seed, again.priority) == (job.id, 5, 3)
        student_id = worker.succeed(worker.claim(), {"config.json": b"{}"})
        assert again.fetch_student().id == student_id
        assert [event.type for event in again.stream()][-1] == "succeeded"
        assert job.refresh().cancel_requested_at is None


def test_so_can_one_that_is_awaited(server: Running) -> None:
    dataset_id, worker = ready_dataset(server), Worker(server)

    async def main() -> None:
        async with AsyncClient(server.address, server.key) as client:
            job = await client.submit(dataset_id, "letters_vit", "test_resnet")
            assert (await job.pause()).status == "paused"
            assert (await job.resume()).status == "queued"
            with pytest.raises(LookupError, match="has no student"):
                await job.fetch_student()
            failure = Failure(code="options", user_error=True, detail="No.")
            await asyncio.to_thread(lambda: worker.fail(worker.claim(), failure))
            assert (await job.wait()).status == "failed"
            again = await job.retry(priority=3)
            files = {"config.json": b"{}"}
            student_id = await asyncio.to_thread(lambda: worker.succeed(worker.claim(), files))
            assert (await again.fetch_student()).id == student_id
            assert [event.type async for event in again.stream()][-1] == "succeeded"
            await (await job.retry()).cancel()
            dataset = await client.dataset(dataset_id)
            assert (await dataset.wait()).settled
            assert (await dataset.report()).findings == []
            assert (await dataset.refresh()) == dataset

    asyncio.run(main())


def test_lists_are_read_page_by_page(ask: Ask, server: Running) -> None:
    made = [ready_dataset(server) for _ in range(25)]
    found = ask(server.address, lambda client: client.datasets(), server.key)
    assert [dataset.id for dataset in found][:25] == made[::-1]
    roles = {role for model in ask(server.address, list_models, server.key) for role in model.roles}
    assert roles == {"student"}


def list_models(client: Any) -> Any:
    return client.models("student")


def test_a_page_is_asked_for_only_when_it_is_needed() -> None:
    one, two, three = (answers.job(id=f"job_{number}") for number in (1, 2, 3))
    script = (says(answers.page(one, two, cursor="x", more=True)), says(answers.page(three)))
    with misbehaving(*script) as server, Client(server.address, "key") as client:
        jobs = client.jobs("running")
        assert server.asked == []
        assert [next(jobs).id, next(jobs).id] == ["job_1", "job_2"]
        assert len(server.asked) == 1
        assert [job.id for job in jobs] == ["job_3"]
    paths = [each.path for each in server.asked]
    assert paths == ["/v1/jobs?status=running", "/v1/jobs?status=running&after=x"]
