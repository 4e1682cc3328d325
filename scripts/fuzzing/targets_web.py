"""The REST API: bodies, forms, paths, queries and headers. Every answer is below 500 and has its reason."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from fuzzing.mutate import STRANGE, damage_bytes
from fuzzing.targets import MAX_PIXELS, Target, image_seeds
from fuzzing.targets_runs import Brightness

PATHS = (
    "/v1/predict",
    "/v1/health",
    "/v1/ready",
    "/metrics",
    "/",
    "/live/images",
    "/runs/run/marks/0",
    "/login",
    "/v1",
)
TYPES = (
    "image/png",
    "application/octet-stream",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "a/b; c",
    "",
)


def make() -> list[Target]:
    """The targets; [] where the extra `serve` is not installed."""
    try:
        from starlette.testclient import TestClient

        from headclip.web.app import AppOptions, create_app
        from headclip.web.limits import Limits
    except ImportError:
        return []
    limits = Limits(max_bytes=1 << 20, max_pixels=MAX_PIXELS, max_images=4)
    opened: list[Any] = []

    def client() -> Any:
        if not opened:
            app = create_app(AppOptions(detector=Brightness(), limits=limits))
            opened.append(TestClient(app, raise_server_exceptions=False).__enter__())
        return opened[0]

    bodies = [content for group in image_seeds().values() for content in group[:2]]
    forms = [_form(bodies[:2]), _form([b"text", bodies[0]]), _form([])]
    calls = [json.dumps(["POST", "/v1/predict", {"map": "png"}, {"content-type": "image/png"}]).encode()]
    return [
        Target("REST: body", bodies, (damage_bytes,), _post(client, "application/octet-stream")),
        Target("REST: form", forms, (damage_bytes,), _post(client, "multipart/form-data; boundary=x")),
        Target("REST: request", calls, (_damage_call,), _call(client, bodies[0])),
    ]


def _form(files: list[bytes]) -> bytes:
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="images"; filename="%d.png"\r\n\r\n%s\r\n' % (number, content)
        for number, content in enumerate(files)
    ]
    return b"".join(parts) + b"--x--\r\n"


def _post(client: Callable[[], Any], kind: str) -> Callable[[bytes], None]:
    return lambda content: _check(client().post("/v1/predict", content=content, headers={"content-type": kind}))


def _damage_call(content: bytes, chance: random.Random) -> bytes:
    try:
        method, path, query, headers = json.loads(content)
    except ValueError:
        method, path, query, headers = "GET", "/", {}, {}
    what = chance.randrange(5)
    if what == 0:
        method = chance.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "FOO"))
    elif what == 1:
        path = chance.choice(PATHS) + chance.choice(
            ("", "/", "//", "/..", "/%00", "/%2e%2e/%2e%2e/etc/passwd", "?", "/\u202e")
        )
    elif what == 2:
        query = {chance.choice(("map", "threshold", "x", "")): str(chance.choice(STRANGE)) for _ in range(3)}
    elif what == 3:
        headers["content-type"] = chance.choice(TYPES)
    else:
        name = chance.choice(
            ("host", "origin", "cookie", "authorization", "content-length", "accept", "sec-fetch-site")
        )
        headers[name] = chance.choice(
            ("", "x", "\u00ff", "-1", "99999999999", "Bearer \u00e4", "a=b; =;", "[::1", "a" * 9000)
        )
    return json.dumps([method, path, query, headers]).encode()


def _call(client: Callable[[], Any], body: bytes) -> Callable[[bytes], None]:
    def call(content: bytes) -> None:
        try:
            method, path, query, headers = json.loads(content)
            sent = {str(name): str(value).encode("latin-1") for name, value in headers.items()}
            words = {str(name): str(value).encode("utf-8", "replace") for name, value in query.items()}
            request = client().build_request(str(method), str(path), params=words, headers=sent, content=body)
        except Exception:  # what no client can send is no input
            return
        _check(client().send(request))

    return call


def _check(response: Any) -> None:
    assert response.status_code < 500 or "holds no model" in response.text, (
        f"{response.status_code}: {response.text[:300]}"
    )
    if (
        response.status_code >= 400
        and response.content
        and response.headers.get("content-type", "").startswith("application/json")
    ):
        assert response.json()["detail"], "refused without a reason"
