"""How one image of a run came to its score, worked out by the model that the server holds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from headclip.data.decode import decode
from headclip.errors import ImageError
from headclip.web.batching import QueueFullError, StoppingError
from headclip.web.run_api import ImageId, Key, site_of, view_of
from headclip.web.service import Service

router = APIRouter(include_in_schema=False)
_SAME = ("method", "backbone_hash", "checkpoint_hash", "image_size")
# Not shown, and large.
_LEFT_OUT = frozenset({"image", "anomaly_map", "logits", "constant", "without", "tap_maps", "patch_map", "hot"})


@router.get("/runs/{key}/inspect/{image}")
async def inspect(request: Request, key: Key, image: ImageId) -> JSONResponse:
    """Parts of the score, what it would be with other settings, layers, and head weights."""
    service: Service | None = request.app.state.service
    view = view_of(request, key)
    if service is None or not hasattr(service.detector, "method"):
        raise HTTPException(503, "this needs the model; start the server with --live")
    other = different(view.state.run.settings, service.detector.describe())
    if other:
        raise HTTPException(409, f"the server holds another model than this run's (other {', '.join(other)})")
    row = view.row(image)
    path = view.original(image)
    try:
        pixels = await run_in_threadpool(decode, path, max_pixels=site_of(request).limits.max_pixels)
    except ImageError as error:
        raise HTTPException(404, f"the image cannot be read again: {error}") from None

    def work() -> dict[str, Any]:
        return explain(service.detector, pixels, row.path.rpartition("/")[2])

    try:
        async with asyncio.timeout(service.limits.seconds):
            return JSONResponse(await asyncio.wrap_future(service.batcher.run(work)))
    except TimeoutError:
        raise HTTPException(504, "the model did not come to it in time; try again") from None
    except QueueFullError as error:
        raise HTTPException(429, str(error), {"retry-after": str(error.seconds)}) from None
    except StoppingError as error:
        raise HTTPException(503, str(error)) from None


def different(run: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """In what the model that judged a run differs from another one, in words."""
    return [name.replace("_", " ") for name in _SAME if run.get(name) != model.get(name)]


def explain(detector: Any, pixels: Any, name: str) -> dict[str, Any]:
    """The inspection of one image and the model's head weights as JSON; maps of what is not shown are left out."""
    from headclip.inspection import head_weights, inspect_image, plain

    seen = inspect_image(detector, pixels, name=name)
    heads = head_weights(detector.method)
    layers = seen.layers
    contrast = None if layers is None else plain(layers.contrast)
    return {
        "split": plain(seen.split),
        "layers": None if layers is None else plain(layers, _LEFT_OUT) | {"contrast": contrast},
        "absent": seen.absent,
        "heads": None if heads is None else plain(heads),
    }
