"""Real requests of Google's and Azure's stores, against stand-ins on this machine.

`gcp-storage-emulator start --host=127.0.0.1 --port=9023 --in-memory --default-bucket=headclip` and
HEADCLIP_GCS='gs://anonymous@headclip?scheme=http&endpoint_override=127.0.0.1:9023'; `npx azurite-blob --blobPort 10010
--skipApiVersionCheck`, a container called headclip in it, and
HEADCLIP_AZURE='abfs://devstoreaccount1:KEY@127.0.0.1:10010/headclip?enable_tls=false' with its well-known KEY.
"""

from __future__ import annotations

import os
import secrets
from urllib.parse import urlsplit

import pytest

from engine.engine_files import comparable, download, load_fake, upload
from headclip.engine import storage
from headclip.engine.crew import Crew
from headclip.engine.predicting import Model, Settings, predict_on_ray
from headclip.engine.storage import Place
from headclip.inference.predict import predict_run
from headclip.runs.files import RunFolderError
from headclip.runs.run import Run
from inference.fake_detector import FakeDetector

STORES = {name: os.environ.get(name, "") for name in ("HEADCLIP_GCS", "HEADCLIP_AZURE")}
pytestmark = pytest.mark.skipif(
    not any(STORES.values()), reason="no stand-in (addresses: HEADCLIP_GCS, HEADCLIP_AZURE)"
)


@pytest.fixture(params=STORES)
def below(request):
    """URLs of names below a prefix that nobody else uses."""
    if not STORES[request.param]:
        pytest.skip(f"{request.param} is not set")
    parts, prefix = urlsplit(STORES[request.param]), secrets.token_hex(4)
    assert "127.0.0.1" in STORES[request.param]
    storage._open.cache_clear()
    yield lambda name: parts._replace(path=f"{parts.path.rstrip('/')}/{prefix}/{name}").geturl()
    storage._open.cache_clear()


def test_files(below):
    place = Place(below("x"))
    assert place.is_empty()
    place.write("deep/er/a.bin", b"12345")
    assert not place.is_empty()
    assert place.read("deep/er/a.bin") == b"12345"
    assert {name: size for name, (size, _) in place.list().items()} == {"deep/er/a.bin": 5}
    assert Place(below("x/deep/er/a.bin")).size_and_time()[0] == 5
    place.delete("deep/er/a.bin")
    place.delete("deep/er/a.bin")
    assert place.list() == {}
    with pytest.raises(FileNotFoundError):
        place.read("deep/er/a.bin")


def test_a_run_in_a_store(inline, below, pictures, tmp_path):
    upload(pictures, below("in"))

    def run(**more):
        settings = Settings(**more)
        return predict_on_ray(Model(load_fake, {"batch_size": 4}), [below("in")], below("out"), Crew(), settings)

    summary = run()
    predict_run(FakeDetector(), [pictures], tmp_path / "one")
    copy, one = Run.open(download(below("out"), tmp_path / "copy")), Run.open(tmp_path / "one")
    assert comparable(copy.rows) == comparable(one.rows) == comparable(summary.rows)
    for row in one.ok:
        assert (tmp_path / "copy" / str(row.map)).read_bytes() == (tmp_path / "one" / str(row.map)).read_bytes()
    with pytest.raises(RunFolderError, match="finished run"):
        run()
    run(resume=True)
    run(overwrite=True)
