"""/v1/models: the catalog."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from tdmr import catalog


@pytest.mark.parametrize("role", ["foundation", "student"])
def test_the_models_that_can_play_a_role(client: TestClient, role: str) -> None:
    page = client.get(f"/v1/models?role={role}").json()
    assert page["data"]
    assert (page["has_more"], page["next_cursor"]) == (False, None)
    for model in page["data"]:
        assert role in model["roles"]
        catalog.require(model["name"], role)  # type: ignore[arg-type]  # what is given is meant to vary
        assert model["params"] > 0


def test_all_of_them(client: TestClient) -> None:
    names = {model["name"] for model in client.get("/v1/models").json()["data"]}
    assert {"letters_vit", "test_resnet"} <= names


def test_a_role_that_there_isnt(client: TestClient) -> None:
    response = client.get("/v1/models?role=teacher")
    assert response.status_code == 422
    assert response.json()["errors"][0]["pointer"] == "/query/role"


def test_a_name_of_the_catalogs_is_no_models_id(client: TestClient) -> None:
    refused = client.options("/v1/models/recommendations")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
    refused = client.options("/v1/models/mod_1")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "DELETE, GET, HEAD")
    assert client.options("/v1/models").headers["Allow"] == "GET, HEAD, POST"
