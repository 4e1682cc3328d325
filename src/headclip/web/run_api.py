"""What the pages fetch: rows, pictures, maps, regions, marks and labels of a run; and images dropped on the page."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from headclip.errors import ImageError
from headclip.judgement import RegionRules, find_regions
from headclip.runs.pictures import read_levels
from headclip.runs.run import Row
from headclip.web import pictures
from headclip.web.bodies import read_uploads
from headclip.web.foreign import split_off_foreign
from headclip.web.live import LiveBusyError, LiveFullError
from headclip.web.marks import MarkKind, labels_csv
from headclip.web.runs import RunView, image_id
from headclip.web.site import Site

router = APIRouter(include_in_schema=False)
Key = Annotated[str, Path(max_length=60)]
ImageId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
Level = Annotated[float, Query(ge=-0.01, le=1.01)]  # of maps; below 0 is where a calibration marks every pixel
_FOREVER = {"cache-control": "private, max-age=604800, immutable"}  # addresses change when an image is judged again
_MOST_REGIONS = 500
_heavy = threading.BoundedSemaphore(2)  # full pictures may take hundreds of megabytes while they are made


class MarkBody(BaseModel):
    """What a person says of an image; null takes it back."""

    mark: Literal["false alarm", "miss"] | None
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None  # a hair outside [0, 1] where labels made it


def site_of(request: Request) -> Site:
    """The runs behind this application."""
    return request.app.state.site


def view_of(request: Request, key: str) -> RunView:
    """The run of an address.

    Raises:
        HTTPException: 404 when there is none of that name.
    """
    view = site_of(request).runs.get(key)
    if view is None:
        raise HTTPException(404, "there is no run of that name here")
    return view


@router.get("/runs/{key}/images.json")
def images(request: Request, key: Key) -> Response:
    """All rows as columns: ten thousand images in one answer of some hundred kilobytes."""
    view = view_of(request, key)
    state = view.state
    etag = f'"{state.revision}"'
    if request.headers.get("if-none-match", "").removeprefix("W/") == etag:
        return Response(status_code=304, headers={"etag": etag, "cache-control": "no-cache"})
    rows = state.run.rows
    known = state.run.load_labels()
    rule = view.rule()
    criteria = rule.criteria
    answer: dict[str, Any] = {
        "revision": state.revision,
        "finished": state.run.finished,
        "scale": [state.scale.low, state.scale.high],
        "rule": {
            "threshold": criteria.threshold,
            "low": criteria.low,
            "high": criteria.high,
            "pixel": criteria.pixel,
            "alarmPixel": criteria.alarm_pixel,
            "origin": rule.origin,
            "source": criteria.source,
            "words": rule.words,
        },
        "ids": state.ids,
        "names": [row.path for row in rows],
        "scores": [row.score for row in rows],  # in full: a conformal threshold is one of them, and not above itself
        "globals": [_rounded(row.global_score) for row in rows],
        "locals": [_rounded(row.local_score) for row in rows],
        "widths": [row.width for row in rows],
        "heights": [row.height for row in rows],
        "labels": {index: known[row.path] for index, row in enumerate(rows) if row.path in known},
        "alpha": _alpha(state.run.settings),
        "roi": state.run.settings.get("roi"),
        "reasons": {index: row.reason for index, row in enumerate(rows) if row.status == "failed"},
    }
    return JSONResponse(answer, headers={"etag": etag, "cache-control": "no-cache"})


@router.get("/runs/{key}/thumb/{image}")
def thumb(request: Request, key: Key, image: ImageId) -> Response:
    """A small picture."""
    view = view_of(request, key)
    path = view.preview(image)
    made = site_of(request).cache.get(
        ("thumb", key, image, _version(view.row(image))), lambda: pictures.thumbnail(path)
    )
    return Response(made, media_type="image/jpeg", headers=_FOREVER)


@router.get("/runs/{key}/heat/{image}")
def heat(request: Request, key: Key, image: ImageId) -> Response:
    """A small map, grey, on the run's scale."""
    view = view_of(request, key)
    path, scale = view.map(image), view.state.scale
    made = site_of(request).cache.get(
        ("heat", key, image, _version(view.row(image)), scale), lambda: pictures.heat(path, scale)
    )
    return Response(made, media_type="image/png", headers=_FOREVER)


@router.get("/runs/{key}/map/{image}")
def packed_map(request: Request, key: Key, image: ImageId) -> Response:
    """A map with 16 bits a pixel, in two channels of a PNG."""
    path = view_of(request, key).map(image)
    with _heavy:
        return Response(pictures.packed_map(path), media_type="image/png", headers=_FOREVER)


@router.get("/runs/{key}/picture/{image}")
def picture(request: Request, key: Key, image: ImageId) -> Response:
    """The image at its own resolution, or its preview where the file is gone."""
    view = view_of(request, key)
    preview = view.preview(image)
    try:
        with _heavy:
            made = pictures.full_picture(view.original(image), site_of(request).limits.max_pixels)
    except ImageError:
        try:
            made = preview.read_bytes()
        except OSError:
            raise HTTPException(404, "neither the image nor its preview is there any more") from None
    return Response(made, media_type="image/jpeg", headers=_FOREVER)


@router.get("/runs/{key}/regions/{image}")
def regions(
    request: Request,
    key: Key,
    image: ImageId,
    pixel: Level,
    min_area: Annotated[int, Query(ge=1, le=10**9)] = 1,
) -> JSONResponse:
    """The regions of one image above a pixel threshold, the highest peaks first."""
    view = view_of(request, key)
    rules = view.rule().criteria.rules
    rules = RegionRules(max(min_area, rules.min_area), rules.ignore_border)
    found = find_regions(read_levels(view.map(image)), pixel, rules, pixel_mm=view.rule().criteria.pixel_mm)
    return JSONResponse(
        {"count": len(found), "regions": [region.to_json() for region in found[:_MOST_REGIONS]]},
        headers={"cache-control": "no-store"},
    )


@router.get("/runs/{key}/marks.json")
def marks(request: Request, key: Key) -> JSONResponse:
    """Marks by image id."""
    kept = view_of(request, key).marks.all()
    return JSONResponse({image_id(name): mark.mark for name, mark in kept.items()})


@router.put("/runs/{key}/marks/{image}")
def mark(request: Request, key: Key, image: ImageId, body: MarkBody) -> dict[str, MarkKind | None]:
    """Mark an image as false alarm or miss, or take that back."""
    view = view_of(request, key)
    view.marks.set(view.row(image).path, body.mark, body.threshold)
    return {"mark": body.mark}


@router.get("/runs/{key}/labels.csv")
def labels(request: Request, key: Key) -> Response:
    """The marks as labels."""
    view = view_of(request, key)
    scores = {row.path: row.score for row in view.state.run.rows}
    name = f"{view.key}-labels.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return PlainTextResponse(labels_csv(view.marks.all(), scores), media_type="text/csv", headers=headers)


@router.post("/live/images")
async def drop(request: Request) -> JSONResponse:
    """Judge images that were dropped on the page and put them into the live run."""
    site = site_of(request)
    if site.live is None:
        raise HTTPException(503, "this server holds no model; start it with --live")
    uploads, refused = await run_in_threadpool(split_off_foreign, await read_uploads(request, site.limits.images))
    if not uploads:
        raise HTTPException(422, "; ".join(reason for _, reason in refused)[:2000])
    try:
        rows = await run_in_threadpool(site.live.judge, uploads)
    except LiveBusyError as error:
        raise HTTPException(429, str(error), {"retry-after": "2"}) from None
    except LiveFullError as error:
        raise HTTPException(413, str(error)) from None
    results = [
        {"id": image_id(row.path), "name": row.path, "status": row.status, "reason": row.reason, "score": row.score}
        for row in rows
    ]
    results += [
        {"id": None, "name": name, "status": "failed", "reason": reason, "score": None} for name, reason in refused
    ]
    return JSONResponse({"results": results})


def _version(row: Row) -> tuple[float | None, int | None, int | None]:
    """Another one when an image has been judged again."""
    return row.score, row.width, row.height


def _alpha(settings: Mapping[str, Any]) -> float | None:
    """The weight of the map in the score, for methods whose score is (1 - alpha) * global + alpha * local."""
    config = settings.get("config")
    value = config.get("alpha") if isinstance(config, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
