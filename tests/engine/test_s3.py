"""Real S3 requests, against a stand-in: set HEADCLIP_S3_ENDPOINT, for example to that of `moto_server`."""

from __future__ import annotations

import os
import secrets

import pytest

from engine.engine_files import comparable, download, load_fake, upload
from headclip.engine import storage
from headclip.engine.crew import Crew
from headclip.engine.predicting import Model, Settings, predict_on_ray
from headclip.engine.storage import Place
from headclip.inference.predict import predict_run
from headclip.judgement.choosing import Judging
from headclip.runs.files import RunFolderError
from headclip.runs.run import Run
from inference.fake_detector import FakeDetector

ENDPOINT = os.environ.get("HEADCLIP_S3_ENDPOINT", "")
pytestmark = pytest.mark.skipif(not ENDPOINT, reason="no stand-in for S3 (address: HEADCLIP_S3_ENDPOINT)")


@pytest.fixture
def bucket(monkeypatch):
    from pyarrow.fs import S3FileSystem

    for name, value in {
        "AWS_ENDPOINT_URL": ENDPOINT,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    storage._open.cache_clear()
    name = f"headclip-{secrets.token_hex(4)}"
    S3FileSystem(endpoint_override=ENDPOINT, allow_bucket_creation=True).create_dir(name)
    yield f"s3://{name}"
    storage._open.cache_clear()


def test_a_run_in_a_bucket(inline, bucket, pictures, tmp_path):
    upload(pictures, f"{bucket}/in")
    judging = Judging(threshold=0.2, pixel_threshold=0.3, min_area=1)

    def run(**more):
        model = Model(load_fake, {"batch_size": 4})
        return predict_on_ray(model, [f"{bucket}/in"], f"{bucket}/out", Crew(), Settings(judging=judging, **more))

    summary = run()
    predict_run(FakeDetector(), [pictures], tmp_path / "one", judging=judging)
    copy = Run.open(download(f"{bucket}/out", tmp_path / "copy"))
    one = Run.open(tmp_path / "one")
    assert comparable(copy.rows) == comparable(one.rows) == comparable(summary.rows)
    assert copy.load_regions() == one.load_regions()
    for row in one.ok:
        assert (tmp_path / "copy" / str(row.map)).read_bytes() == (tmp_path / "one" / str(row.map)).read_bytes()
    with pytest.raises(RunFolderError, match="finished run"):
        run()
    inline.chunks.clear()
    run(resume=True)
    assert {ref.name.split("/")[0] for chunk in inline.chunks for ref in chunk.files} == {"bad"}
    run(overwrite=True)
    assert Place(f"{bucket}/out").read("results.csv").count(b"\n") == 18


def test_whole_bucket_as_input(inline, bucket, pictures, tmp_path):
    upload(pictures / "left", bucket)
    summary = predict_on_ray(Model(load_fake, {"batch_size": 4}), [bucket], tmp_path / "run", Crew(), Settings())
    assert [row.path for row in summary.rows] == [f"part {n}.png" for n in range(1, 12, 2)]
    assert all(row.status == "ok" for row in summary.rows)


def test_a_bucket_that_is_not_there(bucket, tmp_path):
    from headclip.errors import InputError

    with pytest.raises(InputError, match=r"holds no image|cannot list"):
        predict_on_ray(Model(load_fake, {}), ["s3://no-such-bucket-at-all/x"], tmp_path / "run", Crew(), Settings())
