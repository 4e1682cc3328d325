"""POST /v1/predict and its neighbours: what comes back, and with which status what is refused."""

from __future__ import annotations

import base64
import io
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headclip.errors import ImageError
from headclip.judgement.choosing import Judging
from headclip.web.limits import Limits
from inference.fake_detector import FakeDetector
from inference.pictures import png_header
from web.conftest import encoded


@pytest.fixture
def model(client):
    return client(detector=FakeDetector(), limits=Limits(max_pixels=1_000_000, max_bytes=500_000, max_images=4))


def test_a_raw_image(model):
    content = encoded()
    answer = model.post("/v1/predict", content=content, headers={"content-type": "image/png"})
    assert answer.status_code == 200
    (result,) = answer.json()["results"]
    pixels = np.asarray(Image.open(io.BytesIO(content)), dtype=np.float64)
    assert result["score"] == pytest.approx(pixels.mean() / 255, abs=1e-5)
    assert result["global_score"] == pytest.approx(result["score"] / 2)
    assert (result["height"], result["width"], result["status"]) == (40, 56, "ok")
    assert (result["verdict"], result["regions"], result["map"]) == (None, None, None)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_every_format_by_its_content(model, kind):
    answer = model.post("/v1/predict", content=encoded(kind=kind), headers={"content-type": "text/plain"})
    assert answer.status_code == 200


def test_several_images_of_which_one_is_broken(model):
    files = [("images", ("a.png", encoded(seed=1))), ("images", ("b.png", b"no image")), ("x", ("c.jpg", encoded(20)))]
    answer = model.post("/v1/predict", files=files)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [(item["name"], item["status"]) for item in results] == [
        ("a.png", "ok"),
        ("b.png", "failed"),
        ("c.jpg", "ok"),
    ]
    assert "not a PNG" in results[1]["reason"]
    assert results[2]["height"] == 20


def test_maps_on_request(model):
    content = encoded(30, 50)
    expected = np.asarray(Image.open(io.BytesIO(content)), np.float32).mean(axis=2) / 255
    as_npy = model.post("/v1/predict?map=npy", content=content).json()["results"][0]["map"]
    values = np.load(io.BytesIO(base64.b64decode(as_npy["data"])), allow_pickle=False)
    assert values.dtype == np.float32
    assert np.allclose(values, expected, atol=1e-6)
    as_png = model.post("/v1/predict?map=png", content=content).json()["results"][0]["map"]
    levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(as_png["data"]))))
    assert levels.dtype.itemsize >= 2
    assert np.abs(levels / 65535 - expected).max() <= 0.5 / 65535 + 1e-6


def test_verdict_and_regions_with_thresholds(client):
    pixels = np.full((60, 80, 3), 25, np.uint8)
    pixels[10:20, 30:50] = 250
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    model = client(detector=FakeDetector(), judging=Judging(threshold=0.12, pixel_threshold=0.5))
    answer = model.post("/v1/predict", content=buffer.getvalue()).json()
    (result,) = answer["results"]
    assert (answer["threshold"], answer["pixel_threshold"]) == (0.12, 0.5)
    assert result["verdict"] == "defect"
    (region,) = result["regions"]
    assert (region["area"], region["box"]) == (200, [30, 10, 20, 10])
    assert region["peak"] == pytest.approx(250 / 255, abs=1e-4)
    dull = model.post("/v1/predict", content=encoded_grey(25)).json()["results"][0]
    assert (dull["verdict"], dull["regions"]) == ("ok", [])


def encoded_grey(value):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (value,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def stack():
    buffer = io.BytesIO()
    Image.new("L", (40, 40)).save(buffer, "TIFF", save_all=True, append_images=[Image.new("L", (40, 40))])
    return buffer.getvalue()


REFUSED = {
    "empty": (b"", 400),
    "text": (b"hello, this is text", 415),
    "gif": (b"GIF89a" + b"/*" + b"*/=1;alert(1)//" * 9, 415),  # a picture to one reader, a script to another
    "html behind a signature": (b"\x89PNG\r\n\x1a\n<html><script>alert(1)</script>", 422),
    "pdf": (b"%PDF-1.7 \x89PNG\r\n\x1a\n", 415),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", 415),
    "cut short": (encoded()[:200], 422),
    "one pixel": (encoded(1, 1), 422),
    "two pages": (stack(), 422),
    "bomb": (png_header(40_000, 40_000), 413),
    "too many pixels": (png_header(2_000, 1_000), 413),
    "many bytes": (b"\xff\xd8\xff" + bytes(600_000), 413),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_how(model, case):
    content, status = REFUSED[case]
    answer = model.post("/v1/predict", content=content)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["detail"], str)
    assert model.post("/v1/predict", content=encoded()).status_code == 200  # alive


SIGNATURES = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"RIFF\x20\x00\x00\x00WEBP", b"--x\r\n"]


def test_no_body_makes_the_server_fail(model):
    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(SIGNATURES),
        st.binary(max_size=300),
        st.sampled_from(["", "image/png", "multipart/form-data; boundary=x"]),
    )
    def send(start, rest, kind):
        answer = model.post("/v1/predict", content=start + rest, headers={"content-type": kind})
        assert answer.status_code in (200, 400, 413, 415, 422)
        assert isinstance(answer.json().get("detail", ""), str)

    send()


def test_a_text_block_that_unpacks_to_gigabytes(model):
    import struct
    import zlib

    packed = zlib.compress(bytes(300_000_000), 9)
    chunk = b"zTXtComment\0\0" + packed
    bomb = encoded()
    bomb = bomb[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + bomb[33:]
    assert model.post("/v1/predict", content=bomb).status_code == 422


def test_names_lead_nowhere(model):
    for name in ("../../etc/passwd.png", "..\\..\\boot.png", "/etc/passwd.png", "a\x00b.png", "C:\\x.png"):
        answer = model.post("/v1/predict", files=[("images", (name, encoded()))])
        shown = answer.json()["results"][0]["name"]
        assert "/" not in shown
        assert "\\" not in shown
        assert ".." not in shown


def test_too_many_images_in_a_request(model):
    answer = model.post("/v1/predict", files=[("images", (f"{n}.png", encoded(10, 10))) for n in range(5)])
    assert answer.status_code == 413
    assert "more than 4 images" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"--x\r\n", b"", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n"])
def test_broken_forms(model, body):
    answer = model.post("/v1/predict", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 400
    no_boundary = model.post("/v1/predict", content=body, headers={"content-type": "multipart/form-data"})
    assert no_boundary.status_code == 400


def test_a_form_without_files(model):
    answer = model.post("/v1/predict", data={"images": "text"}, files=[])
    assert answer.status_code in (400, 415)


def test_a_wrong_parameter_is_one_sentence(model):
    answer = model.post("/v1/predict?map=gif", content=encoded())
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("map:")


def test_a_full_queue_is_429_with_retry_after(client):
    release = threading.Event()

    class Held(FakeDetector):
        def predict_arrays(self, images, /):
            assert release.wait(20)
            return super().predict_arrays(images)

    model = client(detector=Held(batch_size=1), limits=Limits(queue=2))
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(model.post("/v1/predict", content=encoded()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    while len(statuses) < 5:  # one in the model, two in the queue; five are refused
        time.sleep(0.01)
    release.set()
    for thread in threads:
        thread.join(20)
    codes = sorted(answer.status_code for answer in statuses)
    assert codes == [200] * 3 + [429] * 5
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in statuses if answer.status_code == 429)


def test_a_slow_model_is_504(client):
    model = client(detector=FakeDetector(batch_size=1, seconds=0.5), limits=Limits(seconds=0.2))
    assert model.post("/v1/predict", content=encoded()).status_code == 504


def test_a_failing_model_is_500_for_that_image_alone(client):
    class Failing(FakeDetector):
        def predict_arrays(self, images, /):
            raise ValueError("/home/somebody/secret")

    model = client(detector=Failing())
    answer = model.post("/v1/predict", content=encoded())
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert model.get("/v1/ready").status_code == 200


def test_an_image_that_the_detector_cannot_take_is_422(client):
    class Choosy(FakeDetector):
        def predict_arrays(self, images, /):
            if min(image.shape[0] for image in images) < 30:
                raise ImageError("the region of interest reaches beyond it")
            return super().predict_arrays(images)

    model = client(detector=Choosy())
    answer = model.post("/v1/predict", content=encoded(20, 20))
    assert (answer.status_code, answer.json()["detail"]) == (422, "the region of interest reaches beyond it")
    files = [("images", ("small.png", encoded(20, 20))), ("images", ("large.png", encoded(40, 40)))]
    results = {item["name"]: item["status"] for item in model.post("/v1/predict", files=files).json()["results"]}
    assert results == {"small.png": "failed", "large.png": "ok"}


def test_state(client, model):
    assert model.get("/v1/health").json()["status"] == "ok"
    ready = model.get("/v1/ready")
    assert ready.status_code == 200
    assert ready.json()["model"]["method"] == "fake"
    bare = client()
    assert bare.get("/v1/health").status_code == 200
    assert bare.get("/v1/ready").status_code == 503
    assert bare.post("/v1/predict", content=encoded()).status_code == 503


def test_ready_says_no_path_of_this_machine(client):
    class Placed(FakeDetector):
        def describe(self):
            return super().describe() | {
                "checkpoint": "/home/x/a.safetensors",
                "references": ["/data/1.png"],
                "cache": "/x",
            }

    assert "/home" not in client(detector=Placed()).get("/v1/ready").text
    assert set(client(detector=Placed()).get("/v1/ready").json()["model"]) == {"backbone", "method", "image_size"}


def test_metrics_count_what_happened(model):
    model.post("/v1/predict", content=encoded())
    model.post("/v1/predict", content=b"text")
    text = model.get("/metrics").text
    assert 'headclip_requests_total{method="POST",route="/v1/predict",status="200"} 1.0' in text
    assert 'headclip_requests_total{method="POST",route="/v1/predict",status="415"} 1.0' in text
    assert 'headclip_images_total{outcome="judged"} 1.0' in text
    assert 'headclip_images_total{outcome="refused"} 1.0' in text
    assert "headclip_queue_images 0.0" in text


def test_the_description_names_bodies_and_refusals(model):
    document = model.get("/openapi.json").json()
    assert set(document["paths"]) == {"/v1/predict", "/v1/health", "/v1/ready", "/metrics"}
    predict = document["paths"]["/v1/predict"]["post"]
    assert {"multipart/form-data", "image/png"} <= set(predict["requestBody"]["content"])
    assert {"200", "400", "408", "413", "415", "422", "429", "503", "504"} <= set(predict["responses"])
