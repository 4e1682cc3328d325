"""Several methods, or several finished runs, side by side on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headclip.data.decode import DEFAULT_MAX_PIXELS, decode
from headclip.data.discover import ImageFile, printable
from headclip.errors import HeadclipError, ImageError, InputError
from headclip.inference.detector import Detector
from headclip.inference.shared import predict_methods
from headclip.inspection.choosing import Rule, choose_images
from headclip.inspection.scales import Colours, ScaleKind, choose_scales
from headclip.inspection.truth import Truth, TruthFinder
from headclip.prediction import Prediction
from headclip.runs.run import Row, Run

SIDE = 900  # pixels of the longest side of what a figure holds
_CHUNK = 16  # images decoded at a time
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class ComparedImage:
    """One row of the figure. image: (h, w, 3) uint8, reduced to SIDE; maps: one (h, w) float32 in [0, 1] for each
    column; scores: one for each column; size: (H, W) of the image itself."""

    name: str
    size: tuple[int, int]
    image: NDArray[np.uint8]
    truth: Truth
    maps: tuple[NDArray[np.float32], ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """What the figure shows. colours: of each column; kind: what they mean. left_out: images that could not be read,
    with the reason. rule: how the images were chosen, of how many."""

    columns: tuple[str, ...]
    images: tuple[ComparedImage, ...]
    kind: ScaleKind
    colours: tuple[Colours, ...]
    rule: Rule
    candidates: int
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def knows_truth(self) -> bool:
        """Whether anything is known of any image."""
        return any(image.truth.label is not None for image in self.images)


def compare_methods(
    detectors: Mapping[str, Detector],
    images: Sequence[ImageFile],
    truths: TruthFinder | None = None,
    *,
    count: int = 6,
    rule: Rule = "first",
    scale: ScaleKind | None = None,
    limits: tuple[float, float] | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress = lambda stage, done, total: None,
) -> Comparison:
    """Judge images with several detectors; `detectors` maps the title of a column to its detector.

    Args:
        count: images to show at most; with a rule other than "first" all of them are judged first.
        scale: as for `headclip.inspection.scales.choose_scales`; None takes "value" where all columns are of one
            method, or where there are limits, else "rank".
        limits: map values of the first and the last colour; None takes them from the maps shown.

    Raises:
        InputError: no detector, no image that can be read, or one mask that fits two images.
    """
    truths = truths or TruthFinder()
    truths.check(images)
    judge = _Judge(detectors, truths, max_pixels, progress)
    candidates = list(images)
    if rule != "first" and len(images) > count:
        candidates = judge.choose(candidates, count, rule)
    shown, parts = judge.show(candidates, count)
    if rule != "first" and len(images) <= count:
        labels = [image.truth.label for image in shown]
        order = choose_images(np.array([image.scores for image in shown]), count, rule, labels)
        shown, parts = [shown[i] for i in order], [parts[i] for i in order]
    kind = scale or _usual_scale([detector.method.name for detector in detectors.values()], limits)
    colours = choose_scales(parts, kind, limits)
    left_out = tuple(judge.left_out.items())
    return Comparison(tuple(detectors), tuple(shown), kind, colours, rule, len(images), left_out)


def compare_runs(
    runs: Mapping[str, Run],
    truths: TruthFinder | None = None,
    *,
    count: int = 6,
    rule: Rule = "different",
    scale: ScaleKind | None = None,
    limits: tuple[float, float] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Comparison:
    """Finished runs side by side, on the images that all of them judged; no model is loaded.

    Arguments as for `compare_methods`.

    Raises:
        InputError: no run, or no image that all runs have judged.
        RunFolderError: a map is missing or damaged.
    """
    if not runs:
        raise InputError("no run to show; name at least one run folder")
    truths = truths or TruthFinder()
    common = _common_rows(list(runs.values()))
    if not common:
        raise InputError(
            f"{', '.join(runs)} have no judged image in common; compare runs over the same images, "
            "or judge the images with several methods by --method"
        )
    first = next(iter(runs.values()))
    files = [ImageFile(first.image_path(rows[0]), rows[0].path) for rows in common]
    truths.check(files)
    scores = np.array([[row.score or 0.0 for row in rows] for rows in common])
    shown, parts = [], []
    chosen = choose_images(scores, count, rule, [truths.label(file) for file in files])
    for done, index in enumerate(chosen):
        progress("reading maps", done, len(chosen))
        rows = common[index]
        maps = [run.load_map(row) for run, row in zip(runs.values(), rows, strict=True)]
        if len({found.shape for found in maps}) > 1:
            raise InputError(f"{rows[0].path} had another size in one of the runs; judge it again")
        file = files[index]
        picture = _picture(list(runs.values()), rows)
        truth = truths.find(file, (maps[0].shape[0], maps[0].shape[1]))
        shown.append(_row(file.name, picture, truth, maps, tuple(row.score or 0.0 for row in rows)))
        parts.append(maps)
    progress("reading maps", len(chosen), len(chosen))
    kind = scale or _usual_scale([str(run.settings.get("method")) for run in runs.values()], limits)
    return Comparison(tuple(runs), tuple(shown), kind, choose_scales(parts, kind, limits), rule, len(common))


def _usual_scale(methods: Sequence[str], limits: tuple[float, float] | None) -> ScaleKind:
    return "value" if limits is not None or len(set(methods)) == 1 else "rank"


class _Judge:
    """Runs the detectors; images that cannot be read are noted and left out."""

    def __init__(
        self, detectors: Mapping[str, Detector], truths: TruthFinder, max_pixels: int, progress: Progress
    ) -> None:
        if not detectors:
            raise InputError("no method to show; name at least one")
        self.detectors, self.truths, self.max_pixels, self.progress = detectors, truths, max_pixels, progress
        self.named = any(detector.category is not None for detector in detectors.values())
        self.left_out: dict[str, str] = {}

    def choose(self, images: Sequence[ImageFile], count: int, rule: Rule) -> list[ImageFile]:
        """The images to show, by the scores of all that can be read; a few images are in memory at a time."""
        readable: list[ImageFile] = []
        scores: list[list[float]] = []
        for start in range(0, len(images), _CHUNK):
            self.progress("choosing", start, len(images))
            chunk = [(image, self._read(image)) for image in images[start : start + _CHUNK]]
            ok = [(image, array) for image, array in chunk if array is not None]
            if ok:
                found = self._predict(ok)
                readable += [image for image, _ in ok]
                scores += [[predictions[i].score for predictions in found] for i in range(len(ok))]
        self.progress("choosing", len(images), len(images))
        self._need(readable)
        labels = [self.truths.label(image) for image in readable]
        return [readable[index] for index in choose_images(np.array(scores), count, rule, labels)]

    def show(
        self, images: Sequence[ImageFile], count: int
    ) -> tuple[list[ComparedImage], list[list[NDArray[np.float32]]]]:
        """The first `count` images that can be read, and their maps at the images' own resolution."""
        shown: list[ComparedImage] = []
        parts: list[list[NDArray[np.float32]]] = []
        total = min(count, len(images))
        for image in images:
            if len(shown) == total:
                break
            self.progress("judging", len(shown), total)
            array = self._read(image)
            if array is None:
                continue
            found = [predictions[0] for predictions in self._predict([(image, array)])]
            maps = [prediction.anomaly_map for prediction in found]
            truth = self.truths.find(image, (array.shape[0], array.shape[1]))
            shown.append(_row(image.name, array, truth, maps, tuple(prediction.score for prediction in found)))
            parts.append(maps)
        self._need(shown)
        self.progress("judging", total, total)
        return shown, parts

    def _predict(self, images: Sequence[tuple[ImageFile, NDArray[np.uint8]]]) -> list[list[Prediction]]:
        """For each detector the predictions of all images, each under the category that its dataset names, unless
        the user named one for all."""
        categories = [self.truths.category(image) for image, _ in images]
        known = [name for name in categories if name is not None]
        usable = None if self.named or len(known) < len(images) else known
        found = predict_methods(self.detectors, [array for _, array in images], usable)
        return [found[title] for title in self.detectors]

    def _read(self, image: ImageFile) -> NDArray[np.uint8] | None:
        try:
            return decode(image.path, max_pixels=self.max_pixels)
        except ImageError as error:
            self.left_out[image.name] = str(error)
            return None

    def _need(self, found: Sequence[object]) -> None:
        if not found:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in list(self.left_out.items())[:3])
            raise InputError(f"no image can be shown. {reasons}" if reasons else "no image to show; name some")


def _common_rows(runs: Sequence[Run]) -> list[list[Row]]:
    """For each image that every run judged, its row in each; by its path, or by its name if runs moved."""
    by_path = [{str(run.image_path(row)): row for row in run.ok} for run in runs]
    by_name = [{row.path: row for row in run.ok} for run in runs]
    for tables in (by_path, by_name):
        common = [key for key in tables[0] if all(key in table for table in tables)]
        if common:
            return [[table[key] for table in tables] for key in common]
    return []


def _picture(runs: Sequence[Run], rows: Sequence[Row]) -> NDArray[np.uint8]:
    """The image where it was, else the reduced copy that a run kept.

    Raises:
        InputError: neither can be read.
    """
    reason: HeadclipError | None = None
    for run, row in zip(runs, rows, strict=True):
        for path in (run.image_path(row), run.preview_path(row)):
            try:
                return decode(path)
            except ImageError as error:
                reason = reason or error
    raise InputError(f"neither {rows[0].path} nor a preview of it can be read: {reason}")


def _row(
    name: str,
    array: NDArray[np.uint8],
    truth: Truth,
    maps: Sequence[NDArray[np.float32]],
    scores: tuple[float, ...],
) -> ComparedImage:
    """Everything at the size of the figure."""
    size = (maps[0].shape[0], maps[0].shape[1])
    share = min(1.0, SIDE / max(size))
    small = (max(1, round(size[0] * share)), max(1, round(size[1] * share)))
    picture = Image.fromarray(array).resize((small[1], small[0]), Image.Resampling.BOX)
    mask = None if truth.mask is None else _reduce(truth.mask.astype(np.float32), small) >= 0.5
    reduced = tuple(_reduce(found, small) for found in maps)
    return ComparedImage(
        name, size, np.asarray(picture), Truth(truth.label, mask, truth.category), reduced, tuple(scores)
    )


def _reduce(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) to (h, w), each value the mean of those it stands for."""
    if values.shape == size:
        return values
    resized = Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BOX)
    return np.asarray(resized, np.float32)


def run_titles(folders: Sequence[Path], runs: Sequence[Run], names: Mapping[str, str]) -> list[str]:
    """A title for each run: its method where all differ, else the folder's name.

    names: how methods are written.

    Raises:
        InputError: the same run twice.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("the same run folder is named twice")
    methods = [str(run.settings.get("method", "")) for run in runs]
    if all(methods) and len(set(methods)) == len(methods):
        return [names.get(method, method) for method in methods]
    titles = [printable(folder.resolve().name) for folder in folders]
    if len(set(titles)) < len(titles):
        titles = [printable(f"{folder.resolve().parent.name}/{folder.resolve().name}") for folder in folders]
    return titles if len(set(titles)) == len(titles) else [printable(str(folder)) for folder in folders]
