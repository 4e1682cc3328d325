"""The pages: rendered here, made lively by the small modules in static/."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from headclip.data.formats import EXTENSIONS, KINDS
from headclip.runs.overlay import colour_table
from headclip.templates import page_template
from headclip.version import __version__
from headclip.web.guard import COOKIE, Guard
from headclip.web.run_api import Key, site_of, view_of
from headclip.web.runs import RunView

router = APIRouter(include_in_schema=False)
_METHODS = ("get", "post", "put", "delete")


@router.get("/")
def home(request: Request) -> Response:
    """The list of runs; a single run opens at once."""
    site = site_of(request)
    if len(site.runs) == 1:
        return RedirectResponse(f"/runs/{next(iter(site.runs))}", 307)
    return _page(request, "home.html", runs=[_summary(view) for view in site.runs.values()])


@router.get("/runs/{key}")
def run(request: Request, key: Key) -> Response:
    """The gallery of a run."""
    view = view_of(request, key)
    site = site_of(request)
    return _page(
        request,
        "run.html",
        view=view,
        kind="live" if key == site.live_key else "watch" if key == site.watch_key else "run",
        facts=_facts(view),
        others=[other for other in site.runs.values() if other.key != key],
        watched=site.watched if key == site.watch_key else None,
        kinds=KINDS,
        endings=",".join(sorted(EXTENSIONS)),
    )


@router.get("/compare/{first}/{second}")
def compare(request: Request, first: Key, second: Key) -> Response:
    """Two runs side by side."""
    if first == second:
        raise HTTPException(404, "a run cannot be compared with itself")
    return _page(request, "compare.html", first=view_of(request, first), second=view_of(request, second))


@router.get("/api")
def api(request: Request) -> Response:
    """The REST API, from its own description."""
    document = request.app.openapi()
    routes = [
        (method, path, operation[method])
        for path, operation in document["paths"].items()
        for method in _METHODS
        if method in operation
    ]
    return _page(request, "api.html", routes=routes, schemas=document["components"]["schemas"])


@router.get("/login")
def login(request: Request, token: str | None = None) -> Response:
    """Exchange the token for a cookie."""
    return _signed_in(request, token) if token else _page(request, "login.html", wrong=False)


@router.post("/login")
async def sign_in(request: Request) -> Response:
    """The same from the form."""
    form = await request.form()
    return _signed_in(request, str(form.get("token", "")))


def _signed_in(request: Request, token: str) -> Response:
    if not Guard.same_token(token, request.app.state.options.token):
        return _page(request, "login.html", status=401, wrong=True)
    answer = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, max_age=7 * 24 * 3600)
    return answer


def error_page(request: Request, status: int, reason: str) -> HTMLResponse:
    """What a person sees in place of a page."""
    return _page(request, "error.html", status=status, code=status, reason=reason)


def _page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    site = site_of(request)
    common = {
        "version": __version__,
        "colours": base64.b64encode(colour_table().tobytes()).decode(),
        "runs_nav": list(site.runs.values()),
        "live_key": site.live_key,
        "watch_key": site.watch_key,
        "has_model": request.app.state.service is not None,
        "path": request.url.path,
    }
    return HTMLResponse(page_template("headclip.web", template).render(**common | values), status)


def _summary(view: RunView) -> dict[str, Any]:
    run, rule = view.state.run, view.rule()
    verdicts = [rule.criteria.verdict(row.score or 0.0).value for row in run.ok]
    best = sorted(run.ok, key=lambda row: -(row.score or 0.0))[:4]
    ids = {row.path: image for image, row in view.state.rows.items()}
    return {
        "view": view,
        "images": len(run.rows),
        "counts": {name: verdicts.count(name) for name in ("defect", "review", "ok")} | {"failed": len(run.failed)},
        "origin": rule.origin,
        "created": str(run.facts.get("created", ""))[:16].replace("T", " "),
        "method": str(run.settings.get("method", "")),
        "finished": run.finished,
        "top": [ids[row.path] for row in best],
    }


def _facts(view: RunView) -> list[tuple[str, str]]:
    """What one may want to know of a run, in words; no path of this machine."""
    facts = view.state.run.facts
    settings: Mapping[str, Any] = view.state.run.settings
    backbone = settings.get("backbone")
    chosen = {
        "method": settings.get("method"),
        "backbone": backbone.get("name") if isinstance(backbone, dict) else backbone,
        "input size": f"{settings['image_size']} px" if settings.get("image_size") else None,
        "precision": settings.get("precision"),
        "made": str(facts.get("created", ""))[:16].replace("T", " "),
        "headclip": facts.get("versions", {}).get("headclip"),
    }
    return [(label, str(value)) for label, value in chosen.items() if value]
