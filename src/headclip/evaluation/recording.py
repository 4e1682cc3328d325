"""One method's judgements of a dataset on record: a run folder with pixel counts, and what is read back from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headclip.clip.preprocess import resize
from headclip.data.datasets import Dataset
from headclip.data.decode import DEFAULT_MAX_PIXELS, decode
from headclip.data.discover import ImageFile
from headclip.data.levels import quantise
from headclip.data.prefetch import Decoded
from headclip.data.records import ImageRecord
from headclip.errors import HeadclipError
from headclip.evaluation.by_category import ByCategory
from headclip.evaluation.compared import Compared
from headclip.evaluation.counts import encode_counts, is_sound, read_counts, read_facts
from headclip.evaluation.judged import JudgedImage, Resolution, Size, read_truth, truth_fingerprint
from headclip.inference.detector import Detector
from headclip.inference.session import NOT_FINITE, failed_entry, is_finite, judged_entry
from headclip.metrics.state import image_state
from headclip.prediction import Prediction
from headclip.runs.files import RunFolderError, map_file, write_atomic
from headclip.runs.pictures import encode_map, is_sound_map, read_map
from headclip.runs.run import Entry

COUNTS = "counts"


@dataclass(frozen=True)
class JudgingOptions:
    """resolution: at which maps and masks meet; keep_maps: also write 16-bit maps; compared: with what."""

    resolution: Resolution = "image"
    keep_maps: bool = False
    resume: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    compared: Compared = field(default_factory=Compared)


class Record(Protocol):
    """What is needed of a `RunWriter` to keep judgements."""

    folder: Path
    entries: dict[str, Entry]

    def is_done(self, file: ImageFile, /) -> bool: ...
    def append(self, entries: list[Entry], /) -> None: ...


def counts_file(name: str) -> str:
    """Where the pixel counts of the image `name` lie below the run folder."""
    return map_file(name).replace("maps/", f"{COUNTS}/", 1).removesuffix(".png") + ".counts"


class Recorder:
    """Keeps what one detector says of the images of a dataset."""

    def __init__(
        self,
        detector: Detector,
        dataset: Dataset,
        records: dict[str, ImageRecord],
        writer: Record,
        options: JudgingOptions,
        beside: ByCategory | None = None,
    ) -> None:
        self._detector, self._dataset, self._records = detector, dataset, records
        self.writer, self._options, self._beside = writer, options, beside
        self._has_pixels = dataset.info.level != "image"

    def is_done(self, file: ImageFile) -> bool:
        """Whether score and pixel counts of exactly this image and mask are on record."""
        if not self.writer.is_done(file):
            return False
        folder = self.writer.folder
        if self._options.keep_maps and not is_sound_map(folder / map_file(file.name)):
            return False
        if not self._has_pixels:
            return True
        facts = read_facts(folder / counts_file(file.name))
        if facts is None or facts.get("truth") != truth_fingerprint(self._records[file.name]):
            return False
        return not facts["known"] or is_sound(folder / counts_file(file.name))

    def save(self, item: Decoded, prediction: Prediction | str, seconds: float) -> Entry:
        """The entry of one image, its files in place; runs in a thread. A failing folder ends the evaluation."""
        if isinstance(prediction, str):
            return failed_entry(item, prediction)
        try:
            return self._save_judged(item, prediction, seconds)
        except RunFolderError:
            raise
        except (HeadclipError, ValueError, MemoryError) as error:
            return failed_entry(item, f"{type(error).__name__}: {error}")

    def _save_judged(self, item: Decoded, prediction: Prediction, seconds: float) -> Entry:
        assert item.pixels is not None
        if not is_finite(prediction):
            return failed_entry(item, NOT_FINITE)
        name, size = item.file.name, (item.pixels.shape[0], item.pixels.shape[1])
        if self._has_pixels:
            self._count(name, size, prediction.anomaly_map)
        levels = quantise(prediction.anomaly_map) if self._options.keep_maps else None
        if levels is not None:
            write_atomic(self.writer.folder, map_file(name), encode_map(levels))
        return judged_entry(item, prediction, seconds, levels)

    def _count(self, name: str, size: Size, anomaly_map: NDArray[np.float32]) -> None:
        record = self._records[name]
        output = (anomaly_map.shape[0], anomaly_map.shape[1])
        truth = read_truth(record, self._dataset.info.mask_threshold, size, output)
        state = image_state(anomaly_map, truth.mask) if truth.known else None
        facts = {"note": truth.note, "truth": truth_fingerprint(record)}
        write_atomic(self.writer.folder, counts_file(name), encode_counts(state, facts))

    def result(self, file: ImageFile) -> JudgedImage:
        """What is on record of an image."""
        record = self._records[file.name]
        name = self._dataset.relative(record.path)
        if record.label is None:
            return JudgedImage(record, name, "unlabelled", reason="no label: cannot be scored")
        row = self.writer.entries[file.name].row
        if row.status == "failed":
            return JudgedImage(record, name, "failed", reason=row.reason)
        kept = self.writer.folder / row.map if row.map is not None else None
        judge = partial(self._judge_again, record) if kept is None else partial(read_map, kept)
        if not self._has_pixels:
            return JudgedImage(record, name, "ok", row.score, load_map=judge)
        counts = self.writer.folder / counts_file(file.name)
        facts = read_facts(counts) or {"known": True, "note": None}  # a file that has gone is an error when read
        load = partial(read_counts, counts) if facts["known"] else None
        return JudgedImage(record, name, "ok", row.score, facts["note"], load, judge)

    def _judge_again(self, record: ImageRecord) -> NDArray[np.float32]:
        """The map of a single image, for the few whose pictures are shown.

        Raises:
            ImageError: the image cannot be read any more.
        """
        if self._beside is not None:
            self._beside.enter(record.category)
        pixels = decode(record.path, max_pixels=self._options.max_pixels)
        return predict_records(self._detector, [pixels], [record])[0].anomaly_map


def predict_records(
    detector: Detector, arrays: list[NDArray[np.uint8]], records: list[ImageRecord]
) -> list[Prediction]:
    """Predictions of images, told what each shows where the method puts that into words."""
    if not detector.method.uses_category:
        return detector.predict_arrays(arrays)
    return detector.predict_arrays(arrays, [record.category or "object" for record in records])


def to_resolution(detector: Detector, pixels: NDArray[np.uint8], resolution: Resolution) -> NDArray[np.uint8]:
    """Pixels whose map has the wanted resolution: for "tower", resized as the detector itself would do it."""
    if resolution == "image":
        return pixels
    size = detector.input_size(pixels.shape[0], pixels.shape[1])
    return resize(pixels, size).permute(1, 2, 0).numpy()  # (3, h, w) -> (h, w, 3)
