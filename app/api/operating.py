"""/metrics: for a Prometheus that has the operator's token, and for nobody else.

What it says counts everybody's jobs, so that no owner's key opens it, and it isn't public.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.api.core import CoreDep
from app.api.guard import GuardedRoute, operators

routes = APIRouter(route_class=GuardedRoute)


@routes.get("/metrics", include_in_schema=False, response_class=Response)
@operators
def read_metrics(core: CoreDep) -> Response:
    """Every metric, in Prometheus's text format."""
    return Response(generate_latest(core.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
