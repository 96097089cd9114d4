"""/v1/models: foundations of one's own, uploaded, settled, listed, ordered with, deleted."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.jobs import ledger
from app.keeping import freeing
from app.models import Job, Model
from tdmr.own import Report
from tdmr.wire.datasets import Finding
from tests.app.api.test_job_control import PARTIAL
from tests.app.conftest import MakeKey
from tests.app.foundations.files import GOOD
from tests.app.jobs import steps
from tests.app.service import MODELS, NOTHING, OCTETS, Service

MISFIT = Finding(code="model_weights", severity="error", detail="It differs.", advice="Mend it.")
QUERY = {"architecture": "test_vit", "name": "ours", "licence": "mit"}


def post(service: Service, content: bytes = GOOD, headers: Any = OCTETS, **query: str) -> Any:
    return service.client.post(
        "/v1/models", params={**QUERY, **query}, content=content, headers=headers
    )


def test_weights_are_kept_as_they_come_and_checked_next(service: Service) -> None:
    response = post(service)
    made = response.json()
    assert response.status_code == 201, response.text
    assert response.headers["Location"] == f"/v1/models/{made['id']}"
    digest = hashlib.sha256(GOOD).hexdigest()
    assert made | {"id": "", "created_at": ""} == {
        "id": "",
        "name": "ours",
        "architecture": "test_vit",
        "family": "transformer",
        "status": "processing",
        "licence": "mit",
        "params": None,
        "input_size": None,
        "bytes": len(GOOD),
        "sha256": digest,
        "fingerprint": None,
        "created_at": "",
        "settled_at": None,
        "findings": [],
        "check": {"status": "queued", "stage": None, "eta_seconds": None, "attempt": 0},
    }
    (key,) = service.files()
    assert key == f"models/{made['id']}.safetensors"
    assert service.core.storage.path(key).read_bytes() == GOOD
    service.check_model()
    found = service.client.get(f"/v1/models/{made['id']}").json()
    assert (found["status"], found["params"], found["input_size"]) == ("ready", 306_240, 160)
    assert (found["check"]["status"], found["fingerprint"]) == ("succeeded", "f" * 64)
    assert service.files() == [key]


def test_without_a_name_it_has_the_architectures(service: Service) -> None:
    made = service.upload_model(architecture="test_vit.r160_in1k")
    assert (made["name"], made["licence"]) == ("test_vit.r160_in1k", None)


def test_what_doesnt_fit_is_invalid_and_its_bytes_go(service: Service) -> None:
    made = service.model(Report(findings=[MISFIT]))
    assert (made["status"], made["params"]) == ("invalid", None)
    assert made["findings"] == [MISFIT.model_dump()]
    assert service.files() == []
    used = service.client.get("/v1/quotas").json()
    assert (used["stored_bytes"]["used"], used["own_models"]["used"]) == (0, 0)


@pytest.mark.parametrize(
    ("content", "code"), [(b"PK\x03\x04" + bytes(99), "not_safetensors"), (b"", "empty_body")]
)
def test_what_is_refused_leaves_nothing(service: Service, content: bytes, code: str) -> None:
    response = post(service, content)
    assert (response.status_code, response.json()["code"]) == (422, code)
    response = post(service, GOOD[:-1])
    assert (response.status_code, response.json()["code"]) == (422, "not_safetensors")
    assert (service.files(), service.rows()) == ([], NOTHING)


def test_a_body_of_another_type_or_size_is_refused(service: Service) -> None:
    response = post(service, headers={"Content-Type": "application/zip"})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    service.core.settings.max_model_bytes = len(GOOD) - 1
    for content in (GOOD, iter([GOOD])):
        response = post(service, content)  # type: ignore[arg-type]  # declared, and in chunks
        assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert (service.files(), service.rows()) == ([], NOTHING)


@pytest.mark.parametrize("name", ["test_vitt", "test_vit.unheard_of", "letters_vit", "mod_1"])
def test_an_unknown_architecture_is_refused_before_the_body_comes(
    service: Service, name: str
) -> None:
    def body() -> Any:
        raise AssertionError("it is asked for")
        yield b""

    response = post(service, body(), architecture=name)  # type: ignore[arg-type]  # never read
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "unknown_model")
    (item,) = problem["errors"]
    assert item["pointer"] == "/query/architecture"
    assert name != "test_vitt" or "test_vit" in item["allowed"]


def test_quotas_hold_of_number_and_bytes(service: Service) -> None:
    service.core.settings.quota_own_models = 1
    first = service.model()
    response = post(service)
    (item,) = response.json()["errors"]
    assert (response.status_code, item["code"], item["limit"]) == (429, "own_models", 1)
    service.client.delete(f"/v1/models/{first['id']}?permanently=true")
    assert post(service).status_code == 429
    assert freeing.free(service.core.database, service.core.storage) == 1
    assert post(service).status_code == 201
    service.core.settings.quota_own_models = None
    service.core.settings.quota_stored_bytes = 2 * len(GOOD) - 1
    response = post(service)
    assert (response.status_code, response.json()["errors"][0]["code"]) == (429, "stored_bytes")
    assert len(service.files()) == 1


def test_a_repeat_with_its_key_makes_nothing(service: Service) -> None:
    headers = {**OCTETS, "Idempotency-Key": "k"}
    first, again = post(service, headers=headers), post(service, headers=headers)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(service.files()) == 1
    other = post(service, headers=headers, licence="apache-2.0")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(service.files()) == 1


def test_ones_own_are_listed_by_pages_and_the_catalog_is_as_it_was(service: Service) -> None:
    made = [service.model(name=str(number)) for number in range(3)]
    first = service.client.get("/v1/models?owned=true&limit=2")
    page = first.json()
    assert [row["id"] for row in page["data"]] == [made[2]["id"], made[1]["id"]]
    assert "owned=true" in first.headers["Link"]
    more = {"owned": "true", "limit": "2", "after": page["next_cursor"]}
    rest = service.client.get("/v1/models", params=more).json()
    assert ([row["name"] for row in rest["data"]], rest["has_more"]) == (["0"], False)
    assert service.client.get("/v1/models?owned=true&role=student").json()["data"] == []
    names = [row["name"] for row in service.client.get("/v1/models").json()["data"]]
    assert "letters_vit" in names
    assert not {"0", "1", "2"} & set(names)


def test_an_order_names_it_and_is_reckoned_by_its_architecture(service: Service) -> None:
    service.core.settings.quota_waiting_jobs = None
    made, dataset = service.model(architecture="vit_tiny_patch16_224"), service.dataset()
    order = {**MODELS, "dataset_id": dataset["id"], "foundation": made["id"]}
    job = service.job(**order)
    assert job["foundation"] == made["id"]
    with service.core.database.read() as session:
        assert session.get_one(Job, job["id"]).model_id == made["id"]
    dry = {"params": {"dry_run": "true"}}
    own = service.client.post("/v1/jobs", json=order, **dry).json()
    known = {**order, "foundation": "vit_tiny_patch16_224.augreg_in21k"}
    theirs = service.client.post("/v1/jobs", json=known, **dry).json()
    assert own["ok"] is theirs["ok"] is True
    assert own["estimate"]["memory_bytes"] == theirs["estimate"]["memory_bytes"] > 0
    codes = {finding["code"] for finding in theirs["findings"]} - {"needs_network"}
    assert {finding["code"] for finding in own["findings"]} == codes
    wrong = {**order, "options": {"input": {"border": 112}}}
    assert service.client.post("/v1/jobs", json=wrong).status_code == 422
    sweep = service.sweep(dataset_id=dataset["id"], foundation=made["id"])
    assert sweep["foundation"] == made["id"]
    with service.core.database.read() as session:
        for each in sweep["jobs"]:
            assert session.get_one(Job, each["job_id"]).model_id == made["id"]


def ordered(service: Service, name: str, headers: Any = None, **more: Any) -> Any:
    order = {**MODELS, "foundation": name, **more}
    return service.client.post("/v1/jobs", json=order, headers=headers)


def test_an_order_waits_for_its_check_and_is_refused_for_good_after_a_bad_one(
    service: Service,
) -> None:
    dataset_id, made = service.dataset()["id"], service.upload_model()
    early = ordered(service, made["id"], dataset_id=dataset_id)
    assert (early.status_code, early.json()["code"]) == (409, "model_not_ready")
    assert early.headers["Retry-After"] == "2"
    assert early.json()["errors"][0]["pointer"] == "/foundation"
    service.check_model(Report(findings=[MISFIT]))
    late = ordered(service, made["id"], dataset_id=dataset_id)
    assert (late.status_code, late.json()["code"]) == (409, "model_not_ready")
    assert "Retry-After" not in late.headers
    order = {"students": ["resnet18"], "foundation": made["id"], "dataset_id": dataset_id}
    assert service.client.post("/v1/sweeps", json=order).json()["code"] == "model_not_ready"


def test_what_isnt_ones_own_is_unknown_and_nothing_is_told_of_it(
    service: Service, stranger: dict[str, str], make_key: MakeKey
) -> None:
    mine, none = service.model()["id"], "mod_" + "0" * 28
    content = {"content": GOOD, "headers": {**OCTETS, **stranger}}
    theirs = service.client.post("/v1/models", params=QUERY, **content).json()["id"]
    service.check_model()
    deleted = service.model()["id"]
    service.client.delete(f"/v1/models/{deleted}")
    dataset_id = service.dataset()["id"]
    assert ordered(service, mine, dataset_id=dataset_id).status_code == 201
    for name in (theirs, deleted, none):
        refused = ordered(service, name, dataset_id=dataset_id)
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_model")
        (item,) = refused.json()["errors"]
        assert (item["pointer"], item["code"]) == ("/foundation", "unknown_model")
        said = refused.text.replace(name, "").replace(refused.json()["request_id"], "")
        assert "test_vit" not in said
        order = {**MODELS, "foundation": name, "dataset_id": dataset_id}
        dry = service.client.post("/v1/jobs?dry_run=true", json=order).json()
        assert (dry["ok"], dry["estimate"]) == (False, None)
        assert "306" not in str(dry)
        assert {each["code"] for each in dry["findings"]} == {"unknown_model", "no_worker"}
    assert [row["id"] for row in listed(service)] == [mine]
    assert [row["id"] for row in listed(service, stranger)] == [theirs]
    asstudent = ordered(service, "letters_vit", dataset_id=dataset_id, student=mine)
    assert asstudent.json()["errors"][0]["pointer"] == "/student"


def listed(service: Service, headers: Any = None) -> list[dict[str, Any]]:
    found = service.client.get("/v1/models?owned=true", headers=headers).json()
    return list(found["data"])


def test_a_model_that_is_checked_or_needed_stays_and_the_jobs_are_named(service: Service) -> None:
    made, path = service.upload_model(), "/v1/models/{}"
    refused = service.client.delete(path.format(made["id"]))
    assert (refused.status_code, refused.json()["code"]) == (409, "model_in_use")
    assert refused.headers["Retry-After"] == "2"
    service.check_model()
    claim = service.running(foundation=made["id"])
    assert claim.model_id == made["id"]
    refused = service.client.delete(path.format(made["id"]))
    assert refused.json()["errors"][0]["detail"] == f"{claim.job_id} hasn't ended."
    service.do(ledger.save_checkpoint, claim, steps.student())
    service.client.post(f"/v1/jobs/{claim.job_id}/cancel")
    service.do(ledger.cancelled, claim)  # its student is rescued next, and that needs the model
    refused = service.client.delete(path.format(made["id"]))
    assert refused.json()["errors"][0]["detail"] == f"{claim.job_id} hasn't ended."
    service.package(partial=PARTIAL)
    assert service.client.delete(path.format(made["id"])).status_code == 204
    retried = service.client.post(f"/v1/jobs/{claim.job_id}/retry", json={})
    assert retried.json()["code"] == "unknown_model"


def test_a_freed_model_keeps_what_others_refer_to(service: Service) -> None:
    made = service.model(**QUERY)
    service.client.delete(f"/v1/models/{made['id']}?permanently=true")
    assert freeing.free(service.core.database, service.core.storage) == 1
    assert service.files() == []
    with service.core.database.read() as session:
        row = session.get_one(Model, made["id"])
    assert (row.architecture, row.fingerprint) == ("test_vit", "f" * 64)
    assert (row.name, row.licence, row.bytes, row.file_key) == ("", None, 0, None)


def test_who_did_what_is_noted(service: Service) -> None:
    made = service.model()
    service.client.delete(f"/v1/models/{made['id']}")
    service.client.post(f"/v1/models/{made['id']}/restore")
    rows = service.client.get(f"/v1/audit-log?subject_id={made['id']}").json()["data"]
    assert [row["action"] for row in rows] == ["restore_model", "delete_model", "create_model"]
    assert {row["subject_type"] for row in rows} == {"model"}
    assert rows[-1]["details"] == {"bytes": len(GOOD)}


def test_a_key_that_only_reads_uploads_nothing(anonymous: TestClient, make_key: MakeKey) -> None:
    from app.access.scopes import Scope

    headers = {**OCTETS, "Authorization": f"Bearer {make_key('ana', Scope.MODELS_READ)}"}
    refused = anonymous.post("/v1/models", params=QUERY, content=GOOD, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
