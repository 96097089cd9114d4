"""/v1/models: what a job can name."""

from __future__ import annotations

from typing import Literal

from app.access.scopes import Scope
from app.api.guard import needs, router
from app.api.pages import Page
from app.api.schemas import ModelOut
from tdmr import catalog

routes = router()


@routes.get("/models")
@needs(Scope.MODELS_READ)
def list_models(role: Literal["foundation", "student"] | None = None) -> Page[ModelOut]:
    """The recommended models; every other timm model that offers taps works by its name, too."""
    found = [
        ModelOut.model_validate(entry.model_dump(include=set(ModelOut.model_fields)))
        for entry in catalog.entries(role)
    ]
    return Page(data=found, has_more=False, next_cursor=None)
