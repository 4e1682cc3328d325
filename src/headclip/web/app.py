"""The application: API, pages and files, behind the guard."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from headclip.data.discover import printable
from headclip.errors import HeadclipError
from headclip.judgement.choosing import Judging, choose
from headclip.prediction import Judge
from headclip.runs.files import RunFolderError
from headclip.version import __version__
from headclip.web import api, inspect_api, pages, run_api
from headclip.web.guard import Guard
from headclip.web.limits import Limits
from headclip.web.live import LiveRun
from headclip.web.marks import MarksError
from headclip.web.metrics import Metrics
from headclip.web.runs import NoSuchImageError, RunView, free_key, open_runs
from headclip.web.service import Service
from headclip.web.site import Site
from headclip.web.watch import Watch

_log = logging.getLogger(__name__)
_STATIC = Path(__file__).parent / "static"
DESCRIPTION = "Anomaly scores, maps, verdicts and regions of images, and the pages of finished runs."


@dataclass(frozen=True)
class AppOptions:
    """What an application serves.

    detector: judges images; None shows runs only. runs: their folders. judging: thresholds that the user asked for,
    in place of what the runs and the model say. live, watch: runs that grow; both need a detector. token: what
    clients must know; hosts: names under which the server may be addressed, None for any.
    """

    detector: Judge | None = None
    runs: tuple[Path, ...] = ()
    judging: Judging = field(default_factory=Judging)
    live: LiveRun | None = None
    watch: Watch | None = None
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    hosts: frozenset[str] | None = None


def create_app(options: AppOptions) -> FastAPI:
    """The ASGI application. Its lifespan owns the model's thread: leaving it judges what is in the queue first, and
    sets `state.left_open` where a run that grew could not be written to its end.

    Raises:
        HeadclipError: a run cannot be opened, or a growing run cannot be written.
    """
    metrics = Metrics()
    service = None
    if options.detector is not None:
        criteria = choose(options.judging, options.detector.describe()).criteria
        service = Service(options.detector, options.limits, metrics, criteria)
    site = _open_site(options, service)
    if options.watch is not None:
        metrics.watch(options.watch)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            app.state.left_open = await anyio.to_thread.run_sync(_close, options, service)

    app = FastAPI(
        title="headclip",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # the usual pages load their scripts from other hosts; /api is ours
        redoc_url=None,
        middleware=[
            Middleware(Guard, limits=options.limits, metrics=metrics, token=options.token, hosts=options.hosts),
            Middleware(GZipMiddleware, minimum_size=2048, compresslevel=5),
        ],
    )
    app.state.left_open = False
    app.state.service, app.state.metrics, app.state.options, app.state.site = service, metrics, options, site
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HeadclipError, _known)
    app.add_exception_handler(Exception, _unexpected)
    for router in (api.router, run_api.router, inspect_api.router, pages.router):
        app.include_router(router)
    app.mount("/static", _Static(directory=_STATIC))
    return app


class _Static(StaticFiles):
    """Files of the package; browsers ask each time whether they have changed."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["cache-control"] = "no-cache"
        return response


def _open_site(options: AppOptions, service: Service | None) -> Site:
    site = Site(open_runs(options.runs, options.judging), options.limits, options.live)
    if service is None:
        return site
    if options.live is not None:
        options.live.start(service.batcher, options.judging)
        site.live_key = _add(site, options.live.folder, options.judging)
    if options.watch is not None:
        options.watch.start(service.batcher, options.judging)
        site.watch_key = _add(site, options.watch.out, options.judging)
        site.watched = printable(options.watch.folder.name)
    return site


def _add(site: Site, folder: Path, judging: Judging) -> str:
    """Put a growing run on the site, unless it is there already."""
    for key, view in site.runs.items():
        if view.folder.resolve() == folder.resolve():
            return key
    key = free_key(folder, site.runs)
    site.runs[key] = RunView(folder, key, judging)
    return key


def _close(options: AppOptions, service: Service | None) -> bool:
    """In this order: what feeds the queue first, then the queue. Whether a run could not be written to its end."""
    steps = [step for step in (options.watch and options.watch.stop, options.live and options.live.close) if step]
    failed = False
    for step in steps:
        try:
            step()
        except (HeadclipError, OSError) as error:
            failed = True
            _log.error("while stopping: %s; the same command goes on from what is on record", error)
    if service is not None:
        service.batcher.close()
    return failed


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if _wants_page(request):
        return pages.error_page(request, error.status_code, str(error.detail))
    return JSONResponse({"detail": str(error.detail)}, error.status_code, error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """Wrong parameters in one sentence, like every other refusal."""
    assert isinstance(error, RequestValidationError)
    reasons = [f"{'.'.join(map(str, item['loc'][1:])) or 'request'}: {item['msg']}" for item in error.errors()]
    return JSONResponse({"detail": "; ".join(reasons)[:1000]}, 422)


async def _known(request: Request, error: Exception) -> Response:
    """Errors of ours, by what they mean to a client. Their words may hold paths, so only some are repeated."""
    if isinstance(error, NoSuchImageError):
        return await _refused(request, HTTPException(404, str(error)))
    _log.warning("%s %s: %s", request.method, request.url.path, error)
    if isinstance(error, MarksError):
        return JSONResponse({"detail": str(error)}, 409)
    if isinstance(error, RunFolderError):
        return JSONResponse({"detail": "a file of this run is missing or damaged; the server's log says which"}, 404)
    return JSONResponse({"detail": f"{type(error).__name__}; the server's log says more"}, 500)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """No traceback and no path of this machine leaves the process."""
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": f"unexpected {type(error).__name__}; the server's log says more"}, 500)
