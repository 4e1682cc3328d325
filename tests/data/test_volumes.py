"""Many-page TIFF and NIfTI become slices with the right greys, the right way up, and bad ones a clear sentence."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest
from PIL import Image

from data.volume_files import head_of, write_nifti, write_tiff
from headclip.data.volumes.find import discover_volumes, is_wanted, open_volume
from headclip.data.volumes.model import VolumeOptions, VolumeSet, stretched
from headclip.data.volumes.names import SALT, keep_salt, neutral, run_salt, write_key
from headclip.data.volumes.window import Window, percentile_window
from headclip.errors import ImageError, InputError

WHOLE = VolumeOptions(window=Window(500, 1000))  # 0 to 1000
KEY = b"k" * 32


def greys(volume, index):
    pixels = volume.slices[index].decode()
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def marked(shape, *voxels):
    values = np.zeros(shape, np.int16)
    for index, voxel in enumerate(voxels):
        values[voxel] = 1000 - 200 * index
    return values


# --- greys


@pytest.mark.parametrize(
    ("window", "value", "grey"),
    [
        (Window(50, 100), 50, 128),
        (Window(50, 100), -5, 0),
        (Window(50, 100), 101, 255),
        (Window(2048, 4096, "LINEAR"), 0, 0),
        (Window(2048, 4096, "LINEAR"), 4095, 255),
        (Window(50, 100, "SIGMOID"), 50, 128),
        (Window(50, 100, "SIGMOID"), 100, 225),  # 255 / (1 + exp(-2))
    ],
)
def test_window_functions(window, value, grey):
    assert window.apply(np.array([value])).tolist() == [grey]


def test_what_is_not_finite_is_black():
    assert Window(0, 2).apply(np.array([np.nan, np.inf, -np.inf, 1.0])).tolist() == [0, 0, 0, 255]


def test_percentiles_leave_single_voxels_out():
    values = np.concatenate([np.linspace(0, 100, 10_000), [1e6, np.nan]])
    window = percentile_window([values])
    assert window is not None
    assert window.limits == pytest.approx((0.5, 99.5), abs=0.1)
    assert percentile_window([np.array([np.nan])]) is None
    assert percentile_window([np.full(10, 7)]).limits == (7, 8)


@pytest.mark.parametrize("text", ["40", "a,b", "40,0", "40,-3", "nan,1", "1,2,3"])
def test_a_wrong_window_says_how(text):
    with pytest.raises(InputError, match="--window"):
        Window.parse(text)


# --- TIFF


def test_pages_are_slices_and_one_page_is_an_image(tmp_path):
    write_tiff(tmp_path / "stack.tif", [np.full((20, 30), 40 * index, np.uint8) for index in range(4)])
    write_tiff(tmp_path / "single.tif", [np.zeros((20, 30), np.uint8)])
    images = discover_volumes([tmp_path], VolumeOptions(), lambda: KEY)
    assert isinstance(images, VolumeSet)
    assert not images.hidden
    assert images.root == tmp_path
    assert [file.name for file in images] == ["single.tif", *(f"stack.tif/page-{n:04d}" for n in range(1, 5))]
    for index, file in enumerate(images.volumes[0].slices):
        assert (file.decode() == 40 * index).all()


def test_reduced_copies_are_no_pages(tmp_path):
    large, small = (Image.fromarray(np.zeros((side, side), np.uint8)) for side in (32, 16))
    large.save(tmp_path / "pyramid.tif", save_all=True, append_images=[small])
    content = (tmp_path / "pyramid.tif").read_bytes()
    second = struct.unpack_from("<I", content, 4)[0]
    assert len(discover_volumes([tmp_path], VolumeOptions(), lambda: KEY)) == 2
    # Say of the second page that it is a reduced copy: its first tag becomes NewSubfileType = 1.
    first_count = struct.unpack_from("<H", content, second)[0]
    second = struct.unpack_from("<I", content, second + 2 + 12 * first_count)[0]
    changed = content[: second + 2] + struct.pack("<HHII", 254, 4, 1, 1) + content[second + 14 :]
    (tmp_path / "pyramid.tif").write_bytes(changed)
    images = discover_volumes([tmp_path], VolumeOptions(), lambda: KEY)
    assert not isinstance(images, VolumeSet)
    assert len(images) == 1


def test_deep_pages_share_one_window(tmp_path):
    pages = [np.full((16, 16), value, np.uint16) for value in (1000, 2000, 3000)]
    volume = open_volume(write_tiff(tmp_path / "deep.tif", pages), VolumeOptions())
    assert [int(greys(volume, index)[0, 0]) for index in (2, 0, 1)] == [255, 0, 128]
    assert volume.grid is None


def test_colour_pages_and_pages_of_several_sizes(tmp_path):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    volume = open_volume(write_tiff(tmp_path / "c.tif", [red, np.zeros((24, 9), np.uint8)]), VolumeOptions())
    assert volume.slices[0].decode()[0, 0].tolist() == [200, 0, 0]
    assert volume.slices[1].decode().shape == (24, 9, 3)


def test_a_truncated_page_is_a_reason(tmp_path):
    path = write_tiff(tmp_path / "cut.tif", [np.full((40, 40), n, np.uint8) for n in range(3)])
    volume = open_volume(path, VolumeOptions())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match=r"TIFF page|ends too early"):
        volume.slices[2].decode()


# --- NIfTI


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA", "IRP", "AIL"])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_patient_is_seen_the_usual_way_however_the_file_runs(tmp_path, codes, plane):
    """Voxels named by where they are in the patient: at (right, anterior, superior) = (2, 3, 5) and (12, 10, 7)."""
    shape = (14, 16, 18)
    ras = marked(shape, (2, 3, 5), (12, 10, 7))
    image = nibabel.Nifti1Image(ras, np.diag([1.0, 1.0, 1.0, 1.0]))
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    nibabel.save(image.as_reoriented(turn), tmp_path / "turned.nii.gz")
    volume = open_volume(tmp_path / "turned.nii.gz", VolumeOptions(window=WHOLE.window, plane=plane))
    for (r, a, s), grey in (((2, 3, 5), 255), ((12, 10, 7), 204)):
        # The patient's right is on the left, the face or the head is up; in sagittal slices the face looks left.
        places = {"axial": (s, 15 - a, 13 - r), "coronal": (a, 17 - s, 13 - r), "sagittal": (r, 17 - s, 15 - a)}
        index, row, column = places[plane]
        assert greys(volume, index)[row, column] == grey


def test_slices_follow_the_coarsest_axis_by_default(tmp_path):
    affine = np.diag([6.0, 1.0, 1.0, 1.0])
    volume = open_volume(write_nifti(tmp_path / "sag.nii", np.zeros((9, 20, 30), np.int16), affine), WHOLE)
    assert len(volume.slices) == 9
    assert volume.slices[0].decode().shape == (30, 20, 3)
    one = open_volume(write_nifti(tmp_path / "one.nii", np.zeros((20, 30, 1), np.int16)), WHOLE)
    assert len(one.slices) == 1


def test_thick_voxels_look_square(tmp_path):
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    path = write_nifti(tmp_path / "thick.nii", np.zeros((20, 30, 10), np.int16), affine)
    volume = open_volume(path, VolumeOptions(window=WHOLE.window, plane="coronal"))
    assert volume.slices[0].decode().shape == (40, 20, 3)
    assert stretched((10, 20), (1.0, 1.01)) == (10, 20)
    assert stretched((10, 20), (1000.0, 1.0)) == (10, 20)  # a header that is wrong rather than thick


def test_scaling_windows_and_percentiles(tmp_path):
    values = np.repeat(np.arange(1000, dtype=np.int16)[:, None], 100, axis=1).reshape(100, 100, 10)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header.set_slope_inter(2.0, -1000.0)
    nibabel.save(image, tmp_path / "scaled.nii.gz")
    real = np.asarray(nibabel.load(tmp_path / "scaled.nii.gz").dataobj)
    volume = open_volume(tmp_path / "scaled.nii.gz", VolumeOptions())
    low, high = np.percentile(real, [0.5, 99.5])
    expected = np.clip((real[::-1, ::-1, 4].T - low) / (high - low) * 255, 0, 255)
    assert np.abs(greys(volume, 4) - expected).max() < 2
    stated = open_volume(tmp_path / "scaled.nii.gz", VolumeOptions(window=Window.parse("0,2000")))
    expected = np.clip((real[::-1, ::-1, 4].T + 1000) / 2000 * 255, 0, 255)
    assert np.abs(greys(stated, 4) - expected).max() <= 0.51


def test_nan_voxels_are_black_and_slices_of_nothing_else_a_reason(tmp_path):
    values = np.full((10, 10, 3), 5.0, np.float32)
    values[:, :5, 0] = np.nan
    values[..., 1] = np.nan
    values[0, 0, 2] = 9.0
    volume = open_volume(write_nifti(tmp_path / "nan.nii", values), VolumeOptions(window=Window(5, 2)))
    assert sorted(np.unique(greys(volume, 0))) == [0, 128]
    with pytest.raises(ImageError, match="no voxel of the slice is a finite number"):
        volume.slices[1].decode()
    nothing = open_volume(write_nifti(tmp_path / "all.nii", np.full((9, 9, 2), np.nan, np.float32)), VolumeOptions())
    with pytest.raises(ImageError, match="finite"):
        nothing.slices[0].decode()


def reason_of(path, options=None):
    with pytest.raises(ImageError) as caught:
        open_volume(path, options or VolumeOptions())
    return str(caught.value)


def claim(path, shape):
    """A NIfTI header that claims this shape, and nothing behind it."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((2, 2, 2))
    header.set_data_dtype(np.int16)
    header["dim"][: 1 + len(shape)] = (len(shape), *shape)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.binaryblock + b"\0" * 4)
    return path


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((10_000, 10_000, 10_000), "more than the limit of 1,000,000,000; raise it with --max-voxels"),
        ((16, 16, 4, 5), "4 dimensions; save each volume of the series as a file of its own"),
        ((300, 300, 300), "the file has fewer"),
        ((0, 3, 3), "are none"),
        ((-5, 3, 3), "are none"),
    ],
)
def test_claims_are_checked_before_anything_is_allocated(tmp_path, shape, reason):
    path = claim(tmp_path / "claim.nii", shape)
    packed = tmp_path / "claim.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    tracemalloc.start()
    assert reason in reason_of(path)
    if "fewer" not in reason:
        assert reason in reason_of(packed)
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()


def test_damaged_nifti(tmp_path):
    whole = write_nifti(tmp_path / "whole.nii.gz", head_of(6).transpose(2, 1, 0))
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(ImageError, match="cut off"):
        open_volume(cut, VolumeOptions()).slices[0].decode()
    short = tmp_path / "short.nii.gz"  # packed soundly, of too few voxels
    short.write_bytes(gzip.compress(gzip.decompress(whole.read_bytes())[:-500]))
    with pytest.raises(ImageError, match="cut off"):
        open_volume(short, VolumeOptions()).slices[0].decode()
    (tmp_path / "text.nii").write_text("this is no volume " * 40)
    assert "not a NIfTI volume" in reason_of(tmp_path / "text.nii")
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    assert "ends too early" in reason_of(tmp_path / "empty.nii.gz")
    pair = bytearray(claim(tmp_path / "pair.nii", (9, 9, 9)).read_bytes())
    pair[344:348] = b"ni1\0"
    (tmp_path / "pair.nii").write_bytes(pair)
    assert "pairs of .hdr and .img" in reason_of(tmp_path / "pair.nii")
    colours = np.zeros((9, 9, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "colours.nii")
    assert "colours or complex" in reason_of(tmp_path / "colours.nii")


def test_a_damaged_affine_is_said(tmp_path):
    path = write_nifti(tmp_path / "a.nii", np.zeros((9, 9, 9), np.int16))
    content = bytearray(path.read_bytes())
    content[280:328] = np.full(12, np.nan, np.float32).tobytes()  # srow
    path.write_bytes(content)
    assert "affine is damaged" in open_volume(path, VolumeOptions()).notes[0]


# --- names


def test_names_are_keyed_and_collide_with_nothing(tmp_path):
    content = np.zeros((9, 9, 9), np.int16)
    for name in ("one/Quxberry.nii", "two/Zebulon.nii"):
        write_nifti(tmp_path / name, content)
    first, again, other = (
        discover_volumes([tmp_path], VolumeOptions(), lambda key=key: key) for key in (KEY, KEY, b"o" * 32)
    )
    assert first.hidden
    assert [file.name for file in first] == [file.name for file in again]
    assert {volume.name for volume in first.volumes}.isdisjoint(volume.name for volume in other.volumes)
    assert len({file.name for file in first}) == 18  # the same content twice, two names
    assert not any(word in str(first.root) + first.files[0].name for word in ("Quxberry", tmp_path.name))
    assert first.files[0].state() == again.files[0].state() != other.files[0].state()
    assert first.files[0].content() == again.files[0].content() != first.files[1].content()
    kept = discover_volumes([tmp_path], VolumeOptions(keep_names=True), lambda: KEY)
    assert kept.files[0].name == "one/Quxberry.nii/slice-0001"


def test_key_and_salt(tmp_path):
    run = tmp_path / "run"
    salt = run_salt(run, keep=True)
    assert not run.exists()
    keep_salt(run, salt)
    assert run_salt(run, keep=True) == salt != run_salt(run, keep=False)
    assert (run / SALT).stat().st_mode & 0o077 == 0
    (run / SALT).write_text("no key")
    with pytest.raises(InputError, match="damaged"):
        run_salt(run, keep=True)
    with pytest.raises(InputError, match="outside the run folder"):
        write_key(run / "key.csv", [], run)
    write_key(tmp_path / "key.csv", [("volume-1", tmp_path / "Quxberry.nii")], run)
    assert (tmp_path / "key.csv").read_text() == f"path,file\nvolume-1,{tmp_path / 'Quxberry.nii'}\n"
    assert (tmp_path / "key.csv").stat().st_mode & 0o077 == 0
    assert neutral(KEY, b"ab", b"c") != neutral(KEY, b"a", b"bc")


def test_which_files_are_taken(tmp_path):
    for name in ("a.nii", "a.nii.gz", "a.dcm", "a.png", "a.txt", "a.gz", "DICOMDIR", "IM0001", "1.2.840.5", "notes"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" if name in ("DICOMDIR", "IM0001", "1.2.840.5") else b"x")
    taken = {path.name for path in tmp_path.iterdir() if is_wanted(path)}
    assert taken == {"a.nii", "a.nii.gz", "a.dcm", "a.png", "IM0001", "1.2.840.5"}


def test_pipes_and_links_to_nothing_are_reasons_without_names(tmp_path):
    os.mkfifo(tmp_path / "Quxberry.nii")
    os.mkfifo(tmp_path / "IM0001")
    (tmp_path / "Zebulon.dcm").symlink_to(tmp_path / "gone")
    images = discover_volumes([tmp_path], VolumeOptions(), lambda: KEY)
    assert len(images) == 2
    for file in images:
        assert file.name.startswith("volume-")
        with pytest.raises(ImageError, match="not a regular file"):
            file.decode()


def test_one_volume_is_asked_for(tmp_path):
    for name in ("a", "b"):
        write_nifti(tmp_path / f"{name}.nii", np.zeros((9, 9, 2), np.int16))
    with pytest.raises(InputError, match="2 volumes"):
        open_volume(tmp_path, VolumeOptions())
    with pytest.raises(InputError, match="top share"):
        VolumeOptions(top_share=0.0)
