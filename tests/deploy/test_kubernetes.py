"""deploy/kubernetes: held to Kubernetes' schemas, to one of ours for KEDA, and to our own rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from sqlalchemy import text, update

from app.db import Database
from app.models import Job
from app.settings import Settings
from app.storage import LocalStorage
from tests.app.revisions import MOMENT
from tests.deploy import files
from tests.deploy.files import ROOT
from tests.deploy.test_containers import KNOWN
from tests.worker import scenes
from worker.kinds import KINDS

FOLDER = ROOT / "deploy" / "kubernetes"
VERSION = "1.37"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
Manifest = dict[str, Any]


def manifests(*kinds: str) -> list[Manifest]:
    """What the kustomization lists, or those of some kinds."""
    found = [
        document
        for name in KUSTOMIZATION["resources"]
        for document in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
    ]
    return [each for each in found if not kinds or each["kind"] in kinds]


def named(each: Manifest) -> str:
    return f"{each['kind']} {each['metadata']['name']}"


def is_kedas(each: Manifest) -> bool:
    return str(each["apiVersion"]).startswith("keda.sh/")


WORKLOADS = manifests("Deployment", "Job")
SCALED = manifests("ScaledObject")
ENVIRONMENT = {k: v for each in manifests("ConfigMap") for k, v in each["data"].items()}


def pod(each: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = each["spec"]["template"]["spec"]
    return found


def closed(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    """An object of these properties and no others."""
    required = [name for name in properties if name not in optional]
    shape = {"type": "object", "properties": properties, "required": required}
    return {**shape, "additionalProperties": False}


TEXT, NUMBER, COUNT = (
    {"type": "string"},
    {"type": "string", "pattern": "^[0-9]+$"},
    {"type": "integer"},
)
NAMED = closed({"name": TEXT})
# KEDA 2: the fields that are used, as its documentation has them. Values of a trigger are strings.
KEDA = {
    "TriggerAuthentication": closed(
        {
            "secretTargetRef": {
                "type": "array",
                "items": closed({"parameter": TEXT, "name": TEXT, "key": TEXT}),
            }
        }
    ),
    "ScaledObject": closed(
        {
            "scaleTargetRef": NAMED,
            "minReplicaCount": COUNT,
            "maxReplicaCount": COUNT,
            "pollingInterval": COUNT,
            "cooldownPeriod": COUNT,
            "advanced": closed(
                {"horizontalPodAutoscalerConfig": closed({"behavior": {"type": "object"}})}
            ),
            "triggers": {
                "type": "array",
                "items": closed(
                    {
                        "type": {"const": "postgresql"},
                        "authenticationRef": NAMED,
                        "metadata": closed(
                            {
                                **dict.fromkeys(("host", "userName", "dbName", "query"), TEXT),
                                "sslmode": {
                                    "enum": ["disable", "prefer", "require", "verify-full"]
                                },
                                **dict.fromkeys(("port", "targetQueryValue"), NUMBER),
                                "activationTargetQueryValue": NUMBER,
                            }
                        ),
                    }
                ),
            },
        }
    ),
}


@pytest.mark.parametrize("manifest", manifests(), ids=named)
def test_a_manifest_is_what_its_schema_says(manifest: Manifest) -> None:
    if is_kedas(manifest):
        jsonschema.validate(manifest["spec"], KEDA[manifest["kind"]])
    else:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_what_isnt_in_the_schemas_would_be_noticed() -> None:
    (server, *_) = WORKLOADS
    wrong = {**server, "spec": {**server["spec"], "replicass": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**SCALED[0]["spec"], "minReplicas": 1}, KEDA["ScaledObject"])


def test_the_kustomization_lists_every_file_and_pins_the_images() -> None:
    listed = {*KUSTOMIZATION["resources"], "kustomization.yaml"}
    assert listed == {path.name for path in FOLDER.iterdir()}
    images = {each["name"] for each in KUSTOMIZATION["images"]}
    assert images == {c["image"] for each in WORKLOADS for c in pod(each)["containers"]}
    built = {
        service["image"] for service in files.compose()["services"].values() if "build" in service
    }
    assert {f"{each['name']}:{each['newTag']}" for each in KUSTOMIZATION["images"]} == built


@pytest.mark.parametrize("workload", WORKLOADS, ids=named)
def test_a_pod_may_do_as_little_as_can_be(workload: Manifest) -> None:
    spec = pod(workload)
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001  # as the images have it
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]
    mounted = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    assert mounted >= {"/var/lib/tdmr", "/tmp"}
    secrets = [each["secret"] for each in spec["volumes"] if "secret" in each]
    assert secrets == [{"secretName": "tdmr", "defaultMode": 0o440}]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app": "tdmr", "part": workload["metadata"]["name"]}
    assert workload["spec"].get("selector", {"matchLabels": labels}) == {"matchLabels": labels}


def test_settings_and_secrets_are_ones_that_there_are() -> None:
    assert set(ENVIRONMENT) <= KNOWN
    text = (FOLDER / "settings.yaml").read_text(encoding="utf-8")
    assert all(f"--from-file=deploy/secrets/{name}" in text for name in files.compose()["secrets"])
    (login,) = manifests("TriggerAuthentication")
    (reference,) = login["spec"]["secretTargetRef"]
    assert reference["key"] in files.compose()["secrets"]


def test_each_device_class_has_its_workers_and_every_job_somebody_who_takes_it() -> None:
    workers = [each for each in WORKLOADS if pod(each)["containers"][0]["image"] == "tdmr-worker"]
    queues = ENVIRONMENT["TDMR_QUEUES"].split(",")
    taken = set()
    for each in workers:
        args = pod(each)["containers"][0]["args"]
        given = [args[at + 1] for at, word in enumerate(args) if word == "--queue"] or queues
        kinds = [args[at + 1] for at, word in enumerate(args) if word == "--kind"]
        taken |= {(queue, kind) for queue in given for kind in kinds}
        # Grace, hand-back and the command's own end lie within 30 seconds.
        assert pod(each)["terminationGracePeriodSeconds"] >= 30 + Settings().grace_seconds
    assert taken == {(queue, kind) for queue in queues for kind in KINDS}
    with_gpu = [e for e in workers if "nvidia.com/gpu" in str(pod(e)["containers"][0]["resources"])]
    assert {each["metadata"]["name"] for each in with_gpu} == {"worker-gpu", "worker-gpus"}
    assert {each["spec"]["scaleTargetRef"]["name"] for each in SCALED} == {
        each["metadata"]["name"] for each in workers
    }


@pytest.fixture
def database(postgres_copy: str) -> Iterator[Database]:
    database = Database(postgres_copy)
    yield database
    database.close()


def test_the_scalers_count_what_can_begin_and_what_runs(database: Database, tmp_path: Path) -> None:
    """On a real database, also of what wants more devices than anybody has there."""
    ids = [scenes.distil_job(database, LocalStorage(tmp_path), "done") for _ in range(9)]
    gpu: dict[str, Any] = {"queue": "gpu"}
    changes = (
        {"queue": "default"},
        gpu,
        {**gpu, "state": "running"},
        {**gpu, "run_after": MOMENT.replace(year=9999)},
        {**gpu, "waits_for": ids[1]},
        {**gpu, "state": "succeeded"},
        {**gpu, "devices": 2},
        {"queue": "gpus", "devices": 4},
        {"queue": "gpus", "devices": 8},
    )
    with database.write() as session:
        for job_id, change in zip(ids, changes, strict=True):
            session.execute(update(Job).where(Job.id == job_id).values(change))
    counts = {}
    with database.read() as session:
        for each in SCALED:
            (trigger,) = each["spec"]["triggers"]
            counts[each["metadata"]["name"]] = session.scalar(text(trigger["metadata"]["query"]))
    assert counts == {"worker-cpu": 1, "worker-gpu": 2, "worker-gpus": 1, "checks": 0}


def test_a_worker_has_the_devices_that_its_scaler_counts_on() -> None:
    scaled = {each["spec"]["scaleTargetRef"]["name"]: each for each in SCALED}
    for name in ("worker-gpu", "worker-gpus"):
        (workload,) = (each for each in WORKLOADS if each["metadata"]["name"] == name)
        (container,), (trigger,) = pod(workload)["containers"], scaled[name]["spec"]["triggers"]
        args, has = container["args"], container["resources"]["limits"]["nvidia.com/gpu"]
        told = int(args[args.index("--devices") + 1]) if "--devices" in args else 1
        assert told == has
        assert f"devices <= {has} " in trigger["metadata"]["query"] + " "


def test_only_the_server_is_reached_and_only_where_it_listens() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in manifests("NetworkPolicy")}
    assert policies["nobody-comes-in"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    inward = [spec for spec in policies.values() if "ingress" in spec]
    assert len(inward) == 1
    assert inward[0]["podSelector"]["matchLabels"] == {"app": "tdmr", "part": "server"}
    assert inward[0]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8080}]
    (service,) = manifests("Service")
    assert service["spec"]["selector"] == {"app": "tdmr", "part": "server"}
