"""Who may ask, from where, and what every answer carries."""

from __future__ import annotations

import pytest

from headclip.web.guard import COOKIE
from headclip.web.limits import Limits
from headclip.web.server import allowed_hosts, is_loopback
from inference.fake_detector import FakeDetector
from web.conftest import encoded

TOKEN = "correct-horse"


def test_every_answer_forbids_foreign_scripts_and_frames(client, run):
    site = client(runs=(run,))
    for path in ("/", "/runs/first-run", "/static/run.js", "/nowhere", "/v1/health"):
        headers = site.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://testserver"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[broken"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_pages_of_other_sites_cannot_use_the_model(client, headers, status):
    model = client(detector=FakeDetector())
    assert model.post("/v1/predict", content=encoded(), headers=headers).status_code == status


def test_a_foreign_host_name_is_refused(client):
    local = client(detector=FakeDetector(), hosts=allowed_hosts("127.0.0.1", []))
    for host in ("localhost:8700", "127.0.0.1", "[::1]:8700"):
        assert local.get("/v1/health", headers={"host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", ""):
        assert local.get("/v1/health", headers={"host": host}).status_code == 421


def test_which_addresses_are_this_machine_alone():
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert allowed_hosts("0.0.0.0", []) is None
    assert "line-3.example" in allowed_hosts("0.0.0.0", ["line-3.example"])


def test_a_token_guards_everything_but_the_state(client, run):
    site = client(detector=FakeDetector(), runs=(run,), token=TOKEN)
    for path in ("/", "/metrics", "/runs/first-run/images.json", "/openapi.json"):
        assert site.get(path).status_code == 401
    for path in ("/v1/health", "/v1/ready"):
        assert site.get(path).status_code == 200
    answer = site.post("/v1/predict", content=encoded())
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe4"):
        headers = {"authorization": wrong.encode("latin-1")}
        assert site.post("/v1/predict", content=encoded(), headers=headers).status_code == 401
    right = {"authorization": f"bearer {TOKEN}"}
    assert site.post("/v1/predict", content=encoded(), headers=right).status_code == 200


def test_a_browser_exchanges_the_token_for_a_cookie(client, run):
    site = client(runs=(run,), token=TOKEN)
    html = {"accept": "text/html"}
    asked = site.get("/runs/first-run", headers=html, follow_redirects=False)
    assert (asked.status_code, asked.headers["location"]) == (303, "/login")
    assert site.post("/login", data={"token": "wrong"}).status_code == 401
    entered = site.get(f"/login?token={TOKEN}", follow_redirects=False)
    cookie = entered.headers["set-cookie"]
    assert entered.status_code == 303
    assert COOKIE in cookie
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert site.get("/runs/first-run", headers=html).status_code == 200


def test_small_bodies_stay_small(client, run):
    site = client(runs=(run,))
    answer = site.put("/runs/first-run/marks/0123456789abcdef", content=b"x" * 100_000)
    assert answer.status_code == 413


def test_a_body_without_a_stated_length_is_counted(client):
    model = client(detector=FakeDetector(), limits=Limits(max_bytes=100_000))

    def endless():
        for _ in range(100):
            yield bytes(10_000)

    assert model.post("/v1/predict", content=endless()).status_code == 413


def test_uploads_together_are_bounded(client):
    limits = Limits(max_bytes=1000)
    model = client(detector=FakeDetector(), limits=limits)
    assert limits.upload_bytes == 8000
    for _ in range(20):  # what has been answered does not count any more
        assert model.post("/v1/predict", content=b"x" * 1000).status_code == 415
    assert "headclip_upload_bytes 0.0" in model.get("/metrics").text
