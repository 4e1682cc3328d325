"""DICOM: rescaled, windowed, sorted along the normal, placed in the patient, and wrong in plain words."""

from __future__ import annotations

import gzip
from types import SimpleNamespace

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from data.volume_files import TRACES, UID, dicom_dataset, head_of, save, slice_place, write_series
from headclip.data.volumes.find import discover_volumes, open_volume
from headclip.data.volumes.model import VolumeOptions, VolumeSet
from headclip.data.volumes.series import _grid
from headclip.data.volumes.window import Window
from headclip.errors import ImageError, InputError

KEY = b"k" * 32
RAMP = np.linspace(0, 4095, 16 * 16).reshape(16, 16)


def volume_of(path, **options):
    return open_volume(path, VolumeOptions(**options))


def greys(volume, index=0):
    pixels = volume.slices[index].decode()
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def affine_of(volume):
    return nibabel.Nifti1Header(volume.grid.header).get_best_affine()


def failures(folder, **options):
    """Names and reasons of all rows of a folder that cannot be decoded."""
    images = discover_volumes([folder], VolumeOptions(**options), lambda: KEY)
    assert isinstance(images, VolumeSet)
    reasons = {}
    for file in images:
        try:
            file.decode()
        except ImageError as error:
            reasons[file.name] = str(error)
    for reason in reasons.values():
        assert not any(trace in reason.lower() for trace in TRACES)
        assert str(folder) not in reason
    return images, list(reasons.values())


# --- greys


def test_slope_intercept_and_stated_window(tmp_path):
    hounsfield = head_of()
    volume = volume_of(write_series(tmp_path, hounsfield))
    low, width = 50 - 0.5 - 399 / 2, 399  # PS3.3 C.11.2.1.2: centre 50, width 400
    for index in (0, 3, 7):
        expected = np.clip((hounsfield[index] - low) / width * 255, 0, 255)
        assert np.abs(greys(volume, index) - expected).max() <= 0.51
    asked = volume_of(tmp_path, window=Window.parse("20,80"))
    assert greys(asked, 0)[20, 20] == 128


@pytest.mark.parametrize(
    ("dtype", "stored_bits", "signed"), [(np.uint8, 8, 0), (np.uint16, 12, 0), (np.uint16, 16, 0), (np.int16, 16, 1)]
)
def test_bit_depths(tmp_path, dtype, stored_bits, signed):
    values = RAMP / 4095 * ((1 << (stored_bits - signed)) - 1)
    values = values - 20_000 * signed
    dataset = dicom_dataset(values.astype(dtype), BitsStored=stored_bits, HighBit=stored_bits - 1)
    path = save(dataset, tmp_path / "a.dcm")
    expected = (values - values.min()) / np.ptp(values) * 255
    assert np.abs(greys(volume_of(path)) - expected).max() < 3  # without a window: all of 8 bits, else percentiles


def test_monochrome1_is_inverted(tmp_path):
    stored = RAMP.astype(np.uint16)
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    one, two = (
        greys(volume_of(save(dicom_dataset(stored, PhotometricInterpretation=kind, **window), tmp_path / kind)))
        for kind in ("MONOCHROME1", "MONOCHROME2")
    )
    assert (one == 255 - two).all()
    assert two[0, 0] == 0


def test_colour_and_palette(tmp_path):
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[..., 1] = 180
    assert volume_of(save(dicom_dataset(colours), tmp_path / "c.dcm")).slices[0].decode()[3, 3].tolist() == [0, 180, 0]
    dataset = dicom_dataset(np.full((16, 16), 2, np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for index, name in enumerate(("Red", "Green", "Blue")):
        table = np.full(256, 60 * index, np.uint16) * 257
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{name}PaletteColorLookupTableData", table.tobytes())
    pixels = volume_of(save(dataset, tmp_path / "p.dcm")).slices[0].decode()
    assert pixels[0, 0].tolist() == [0, 60, 120]


def test_lookup_tables(tmp_path):
    dataset = dicom_dataset(np.tile(np.arange(16, dtype=np.uint8), (16, 1)))
    table = Dataset()
    table.LUTDescriptor = [16, 0, 16]
    table.LUTData = (257 * np.arange(0, 160, 10)).astype("<u2").tobytes()
    dataset.VOILUTSequence = Sequence([table])
    dataset["VOILUTSequence"].value[0]["LUTData"].VR = "OW"
    assert greys(volume_of(save(dataset, tmp_path / "l.dcm")))[0].tolist() == list(range(0, 160, 10))


# --- order and place


def test_slices_are_sorted_along_the_normal_and_lie_where_the_patient_does(tmp_path):
    volume = volume_of(write_series(tmp_path, head_of()))
    middle = [int(greys(volume, index)[20, 20]) for index in range(8)]
    assert middle == sorted(middle)
    assert len(set(middle)) == 8
    expected = np.array([[-0.5, 0, 0, 10], [0, -0.5, 0, 20], [0, 0, 5, 0], [0, 0, 0, 1.0]])
    assert np.allclose(affine_of(volume), expected)
    assert volume.notes == ()


def test_oblique_and_tilted_slices(tmp_path):
    row, column = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
    step = np.array([0.6 * 3, -0.8 * 3, 0.5])  # not along the normal: a tilted gantry
    for index, values in enumerate(head_of(4)):
        place = slice_place(index) | {
            "ImagePositionPatient": list(np.array([1.0, 2.0, 3.0]) + index * step),
            "ImageOrientationPatient": [*row, *column],
            "PixelSpacing": [2.0, 0.5],
        }
        save(dicom_dataset(values.astype(np.uint16), index, **place), tmp_path / f"{index}.dcm")
    volume = volume_of(tmp_path)
    # The normal is (-0.6, 0.8, 0): against the step, so that the last position comes first.
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1], lps[:3, 2] = row * 0.5, column * 2.0, -step
    lps[:3, 3] = np.array([1.0, 2.0, 3.0]) + 3 * step
    assert np.allclose(affine_of(volume), np.diag([-1, -1, 1, 1]) @ lps, atol=1e-5)
    assert volume.slices[0].decode().shape == (160, 40, 3)  # pixels four times as tall as wide


def test_slices_whose_place_is_no_number_are_judged_without_one():
    nan = float("nan")
    slices = [
        SimpleNamespace(spacing=(1.0, 1.0), gap=None, orientation=(1, 0, 0, 0, 1, 0), position=(0.0, nan, float(z)))
        for z in range(3)
    ]
    notes: list[str] = []
    grid = _grid(slices, np.array([0.0, nan, 2.0]), (8, 8), notes)
    assert any("cannot be laid over others" in note for note in notes)
    assert np.isfinite(nibabel.Nifti1Header(grid.header).get_best_affine()).all()


def test_uneven_gaps_and_missing_places_are_said(tmp_path):
    write_series(tmp_path / "gap", head_of())
    (tmp_path / "gap" / "Quxberry_004.dcm").unlink()
    assert "5.00 to 10.00 mm apart" in volume_of(tmp_path / "gap").notes[0]
    for index, values in enumerate(head_of(3)):
        save(dicom_dataset(values.astype(np.uint16), 3 - index), tmp_path / "none" / f"{index}.dcm")
    volume = volume_of(tmp_path / "none")
    assert "no positions in the patient" in volume.notes[0]
    assert "1 mm is taken" in volume.notes[1]
    assert [one.path.name for one in volume.slices] == ["2.dcm", "1.dcm", "0.dcm"]
    write_series(tmp_path / "same", head_of(), gap=0.0)
    assert "share one position" in "".join(volume_of(tmp_path / "same").notes)


def test_one_slice_doubles_series_and_sizes(tmp_path):
    write_series(tmp_path / "a", head_of(1))
    assert len(volume_of(tmp_path / "a").slices) == 1
    write_series(tmp_path / "b", head_of(5))
    (tmp_path / "b" / "copy.dcm").write_bytes((tmp_path / "b" / "Quxberry_001.dcm").read_bytes())
    scout = dicom_dataset(np.zeros((64, 32), np.uint16), 90, **slice_place(9))
    save(scout, tmp_path / "b" / "scout.dcm")
    images, reasons = failures(tmp_path / "b")
    assert reasons[0] == "32 x 64 pixels, where the series has 40 x 40"
    assert "another file is the same slice" in reasons[1]
    volume = images.volumes[0]
    assert len(volume.slices) == 5
    assert set(volume.notes) == {"1 slice(s) were there twice", "1 slice(s) of another size are not part of the volume"}
    for index, values in enumerate(head_of(2)):  # another series in the same folder, without an extension
        place = slice_place(index)
        other = dicom_dataset(values.astype(np.uint16), 200 + index, **place, SeriesInstanceUID=f"{UID}.9")
        save(other, tmp_path / "b" / f"IM{index}")
    assert [len(volume.slices) for volume in failures(tmp_path / "b")[0].volumes] == [5, 2]


def test_frames_of_one_file(tmp_path):
    frames = head_of(6).astype(np.uint16)
    cine = volume_of(save(dicom_dataset(frames), tmp_path / "cine.dcm"))
    assert len(cine.slices) == 6
    assert "frames are in the file's order" in cine.notes[0]
    dataset = dicom_dataset(frames, number=2)
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = [0.5, 0.5]
    shared.PixelMeasuresSequence[0].SliceThickness = 2.0
    shared.PlaneOrientationSequence = Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for index in range(6):
        group = Dataset()
        group.PlanePositionSequence = Sequence([Dataset()])
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, -2.0 * index]  # from above downwards
        group.FrameVOILUTSequence = Sequence([Dataset()])
        group.FrameVOILUTSequence[0].WindowCenter, group.FrameVOILUTSequence[0].WindowWidth = 50, 100 + index
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    enhanced = volume_of(save(dataset, tmp_path / "enhanced.dcm"))
    assert enhanced.notes == ()
    assert np.allclose(affine_of(enhanced)[:, 2], [0, 0, 2, 0])
    expected = Window(50, 105, "LINEAR").apply(frames[5])  # the last frame lies lowest
    assert (greys(enhanced, 0) == expected).all()


# --- bad input


def test_bad_files_are_reasons_that_quote_nothing(tmp_path):
    whole = save(dicom_dataset(RAMP.astype(np.uint16)), tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "whole.dcm").unlink()
    bad = {
        "cut_pixels.dcm": whole[:-100],
        "cut_header.dcm": whole[:700],
        "text.dcm": b"PatientName Quxberry" * 40,
        "empty.dcm": b"",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    report = dicom_dataset(RAMP.astype(np.uint16), number=5)
    del report.PixelData
    save(report, tmp_path / "no_pixels.dcm")
    for name in ("Rows", "Columns", "PixelData"):
        if name in report:
            delattr(report, name)
    save(report, tmp_path / "report.dcm")
    large = dicom_dataset(np.zeros((16, 16), np.uint16), number=6, NumberOfFrames=90_000, Rows=60_000, Columns=60_000)
    save(large, tmp_path / "large.dcm")
    images, reasons = failures(tmp_path)
    assert len(images) == len(reasons) == 7
    together = "\n".join(sorted(reasons))
    for part in ("cut off", "no DICM mark", "holds no image (no pixel data)", "raise it with --max-voxels"):
        assert part in together


def test_compression(tmp_path):
    dataset = dicom_dataset(RAMP.astype(np.uint16))
    plain = greys(volume_of(save(dataset, tmp_path / "plain.dcm")))
    dataset.compress(RLELossless)
    assert (greys(volume_of(save(dataset, tmp_path / "rle.dcm"))) == plain).all()
    if not pydicom.pixels.get_decoder(JPEGLSLossless).is_available:
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        path = save(dataset, tmp_path / "jls.dcm")
        with pytest.raises(ImageError, match="JPEG-LS without a decoder: pip install pyjpegls"):
            volume_of(path).slices[0].decode()


def test_a_file_deflated_as_a_whole_is_not_unpacked(tmp_path):
    dataset = dicom_dataset(RAMP.astype(np.uint16))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(dataset, tmp_path / "deflated.dcm")
    with pytest.raises(ImageError, match="deflated as a whole"):
        volume_of(path)


def test_burned_in_identifiers_are_refused_unless_names_may_be_kept(tmp_path):
    path = save(dicom_dataset(RAMP.astype(np.uint8), BurnedInAnnotation="YES"), tmp_path / "us.dcm")
    _, reasons = failures(tmp_path)
    assert "burned into its pixels" in reasons[0]
    assert failures(tmp_path, keep_names=True)[1] == []
    assert path.exists()


def test_planes_are_for_nifti(tmp_path):
    write_series(tmp_path, head_of(2))
    with pytest.raises(InputError, match="--plane cuts NIfTI"):
        volume_of(tmp_path, plane="coronal")


def test_names_kept_and_hidden(tmp_path):
    write_series(tmp_path / "Quxberry", head_of(2))
    hidden = discover_volumes([tmp_path], VolumeOptions(), lambda: KEY)
    named = discover_volumes([tmp_path], VolumeOptions(keep_names=True), lambda: KEY)
    assert [file.name for file in named] == ["Quxberry/slice-0001", "Quxberry/slice-0002"]
    assert hidden.hidden
    text = repr([(file.name, hidden.root) for file in hidden])
    assert not any(trace in text.lower() for trace in TRACES)
    assert {name for name, _ in hidden.sources()} == {file.name for file in hidden}


def test_strange_values_break_nothing_and_say_nothing(tmp_path, recwarn, caplog):
    """What violates the standard makes pydicom warn, with the value; none of that may come through."""
    dataset = dicom_dataset(RAMP.astype(np.uint16), **slice_place(0))
    path = save(dataset, tmp_path / "odd.dcm")
    content = path.read_bytes()
    series = f"{UID}.2".encode()
    for old, new in ((b"19470313", b"quxberry"), (series, b"Zebulon!".ljust(len(series), b"x")), (b"0.5\\", b"abc\\")):
        assert old in content
        content = content.replace(old, new)
    path.write_bytes(content)
    volume = volume_of(path)
    volume.slices[0].decode()
    assert len(recwarn) == 0
    assert caplog.text == ""


def test_fuzzed_files_are_reasons(tmp_path):
    rng = np.random.default_rng(0)
    whole = save(dicom_dataset(RAMP.astype(np.uint16), **slice_place(0)), tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "whole.dcm").unlink()
    for index in range(60):
        content = bytearray(whole)
        for place in rng.integers(132, len(whole) - 512, 4):
            content[place] = rng.integers(256)
        (tmp_path / f"{index}.dcm").write_bytes(content[: len(content) - int(rng.integers(0, 2)) * index * 10])
    images, reasons = failures(tmp_path)
    assert len(images) >= 1
    assert all("\n" not in reason and reason for reason in reasons)


def test_the_header_of_the_output_is_whole(tmp_path):
    volume = volume_of(write_series(tmp_path, head_of(3)))
    path = tmp_path / "out.nii.gz"
    with gzip.open(path, "wb") as handle:
        handle.write(volume.grid.header + b"\0" * 4 + np.full((40, 40, 3), 65535, "<u2").tobytes("F"))
    image = nibabel.load(path)
    assert image.shape == (40, 40, 3)
    assert np.allclose(image.get_fdata(), 1.0)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert np.allclose(image.header.get_zooms(), (0.5, 0.5, 5.0))


def test_a_side_too_long_for_the_first_version_of_nifti(tmp_path):
    """Found by fuzzing: it ended the whole run."""
    pixels = np.zeros((8, 40_000), np.uint8)
    volume = volume_of(save(dicom_dataset(pixels, **slice_place(0)), tmp_path / "long.dcm"))
    assert len(volume.grid.header) == 540
    header = nibabel.Nifti2Header(volume.grid.header)
    assert header.get_data_shape() == (40_000, 8, 1)
    assert np.allclose(header.get_zooms(), (0.5, 0.5, 5.0))
    assert volume.slices[0].decode().shape == (8, 40_000, 3)
