"""What a hostile or broken client may send: refused with the status that fits, and the server goes on."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import zipfile

import pytest
from PIL import Image

from headclip.web.foreign import ForeignDataError, check_alone
from headclip.web.limits import Limits
from headclip.web.live import LiveRun
from inference.fake_detector import FakeDetector
from inference.pictures import png_header
from web.conftest import encoded

PAGE = b"<html><script>alert(1)</script></html>"
KINDS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("evil.txt", "text " * 20)
    return buffer.getvalue()


def in_a_comment(extra):
    """A JPEG with bytes in a comment, which ends where an image ends."""
    content = encoded(kind="JPEG")
    return content[:2] + b"\xff\xfe" + struct.pack(">H", len(extra) + 2) + extra + content[2:]


def saved(kind, mode="RGB", size=(40, 24), **options):
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


POLYGLOTS = {
    "jpeg and page": encoded(kind="JPEG") + PAGE,
    "jpeg and archive": encoded(kind="JPEG") + archive(),
    "progressive jpeg and page": saved("JPEG", progressive=True) + PAGE,
    "jpeg and padded archive": encoded(kind="JPEG") + bytes(5000) + archive(),
    "two jpegs and page": encoded(kind="JPEG") + encoded(kind="JPEG") + PAGE,
    "jpeg whose end is gone, and page": encoded(kind="JPEG")[:-2] + PAGE,
    "jpeg and pdf in its comment": in_a_comment(b"%PDF-1.7 ..."),
    "jpeg and film": encoded(kind="JPEG") + b"\0\0\0\x18ftypmp42" + bytes(900),
    "png and archive": encoded() + archive(),
    "png without end, and page": encoded()[:-12] + PAGE,
    "webp and page": encoded(kind="WEBP") + PAGE,
    "bmp and page": encoded(kind="BMP") + PAGE,
    "tiff and archive": encoded(kind="TIFF") + archive(),
}


@pytest.fixture
def model(client):
    live = LiveRun(None, max_pixels=10**6, patience=20.0)
    return client(detector=FakeDetector(), limits=Limits(max_pixels=10**6, max_bytes=10**6, max_images=4), live=live)


@pytest.mark.parametrize("case", POLYGLOTS)
def test_a_file_that_is_more_than_an_image_is_refused(model, case):
    Image.open(io.BytesIO(POLYGLOTS[case])).load()  # it is an image, to one who looks for one
    answer = model.post("/v1/predict", content=POLYGLOTS[case])
    assert (answer.status_code, answer.json()["detail"].count("image") > 0) == (422, True)
    dropped = model.post("/live/images", files=[("images", ("a.jpg", POLYGLOTS[case]))])
    assert (dropped.status_code, answer.json()["detail"]) == (422, dropped.json()["detail"])
    assert model.post("/v1/predict", content=encoded()).status_code == 200


def test_a_polyglot_is_not_kept_and_the_others_of_its_request_are(client, tmp_path):
    live = LiveRun(tmp_path / "kept", max_pixels=10**6, patience=20.0)
    model = client(detector=FakeDetector(), live=live)
    files = [("images", ("bad.jpg", POLYGLOTS["jpeg and archive"])), ("images", ("good.png", encoded()))]
    results = {item["name"]: item["status"] for item in model.post("/live/images", files=files).json()["results"]}
    assert results == {"bad.jpg": "failed", "good.png": "ok"}
    assert [path.name for path in (tmp_path / "kept" / "images").iterdir()] == ["good.png"]


ALONE = {
    **{kind.lower(): encoded(kind=kind) for kind in KINDS},
    "progressive jpeg": saved("JPEG", progressive=True),
    "jpeg with restarts": saved("JPEG", size=(200, 160), restart_marker_blocks=2),
    "grey jpeg": saved("JPEG", "L"),
    "jpeg with a preview behind it": encoded(kind="JPEG") + bytes(64) + encoded(20, 20, kind="JPEG"),
    "padded jpeg": encoded(kind="JPEG") + bytes(4096) + b"\r\n",
    "jpeg with a long comment": in_a_comment(b"<x:xmpmeta/>" * 4000),
    "padded png": encoded() + bytes(512),
    "png with 16 bits": saved("PNG", "I;16"),
    "palette bmp": saved("BMP", "P"),
    "bilevel bmp": saved("BMP", "1"),
    "transparent webp": saved("WEBP", "RGBA", lossless=True),
    "deflated tiff": saved("TIFF", compression="tiff_deflate"),
}


@pytest.mark.parametrize("case", ALONE)
def test_what_cameras_and_programs_write_is_taken(model, case):
    answer = model.post("/v1/predict", content=ALONE[case])
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_every_cut_has_one_of_two_outcomes(kind):
    """Whatever is missing or too much, the check passes or refuses; it never fails in another way."""
    content = encoded(12, 9, kind)
    for length in range(len(content)):
        for extra in (b"", b"\xff", PAGE):
            with contextlib.suppress(ForeignDataError):
                check_alone(content[:length] + extra)


def test_markers_without_end_are_given_up():
    """One marker after the other these would be seconds of work, for one request."""
    with pytest.raises(ForeignDataError, match="no end"):
        check_alone(b"\xff\xd8\xff" + b"\xff\xd0" * 2_000_000)
    check_alone(encoded(kind="JPEG") + bytes(3_000_000))


def test_a_form_of_bombs_names_each(model):
    bomb = png_header(60_000, 60_000)
    answer = model.post("/v1/predict", files=[("images", (f"{n}.png", bomb)) for n in range(3)])
    assert answer.status_code == 413
    assert answer.json()["detail"].count("more than the limit") == 3


def test_a_bomb_among_the_dropped_is_a_row_that_says_so(model):
    wide = saved("PNG", "1", size=(2000, 1000))
    files = [("images", ("wide.png", wide)), ("images", ("good.png", encoded()))]
    results = {item["name"]: item for item in model.post("/live/images", files=files).json()["results"]}
    assert results["good.png"]["status"] == "ok"
    assert "more than the limit" in results["wide.png"]["reason"]


def test_a_queue_that_outlasts_the_patience_is_refused_at_once(client):
    """A slow machine says 429 with a time, rather than 504 after everybody has waited."""
    begun, release = threading.Event(), threading.Event()

    class Held(FakeDetector):
        def predict_arrays(self, images, /):
            begun.set()
            assert release.wait(30)
            return super().predict_arrays(images)

    model = client(detector=Held(batch_size=1), limits=Limits(seconds=60.0))
    model.app.state.service.batcher._pace = 55.0  # seconds an image, as if the last ones had taken that long
    answers = []
    first = threading.Thread(target=lambda: answers.append(model.post("/v1/predict", content=encoded())))
    first.start()
    assert begun.wait(30)
    refused = model.post("/v1/predict", content=encoded())
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    release.set()
    first.join(30)
    assert answers[0].status_code == 200  # nobody was before it
