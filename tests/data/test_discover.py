"""Inputs become an ordered list without repetition, with names that do not meet."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from PIL import Image

from headclip.data.datasets import open_dataset, open_spec
from headclip.data.discover import discover, find_images, natural_key
from headclip.data.formats import EXTENSIONS, HEIC_ENDINGS
from headclip.errors import InputError
from headclip.inference.predict import predict_run
from headclip.runs.files import RunFolderError
from headclip.runs.output import check_output
from headclip.runs.parts import open_part
from headclip.runs.run import Run, is_run_folder
from headclip.runs.shards import Shard
from inference.fake_detector import FakeDetector


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    for name in (
        "a/2.png",
        "a/10.PNG",
        "a/1.jpg",
        "a/1.png",
        "a/sub/3.tif",
        "b/1.png",
        "b/notes.txt",
        "c/x.csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    for hidden in ("a/._1.png", "a/.cache/1.png"):
        path = tmp_path / hidden
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*inputs: str | Path, **options) -> list[str]:
    found = discover(inputs, **options)
    for image in found:
        assert found.root / image.name == image.path
        assert image.path.is_absolute()
    return [image.name for image in found]


def test_folder_is_searched_in_natural_order(tree):
    assert names("a") == ["1.jpg", "1.png", "2.png", "10.PNG", "sub/3.tif"]
    assert discover(["a"]).root == tree / "a"


def test_several_inputs_keep_their_order_and_do_not_collide(tree):
    assert names("b", "a/sub", tree / "a" / "1.png") == ["b/1.png", "a/sub/3.tif", "a/1.png"]


def test_nothing_is_taken_twice(tree):
    assert names("a/2.png", "a", "./a/../a/1.png", "a/*.png") == [
        "2.png",
        "1.jpg",
        "1.png",
        "10.PNG",
        "sub/3.tif",
    ]


def test_globs(tree):
    assert names("a/*.png") == ["1.png", "2.png"]
    assert names("**/1.png") == ["a/1.png", "b/1.png"]
    assert names("[ab]") == ["a/1.jpg", "a/1.png", "a/2.png", "a/10.PNG", "a/sub/3.tif", "b/1.png"]
    assert names("b/*") == ["1.png"]


def test_a_name_with_glob_characters_is_a_name_first(tree):
    (tree / "b" / "part[1].png").write_bytes(b"x")
    assert names("b/part[1].png") == ["part[1].png"]


def test_globs_in_a_folder_with_glob_characters(tree, monkeypatch):
    (tree / "a").rename(tree / "lot [7]")
    monkeypatch.chdir(tree / "lot [7]")
    assert names("*.png") == ["1.png", "2.png"]
    assert names("s*/*.tif") == ["sub/3.tif"]


def test_a_file_named_directly_is_always_taken(tree):
    assert names("b/notes.txt") == ["notes.txt"]


def test_wrong_inputs_are_named(tree):
    for inputs, words in (
        (["nowhere"], "nowhere does not exist"),
        (["c"], "folder c holds no image"),
        (["a", "c"], "folder c holds no image"),
        (["*.gif"], r"nothing matches \*.gif"),
        (["b/*.txt"], "no image"),
        ([], "no input"),
    ):
        with pytest.raises(InputError, match=words):
            discover(inputs)


def test_nothing_is_not_the_current_folder(tree, monkeypatch):
    monkeypatch.chdir(tree / "a")
    with pytest.raises(InputError, match="an input is empty"):
        discover(["1.png", ""])
    with pytest.raises(RunFolderError, match="no folder is named"):
        check_output("")


def test_a_folder_without_images_says_what_it_holds(tree, monkeypatch):
    monkeypatch.setattr("headclip.data.discover.EXTENSIONS", EXTENSIONS - set(HEIC_ENDINGS))
    (tree / "phone/deep").mkdir(parents=True)
    for name in ("1.HEIC", "deep/2.heic", "film.mov", "x.mueller"):
        (tree / "phone" / name).touch()
    with pytest.raises(InputError, match=r"subfolders included; it holds 2 \.heic, 1 \.mov$"):
        discover(["phone"])


def test_links_are_followed_and_loops_are_not(tree):
    (tree / "b" / "more").symlink_to(tree / "a" / "sub")
    (tree / "a" / "sub" / "loop").symlink_to(tree / "a")
    assert names("b") == [
        "1.png",
        "more/3.tif",
        *[f"more/loop/{n}" for n in ("1.jpg", "1.png", "2.png", "10.PNG")],
    ]


def test_folders_can_be_left_out(tree):
    def is_sub(folder: Path) -> bool:
        return folder.name == "sub"

    assert names("a", skip_folder=is_sub)[-1] == "10.PNG"
    assert "a/sub/3.tif" in names("**/*.*")
    assert "a/sub/3.tif" not in names("**/*.*", skip_folder=is_sub)


def test_order_of_odd_names():
    shuffled = ["x10", "x²", "x2", "X2", "x", "x٣", "2", "10", "x02"]
    assert sorted(shuffled, key=natural_key) == ["2", "10", "x", "X2", "x02", "x2", "x10", "x²", "x٣"]


def test_names_that_are_no_utf8_become_printable(tree):
    (tree / "d").mkdir()
    odd = os.fsencode(tree / "d") + b"/\xff\xe4.png"
    try:
        Path(os.fsdecode(odd)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = discover(["d"])
    assert found.files[0].name.encode().endswith(b".png")
    assert found.files[0].path.read_bytes() == b"x"


def test_a_run_is_no_folder_of_images(tree):
    Image.new("L", (16, 16), 90).save("a/1.png")
    for out in ("run", "a/run", "a/sub/run"):
        predict_run(FakeDetector(), ["a/1.png"], out)
    assert names("a") == ["1.jpg", "1.png", "2.png", "10.PNG", "sub/3.tif"]
    assert not any("run" in name for name in names("**/*.*"))
    for given in ("run", "a/run", "run/**/*.jpg"):
        with pytest.raises(InputError, match=r"run is a run of headclip: .*name the images that it judged"):
            discover(["b", given])
    assert names("run/previews") == ["1.png.jpg"]  # who names it means it


LONG = "x" * 300 + ".png"  # file systems take 255 bytes


def forbid(monkeypatch, folder: Path) -> None:
    """Let nobody look into `folder`, not even root."""

    def refuse(function):
        def checked(path, *arguments, **options):
            if isinstance(path, str | Path) and folder in Path(path).absolute().parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *arguments, **options)

        return checked

    for name in ("stat", "lstat", "scandir", "listdir", "open", "mkdir"):
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))


def test_a_link_to_itself_is_a_file_that_cannot_be_read(tree):
    for link in ("a/loop.png", "a/loop"):
        (tree / link).symlink_to(tree / link)
    assert names("a")[-2:] == ["loop.png", "sub/3.tif"]
    assert names("a/loop.png") == ["loop.png"]
    assert "a/loop.png" in names("**/*.png")
    rows = {row.path: row for row in predict_run(FakeDetector(), ["a"], "run").rows}
    assert rows["loop.png"].status == "failed"
    assert "symbolic links" in rows["loop.png"].reason


def test_a_link_to_where_nobody_may_look(tree, monkeypatch):
    class Entry:
        """As os.scandir gives it; a forbidden folder stops no test that root runs."""

        def __init__(self, path):
            self.path, self.name = str(path), path.name

        def is_dir(self):
            if self.name.startswith("locked"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.path)
            return Path(self.path).is_dir()

    (tree / "b/locked.png").symlink_to("/nowhere/there")
    monkeypatch.setattr(os, "scandir", lambda folder: map(Entry, sorted(Path(folder).iterdir())))
    assert names("b") == ["1.png", "locked.png"]  # a row that fails
    (tree / "b/locked").symlink_to("/nowhere/there")
    with pytest.warns(UserWarning, match=r"passed over, .*b/locked \(Permission denied\)$"):
        assert names("b") == ["1.png", "locked.png"]
    with pytest.raises(InputError, match=r"cannot use .*b/locked: Permission denied; get permission"):
        find_images(tree / "b")  # for those who do not ask what was passed over


@pytest.mark.parametrize("name", ["~tmp.png", "~$x.png", "~no such user/1.png"])
def test_names_that_begin_like_a_home_folder(tree, name, monkeypatch):
    file = tree / "home" / name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    monkeypatch.chdir(tree / "home")
    given = os.path.relpath(file)
    assert names(given) == [file.name]
    assert names("~*") == names(".") == [given]


def test_inputs_that_cannot_be_looked_at(tree, monkeypatch):
    with pytest.raises(InputError, match="File name too long; choose shorter names"):
        names(LONG)
    with pytest.raises(InputError, match="File name too long"):
        names(tree / LONG / "a.png")
    forbid(monkeypatch, tree / "a")
    for given in ("a/2.png", "a/sub", "a/sub/3.tif"):
        with pytest.raises(InputError, match=r"cannot use .*a/.*: Permission denied; get permission"):
            names(given)


def test_datasets_and_runs_where_nobody_may_look(tree, monkeypatch):
    with pytest.raises(InputError, match="File name too long"):
        open_dataset("folder", tree / LONG)
    with pytest.raises(InputError, match="neither NAME=PATH nor an existing path"):
        open_spec(LONG)
    with pytest.raises(InputError, match="does not exist"):
        open_dataset("folder", "~no such user/data")
    with pytest.raises(RunFolderError, match="File name too long; choose another --out"):
        check_output(tree / LONG)
    (tree / "b/loop").symlink_to(tree / "b/loop")
    assert len(open_dataset("folder", tree / "b")) == 1
    forbid(monkeypatch, tree / "a")
    with pytest.raises(InputError, match="Permission denied; get permission"):
        open_dataset("folder", tree / "a/sub")
    with pytest.raises(InputError, match="Permission denied"):
        open_dataset("folder", tree / "a")
    with pytest.raises(RunFolderError, match="Permission denied; choose another --out"):
        check_output(tree / "a/run")


@pytest.mark.parametrize("given", ["a", "a/*", "a/**/*.*"])
def test_a_subfolder_that_cannot_be_listed_is_passed_over_and_told(tree, monkeypatch, given):
    (tree / "a/lost+found").mkdir()
    (tree / "only/lost+found").mkdir(parents=True)
    scandir = os.scandir

    def listed(folder="."):
        if str(folder).endswith("lost+found"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", listed)
    expected = ["1.jpg", "1.png", "2.png", "10.PNG", "sub/3.tif"]
    if given == "a/**/*.*":  # which never comes to it
        assert names(given) == expected
    else:
        with pytest.warns(UserWarning, match=r"passed over, .*a/lost\+found \(Permission denied\)$"):
            assert names(given) == expected
    with pytest.raises(InputError, match=r"cannot list the folder .*a/lost\+found: Permission denied"):
        discover(["b", "a/lost+found"])
    with pytest.raises(InputError, match=r"only holds no image; .*could not look into .*lost\+found"):
        discover(["only"])


def test_a_run_that_may_not_be_read_is_not_told_to_be_none(tree, monkeypatch):
    Image.new("L", (16, 16), 90).save("a/1.png")
    predict_run(FakeDetector(), ["a/1.png"], "run")
    predict_run(FakeDetector(), ["a/1.png"], "parts", shard=Shard(1, 1))
    forbid(monkeypatch, tree / "run")
    forbid(monkeypatch, tree / "parts/shards/1-of-1")
    words = r"cannot use .*run\.json: Permission denied; get permission"
    for look in (
        lambda: Run.open(tree / "run"),
        lambda: open_part(tree / "parts/shards/1-of-1"),
        lambda: check_output(tree / "run", resume=True),
        lambda: discover(["run"]),
    ):
        with pytest.raises(InputError, match=words):
            look()
    for none in (tree / "a", tree / "a/1.png", tree / "nowhere", tree / LONG):
        assert not is_run_folder(none)
