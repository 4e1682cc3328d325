"""Files by URL: the same names and order as on a disk, whole files or none."""

from __future__ import annotations

import pickle
import stat

import pytest

from engine.engine_files import memory_url, upload
from headclip.data.discover import discover
from headclip.engine import storage
from headclip.engine.storage import Place, RemotePath, as_url, discover_remote, shown
from headclip.errors import InputError
from headclip.inference.predict import predict_run
from headclip.runs.run import is_run_folder
from inference.fake_detector import FakeDetector


@pytest.mark.parametrize("text", ["parts", "/parts/a:b", "C:/parts", "file:///parts", "file:/parts", "nosuch:/parts"])
def test_what_is_on_disk(text):
    assert as_url(text) is None


@pytest.mark.parametrize("text", ["s3://bucket/a", "gs://bucket", "abfs://box@account/a", "memory://a/b"])
def test_what_is_not(text):
    assert as_url(text) == text


def test_no_keys_are_shown():
    assert shown("s3://AKIA:very+secret@bucket/parts/?region=x&endpoint_override=h") == "s3://bucket/parts"


def test_names_and_order_are_those_of_a_disk(pictures):
    (pictures / ".hidden").mkdir()
    (pictures / ".hidden" / "a.png").write_bytes(b"x")
    (pictures / "notes.txt").write_text("no image")
    predict_run(FakeDetector(), [pictures / "left"], pictures / "old run")
    url = memory_url()
    upload(pictures, url)
    local = discover([pictures], skip_folder=is_run_folder)
    place, images = discover_remote([url])
    assert [image.name for image in images] == [image.name for image in local]
    for image, file in zip(images, local, strict=True):
        assert image.path.stat().st_size == file.path.stat().st_size
        assert place.read(image.path.inner) == file.path.read_bytes()
    assert str(images.root) == url


def test_single_files_patterns_and_several_prefixes(pictures):
    url = memory_url()
    upload(pictures, url)
    _, one = discover_remote([f"{url}/left/part 1.png"])
    assert [image.name for image in one] == ["part 1.png"]
    _, some = discover_remote([f"{url}/left/part *1.png"])
    assert [image.name for image in some] == ["part 1.png", "part 11.png"]
    _, deep = discover_remote([f"{url}/**/part 2.png"])
    assert [image.name for image in deep] == ["right/part 2.png"]
    root, both = discover_remote([f"{url}/left", f"{url}/right", f"{url}/left"])
    assert root.url == url
    assert len(both) == 12
    assert {image.name.split("/")[0] for image in both} == {"left", "right"}
    assert all(root.read(image.path.inner) for image in both)


def test_the_output_is_no_input(pictures):
    url = memory_url()
    upload(pictures, url)
    Place(url).write("results/maps/a.png", b"x")
    Place(url).write("results-2/a.png", b"x")
    _, images = discover_remote([url], skip=[f"{url}/results"])
    names = {image.name for image in images}
    assert "results/maps/a.png" not in names
    assert "results-2/a.png" in names


def test_a_run_is_no_input(pictures):
    folder = predict_run(FakeDetector(), [pictures / "left"], pictures / "old run").folder
    url = memory_url()
    upload(folder, url)
    for entry in (url, f"{url}/*/*.jpg"):
        with pytest.raises(InputError, match="is a run of headclip"):
            discover_remote([entry])


def test_nothing_there_is_said():
    with pytest.raises(InputError, match="holds no image"):
        discover_remote([memory_url("empty")])
    one, other = memory_url(), memory_url()
    Place(one).write("a.png", b"x")
    Place(other).write("a.png", b"x")
    with pytest.raises(InputError, match="different stores"):
        discover_remote([one, other])


def test_a_remote_path_is_no_file_of_this_machine():
    path = RemotePath("s3://bucket/parts", "shelf/a.png", 7, 9)
    assert str(path) == "s3://bucket/parts/shelf/a.png"
    assert path.resolve().parent.name == "shelf"
    assert not stat.S_ISREG(path.stat().st_mode)


def test_arrow_and_fsspec_agree_on_a_disk(tmp_path, monkeypatch):
    """fsspec's local file system through the same door as a store."""
    monkeypatch.setattr(storage, "_ARROW", storage._ARROW | {"file"})
    by_arrow = Place(f"file://{tmp_path}/a")
    by_arrow.write("deep/x.bin", b"12345")
    monkeypatch.undo()
    storage._open.cache_clear()
    by_fsspec = Place(f"local://{tmp_path}/a")
    assert by_fsspec.read("deep/x.bin") == b"12345"
    by_fsspec.write("deep/y.bin", b"678")
    assert set(by_fsspec.list()) == {"deep/x.bin", "deep/y.bin"}
    assert {path.name for path in (tmp_path / "a" / "deep").iterdir()} == {"x.bin", "y.bin"}  # nothing partial is left
    assert by_fsspec.list()["deep/y.bin"][0] == 3
    by_fsspec.delete("deep/y.bin")
    by_fsspec.delete("deep/y.bin")
    assert not by_fsspec.is_empty()
    assert Place(f"local://{tmp_path}/none").is_empty()


def test_a_place_travels_by_its_address(tmp_path):
    place = Place(f"local://{tmp_path}")
    place.write("a", b"1")
    assert pickle.loads(pickle.dumps(place)).read("a") == b"1"


def test_patience(monkeypatch):
    monkeypatch.setattr(storage, "_PAUSE", 0.0)
    calls = []

    def stumble():
        calls.append(1)
        if len(calls) < 3:
            raise OSError("slow down")
        return "done"

    assert storage._with_patience(stumble) == "done"
    calls.clear()
    with pytest.raises(FileNotFoundError):
        storage._with_patience(lambda: calls.append(1) or (_ for _ in ()).throw(FileNotFoundError()))
    assert len(calls) == 1


def test_large_objects_are_not_read(monkeypatch):
    place = Place(memory_url())
    place.write("a.png", b"123456")
    monkeypatch.setattr(storage, "_MAX_BYTES", 5)
    with pytest.raises(OSError, match="more than 5"):
        place.read("a.png")
