"""How one image of a run came to its score, worked out by the model that the server holds."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from headclip.data.decode import decode
from headclip.data.levels import quantise
from headclip.errors import ImageError, InputError
from headclip.runs.facts import as_facts
from headclip.same_settings import differing
from headclip.web.batching import QueueFullError, StoppingError
from headclip.web.run_api import ImageId, Key, site_of, view_of
from headclip.web.service import Service

if TYPE_CHECKING:
    from headclip.inspection import KeptFeatures, Selection
    from headclip.web.kept import KeptImages

router = APIRouter(include_in_schema=False)
_SAME = (
    *("method", "config", "category", "references", "backbone_hash", "checkpoint_hash"),
    *("image_size", "keep_aspect", "least_side", "roi"),
)
# Not shown, and large.
_LEFT_OUT = frozenset({"image", "anomaly_map", "logits", "constant", "without", "tap_maps", "patch_map", "hot"})
SWITCHED_SIDE = 192  # longest side of the map that switched layers make: it is smooth, and stretched by the browser
Layers = Annotated[str | None, Query(pattern=r"^\d{1,3}(,\d{1,3})*$", max_length=400, description="0: the start.")]
Heads = Annotated[str | None, Query(pattern=r"^\d{1,3}\.\d{1,3}(,\d{1,3}\.\d{1,3})*$", max_length=8000)]


@router.get("/runs/{key}/inspect/{image}")
async def inspect(
    request: Request, key: Key, image: ImageId, layers: Layers = None, silent: Heads = None
) -> JSONResponse:
    """Parts of the score, what it would be with other settings, layers, and head weights.

    layers: those of the local stream that count, 0 for what it starts from; silent: heads that do not, as LAYER.HEAD;
    without them, the model's own. With them, the map comes along. The tower runs once for an image.
    """
    service: Service | None = request.app.state.service
    view = view_of(request, key)
    if service is None or not hasattr(service.detector, "method"):
        raise HTTPException(503, "this needs the model; start the server with --live")
    if getattr(service.detector, "roi", None) is not None:
        raise HTTPException(409, "the server judges a region of interest alone (--roi), which this does not explain")
    other = different(view.state.run.settings, service.detector.describe())
    if other:
        raise HTTPException(409, f"the server holds another model than this run's (other {', '.join(other)})")
    row, path = view.row(image), view.original(image)
    inspector = Inspector(service.detector, _kept_images(request), (key, image, row.score, _version(path)))
    pixels = None
    if not inspector.ready:
        try:
            pixels = await run_in_threadpool(decode, path, max_pixels=site_of(request).limits.max_pixels)
        except ImageError as error:
            raise HTTPException(404, f"the image cannot be read again: {error}") from None
    size = (row.height or 0, row.width or 0)
    name = row.path.rpartition("/")[2]
    try:
        if layers is None and silent is None:
            return await _in_turn(service, lambda: inspector.explain(pixels, name))
        return await _in_turn(service, lambda: inspector.switch(pixels, layers, silent, size))
    except InputError as error:
        raise HTTPException(422, str(error)) from None


async def _in_turn(service: Service, work: Callable[[], dict[str, Any]]) -> JSONResponse:
    """The answer of the model's own thread."""
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
    one, other = (as_facts({name: facts[name] for name in _SAME if name in facts}) for facts in (run, model))
    return [name.replace("_", " ") for name in differing(one, other)]


def _kept_images(request: Request) -> KeptImages:
    """The features that this application keeps."""
    from headclip.web.kept import KeptImages

    state = request.app.state
    if not hasattr(state, "kept_images"):
        state.kept_images = KeptImages()
    kept: KeptImages = state.kept_images
    return kept


def _version(path: Path) -> tuple[int, int]:
    """Another one when the file has changed; (0, 0) for one that is gone, which reading it will say."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


class Inspector:
    """What is said of one image. Its methods run in the model's thread.

    Args:
        key: of the image among those that are kept; another one when the image changes.
    """

    def __init__(self, detector: Any, kept: KeptImages, key: tuple[Any, ...]) -> None:
        self.detector, self.kept, self.key = detector, kept, key
        self.features = kept.get(key)

    @property
    def ready(self) -> bool:
        """Whether the tower need not run, nor the image be decoded."""
        return self.features is not None

    def explain(self, pixels: NDArray[np.uint8] | None, name: str) -> dict[str, Any]:
        """The inspection of an image by the model as it is, as JSON; maps of what is not shown are left out."""
        from headclip.inspection import inspect_image, judge_kept, plain

        features = self._features(pixels)
        if features is None:  # a method whose map is no sum over layers
            assert pixels is not None
            seen = inspect_image(self.detector, pixels, name=name)
            return {"split": plain(seen.split), "layers": None, "absent": seen.absent, "heads": None, "switch": None}
        found = judge_kept(self.detector.method, features, self.detector.text_of())
        return self._answer(found)

    def switch(
        self, pixels: NDArray[np.uint8] | None, layers: str | None, silent: str | None, size: tuple[int, int]
    ) -> dict[str, Any]:
        """The same by other layers and heads, with the map, its longest side at most SWITCHED_SIDE.

        Raises:
            InputError: they do not fit the tower, or the method has no such layers.
        """
        from headclip.inspection import judge_kept, why_no_layers

        features = self._features(pixels)
        if features is None:
            raise InputError(f"its layers cannot be switched: {why_no_layers(self.detector.method)}")
        selection = read_selection(self.detector.method, layers, silent)
        share = min(1.0, SWITCHED_SIDE / max(*size, 1))
        output = (max(1, round(size[0] * share)), max(1, round(size[1] * share)))
        found = judge_kept(self.detector.method, features, self.detector.text_of(), selection, output=output)
        levels = quantise(found.anomaly_map).astype("<u2")
        packed = base64.b64encode(levels.tobytes()).decode()
        return self._answer(found) | {"map": {"height": output[0], "width": output[1], "levels": packed}}

    def _features(self, pixels: NDArray[np.uint8] | None) -> KeptFeatures | None:
        """What is kept of the image, after a vision pass where nothing is; None for a method without such layers."""
        from headclip.inspection import keep_features, why_no_layers

        if self.features is None and why_no_layers(self.detector.method) is None:
            assert pixels is not None
            size = self.detector.input_size(pixels.shape[0], pixels.shape[1])
            self.features = keep_features(self.detector.method, self.detector.pixels([pixels], size))
            self.kept.put(self.key, self.features)
        return self.features

    def _answer(self, found: Any) -> dict[str, Any]:
        from headclip.inspection import own_selection, plain

        method = self.detector.method
        tower = method.backbone.config.vision
        own, chosen = own_selection(method), found.selection
        return {
            "split": plain(found.split),
            "layers": plain(found.layers, _LEFT_OUT) | {"contrast": plain(found.layers.contrast)},
            "absent": {},
            "heads": heads_of(method, chosen.layers),
            "switch": {
                "depth": tower.layers,
                "own": [0] * own.start + list(own.layers),
                "chosen": [0] * chosen.start + list(chosen.layers),
                "silent": sorted(chosen.silent),
            },
        }


def heads_of(method: Any, layers: tuple[int, ...]) -> dict[str, Any]:
    """What multiplies each head of the layers: what was learnt, else 1."""
    from headclip.inspection import Selection, plain
    from headclip.inspection.kept import selected_weights

    weights = selected_weights(method, Selection(layers))
    count = method.backbone.config.vision.heads
    rows = [[1.0] * count if weights is None else plain(weights[layer].float().cpu().numpy()) for layer in layers]
    return {"layers": list(layers), "weights": rows, "learnt": weights is not None}


def read_selection(method: Any, layers: str | None, silent: str | None) -> Selection:
    """The selection of an address; what is not named stays as the method has it.

    Raises:
        InputError: no layer is named, or one twice.
    """
    from headclip.inspection import Selection, own_selection

    own = own_selection(method)
    chosen, start = own.layers, own.start
    if layers is not None:
        named = sorted(int(layer) for layer in layers.split(","))
        chosen, start = tuple(layer for layer in named if layer), 0 in named
    pairs = (item.split(".") for item in (silent or "").split(",") if item)
    return Selection(chosen, start, frozenset((int(layer), int(head)) for layer, head in pairs))
