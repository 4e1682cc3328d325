"""What every request passes before a route sees it, and what every answer carries.

A page on a loopback port can be reached by any web site that the user's browser has open. So the Host header has to
be one of ours (against DNS rebinding), and a request that changes something, or costs the model's time, may not come
from a page of another origin.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headclip.web.limits import SMALL_BODY, Limits
from headclip.web.metrics import Metrics

COOKIE = "headclip_token"
OPEN_PATHS = ("/v1/health", "/v1/ready", "/static/", "/login")
_LARGE = ("/v1/predict", "/live/images")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware: hosts, origins, token, size and time of bodies, security headers, counters."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        metrics: Metrics,
        token: str | None = None,
        hosts: frozenset[str] | None = None,
    ) -> None:
        """hosts: names that the Host header may have, without port; None takes any."""
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._token = token
        self._hosts = hosts
        self._uploading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        try:
            if refusal is not None:
                await refusal(scope, receive, send_guarded)
                return
            body = _Body(receive, self._body_limit(scope), self._limits.seconds, self._reserve)
            try:
                await self._app(scope, body.receive, send_guarded)
            except ClientDisconnect:
                status = 499  # nobody is left to be answered; the usual code for it in logs
            finally:
                self._reserve(-body.read)
        finally:
            # The template of the path, not the path: names of images must not become labels without end.
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, _method(scope), str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            return _error(421, "this server does not answer under that name; use the address it printed")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not _same_origin(headers):
            return _error(403, "requests from pages of other sites are refused")
        if self._token and not scope["path"].startswith(OPEN_PATHS) and not self._knows_token(headers):
            return _unauthorised(headers)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._body_limit(scope):
            return _error(413, _too_large(self._body_limit(scope)), {"connection": "close"})
        return None

    def _knows_token(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and given:
            return self.same_token(given.strip(), self._token)
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self.same_token(cookie.value, self._token)

    @staticmethod
    def same_token(given: str, token: str | None) -> bool:
        """Compare in constant time; nothing is the same as no token."""
        return token is not None and hmac.compare_digest(given.encode(), token.encode())

    def _body_limit(self, scope: Scope) -> int:
        return self._limits.max_bytes if scope["path"] in _LARGE else SMALL_BODY

    def _reserve(self, count: int) -> None:
        """Bytes of all bodies together; too many at a time are told to come back."""
        if count > 0 and self._uploading + count > self._limits.upload_bytes:
            raise HTTPException(429, "too many uploads at a time; try again in 1 s", {"retry-after": "1"})
        self._uploading += count
        self._metrics.uploading.set(self._uploading)


class _Body:
    """A `receive` that counts bytes and looks at the clock."""

    def __init__(self, receive: Receive, limit: int, seconds: float, reserve: Callable[[int], None]) -> None:
        self._receive = receive
        self._limit = limit
        self._deadline = time.monotonic() + seconds
        self._seconds = seconds
        self._reserve = reserve
        self._complete = False
        self.read = 0

    async def receive(self) -> Message:
        if self._complete:  # what follows is the client leaving, for which one may wait as long as one likes
            return await self._receive()
        message = await self._in_time(self._receive())
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            if self.read + size > self._limit:
                raise HTTPException(413, _too_large(self._limit), {"connection": "close"})
            self._reserve(size)
            self.read += size
            self._complete = not message.get("more_body", False)
        return message

    async def _in_time(self, pending: Awaitable[Message]) -> Message:
        try:
            return await asyncio.wait_for(pending, max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            reason = f"the body did not arrive within {self._seconds:g} s"
            raise HTTPException(408, reason, {"connection": "close"}) from None


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"detail": reason}, status, headers)


def _unauthorised(headers: Headers) -> Response:
    if "text/html" in headers.get("accept", ""):
        return Response(status_code=303, headers={"location": "/login"})
    return _error(401, "a token is needed: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})


def _too_large(limit: int) -> str:
    size = f"{limit // 1024**2} MiB" if limit >= 1024**2 else f"{limit} bytes"
    return f"the body is larger than {size}; send fewer or smaller images, or start the server with --max-body"


def _same_origin(headers: Headers) -> bool:
    """Browsers state where a request comes from; other clients do not, and are no danger of this kind."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc == headers.get("host", "")
    except ValueError:
        return False


def _host_name(host: str) -> str:
    """`[::1]:8000` -> `::1`, `localhost:8000` -> `localhost`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _method(scope: Scope) -> str:
    method = scope["method"]
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"
