"""The REST API: /v1/predict, /v1/health, /v1/ready and /metrics."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.exceptions import HTTPException

from headclip.version import __version__
from headclip.web.bodies import read_uploads
from headclip.web.metrics import CONTENT_TYPE, Metrics
from headclip.web.schemas import ErrorAnswer, Health, PredictAnswer, Ready, WatchData
from headclip.web.service import MapKind, Service
from headclip.web.watch import Watch

router = APIRouter()

NO_MODEL = "this server shows runs and holds no model; start it with --live"
_BINARY = {"type": "string", "format": "binary"}
_BODY = {
    "required": True,
    "description": "One image as it is, or several as the files of a form.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {"images": {"type": "array", "minItems": 1, "items": _BINARY}},
            }
        },
        "image/png": {"schema": _BINARY},
        "image/jpeg": {"schema": _BINARY},
        "image/bmp": {"schema": _BINARY},
        "image/tiff": {"schema": _BINARY},
        "image/webp": {"schema": _BINARY},
        "application/octet-stream": {"schema": _BINARY},
    },
}
_REASONS = {
    400: "There is no image in the body, or the form is broken.",
    408: "The body did not arrive in time.",
    413: "Too many bytes, pixels or images.",
    415: "This is not an image of a known format.",
    422: "The image is damaged or too small, or a parameter is wrong.",
    429: "The queue is full; Retry-After says when to come back.",
    500: "The model could not judge this image.",
    503: "No model, or the server is shutting down.",
    504: "The answer took too long.",
}
ACCESS = {
    401: "A token is needed.",
    403: "The request comes from a page of another site.",
    421: "The Host header names another server.",
}


def responses(reasons: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """How a route documents its refusals."""
    return {status: {"model": ErrorAnswer, "description": reason} for status, reason in reasons.items()}


@router.post(
    "/v1/predict",
    response_model=PredictAnswer,
    summary="Judge images",
    tags=["judging"],
    responses=responses(_REASONS | ACCESS),
    openapi_extra={"requestBody": _BODY},
)
async def predict(
    request: Request,
    map: Annotated[MapKind, Query(description="Whether, and how, to send the anomaly maps.")] = "none",
) -> PredictAnswer:
    """Judge one or several images; the formats that this server reads are told by their content.

    Of several images some may fail: their results say why, and the others are judged. The status is an error only
    when no image of the request could be judged.
    """
    service: Service | None = request.app.state.service
    if service is None:
        raise HTTPException(503, NO_MODEL)
    uploads = await read_uploads(request, service.limits.images)
    started = time.perf_counter()
    results = await service.predict(uploads, map)
    return PredictAnswer(
        results=results,
        threshold=None if service.criteria is None else service.criteria.threshold,
        pixel_threshold=None if service.criteria is None else service.criteria.pixel,
        alarm_pixel_threshold=None if service.criteria is None else service.criteria.alarm_pixel,
        seconds=round(time.perf_counter() - started, 6),
    )


@router.get("/v1/health", summary="Is the process alive", tags=["state"], responses=responses({421: ACCESS[421]}))
async def health() -> Health:
    """Answers while the process runs, whatever it is doing."""
    return Health(version=__version__)


@router.get(
    "/v1/ready",
    response_model=Ready,
    summary="Are images taken",
    tags=["state"],
    responses={503: {"model": Ready, "description": "Not now."}, **responses({421: ACCESS[421]})},
)
async def ready(request: Request, response: Response) -> Ready:
    """503 without a model, while the watched folder cannot be judged, and while the server is shutting down."""
    service: Service | None = request.app.state.service
    if service is None:
        response.status_code = 503
        return Ready(ready=False, reason=NO_MODEL)
    if not service.batcher.alive:
        response.status_code = 503
        return Ready(ready=False, reason="the server is shutting down", waiting=service.batcher.waiting)
    watch: Watch | None = request.app.state.options.watch
    state = None if watch is None else WatchData(**asdict(watch.state))
    found = Ready(ready=True, waiting=service.batcher.waiting, model=service.facts, watch=state)
    if state is not None and state.error is not None:
        response.status_code = 503
        found.ready, found.reason = False, f"the watched folder cannot be judged: {state.error}"
    return found


@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    tags=["state"],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus text"}, **responses(ACCESS)},
)
async def metrics(request: Request) -> Response:
    """Requests, images, batches, waiting times, the queue, and how a watched folder is doing."""
    counters: Metrics = request.app.state.metrics
    return Response(counters.render(), headers={"content-type": CONTENT_TYPE})
