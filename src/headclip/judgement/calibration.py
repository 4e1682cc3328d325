"""A calibration: thresholds, what they promise, and for which model; a small JSON file.

It travels on its own (`headclip calibrate --out`), in run.json of the run it judged, or in the metadata of a
checkpoint. It holds for one model alone: the hashes of backbone and checkpoint, the method's configuration and the
input size are in it, and another model is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticSerializationError

from headclip.errors import InputError
from headclip.files import load_json, write_atomically
from headclip.judgement.conformal import share_text
from headclip.judgement.regions import RegionRules
from headclip.judgement.verdicts import Criteria, VolumeRule
from headclip.same_settings import differing, valued
from headclip.version import __version__

FORMAT = "headclip-calibration"
FORMAT_VERSION = 1
MAX_BYTES = 16 << 20  # of a calibration file; what is written has some KB
# What does not change scores, or changes them in the last digits only.
_FREE = frozenset(
    {
        "backbone",  # the name; the hash counts
        "batch_size",
        "calibration",
        "checkpoint",
        "checkpoint_data",
        "device",
        "device_name",
        "engine",  # an exported model was checked against the one that it was made of
        "evaluation",
        "export",
        "patch",  # follows from the backbone
        "precision",
        "threads",
        "versions",
    }
)


class CalibrationError(InputError):
    """A calibration cannot be read, or belongs to another model."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Threshold(_Frozen):
    """One threshold with its review band; a value above a number is on its far side."""

    threshold: float = Field(description="Alarms are raised above this value.")
    low: float = Field(description="Lower end of the review band; ok up to here.")
    high: float | None = Field(description="Upper end of the review band; null: the images are too few to know it.")
    images: int = Field(ge=1, description="Images that it was calibrated on.")
    expected: float | None = Field(
        default=None, description="Promised share of normal images above the threshold, on average; null: none."
    )


class Terms(_Frozen):
    """What was asked for."""

    false_alarms: float | None = Field(default=None, description="Promised share of false alarms.")
    confidence: float | None = Field(default=None, description="null: the expected rate is promised.")
    contaminated: float = Field(default=0.0, description="Share of the images that may not be normal.")
    objective: Literal["f1", "cost"] | None = Field(default=None, description="What labelled thresholds optimise.")
    pixel_objective: Literal["f1"] | None = Field(
        default=None, description="What the pixel threshold optimises, where masks were given; null: it is conformal."
    )
    cost_miss: float | None = Field(default=None, description="Cost of a missed defect.")
    cost_false_alarm: float | None = Field(default=None, description="Cost of a false alarm.")
    prevalence: float | None = Field(default=None, description="Share of defects on the line; null: of the images.")


class Calibration(_Frozen):
    """Thresholds for one model. Build them with `headclip.judgement.calibrate`."""

    format: Literal["headclip-calibration"] = "headclip-calibration"
    version: int = FORMAT_VERSION
    kind: Literal["conformal", "labelled", "synthetic"] = Field(
        description="conformal: promises hold for images like the calibration's. labelled: optimal on labels, no "
        "promise. synthetic: from rendered normal images; a starting point that promises nothing on real ones."
    )
    terms: Terms
    image: Threshold = Field(description="On image scores, in [0, 1].")
    pixel: Threshold | None = Field(
        default=None,
        description="On map values, in [0, 1]: the promise is that no more than its share of normal images is ok "
        "by its score and shows a region; with terms.pixel_objective there is none. null: no maps were at hand.",
    )
    alarm_pixel: Threshold | None = Field(
        default=None,
        description="The same for images that are not ok: the promise is that no more than its share of normal images "
        "would show more than 2 % of its pixels. null: as in any image.",
    )
    volume: Threshold | None = Field(
        default=None,
        description="On scores of volumes, each the mean of the highest of its slices (volume_share of them): the "
        "promise of image, about volumes. null: no volumes were at hand, or too few for the promise.",
    )
    volume_share: float | None = Field(default=None, gt=0, le=1, description="See volume.")
    min_area: int = Field(default=1, ge=1, description="Smallest region in pixels that the pixel threshold assumes.")
    ignore_border: int = Field(default=0, ge=0, description="Frame in pixels that is not looked at.")
    model: dict[str, Any] = Field(description="What the detector says of itself; see `Detector.describe`.")
    data: dict[str, Any] = Field(
        default_factory=dict,
        description="Which images: source, count, failed, labels. copies: left out as copies of others, references: as "
        "the method's own reference images, near_copies: images that look like copies and were kept; null: the files "
        "were not at hand. left_out: reference images that were judged beside the other ones, and kept. files: size in "
        "bytes and start of the SHA-256 of each image file. value: what the image threshold reaches on the labelled "
        "images; pixels: the same of the pixel threshold.",
    )
    created: str = Field(default_factory=lambda: datetime.now().astimezone().isoformat(timespec="seconds"))
    versions: dict[str, str] = Field(default_factory=lambda: {"headclip": __version__})

    @model_validator(mode="after")
    def _known_version(self) -> Calibration:
        if self.version > FORMAT_VERSION:
            raise ValueError(f"version {self.version} was written by a newer headclip; update to read it")
        return self

    @property
    def rules(self) -> RegionRules:
        """Which regions the pixel threshold assumes to count."""
        return RegionRules(self.min_area, self.ignore_border)

    def criteria(self, *, pixel_mm: float | None = None) -> Criteria:
        """The thresholds to judge by."""
        image, volume = self.image, None
        if self.volume is not None and self.volume_share is not None:
            volume = VolumeRule(self.volume.threshold, self.volume.low, self.volume.high, self.volume_share)
        return Criteria(
            image.threshold,
            image.low,
            image.high,
            pixel=None if self.pixel is None else self.pixel.threshold,
            rules=self.rules,
            pixel_mm=pixel_mm,
            source=self.kind,
            alarm_pixel=None if self.alarm_pixel is None else self.alarm_pixel.threshold,
            volume=volume,
        )

    def mismatch(self, settings: Mapping[str, Any]) -> list[str]:
        """In what a detector (`Detector.describe()`) differs from the one calibrated, a phrase each; [] if it fits."""
        before, now = self.model, model_facts(settings)
        return [
            f"{name.replace('_', ' ')} {_short(valued(before, name))} there, {_short(valued(now, name))} here"
            for name in differing(before, now)
            if name.partition(".")[0] not in _FREE or name.startswith("backbone.")
        ]

    def check_fits(self, settings: Mapping[str, Any], name: str = "the calibration") -> None:
        """Raise CalibrationError where it was made for another model."""
        changed = self.mismatch(settings)
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            advice = "calibrate this one with `headclip calibrate`"
            if any(text.startswith("peers") for text in changed):
                advice = "judge images believed normal with the same --peers, and give that run to `headclip calibrate`"
            elif any(text.startswith("references") for text in changed):
                advice = "give `headclip calibrate` and this command the same --reference"
            raise CalibrationError(f"{name} was made for another model ({'; '.join(changed[:3])}{more}); {advice}")

    def describe(self) -> str:
        """One sentence on what the thresholds are worth."""
        return _SENTENCES[self.kind](self)

    def to_json(self) -> str:
        """The content of a calibration file."""
        return self.model_dump_json(indent=2) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        write_atomically(Path(path), self.to_json(), follow=True)

    @classmethod
    def from_values(cls, values: Any, name: str = "the calibration") -> Calibration:
        """From parsed JSON.

        Raises:
            CalibrationError: not a calibration, or one of a newer format.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise CalibrationError(f"{name} is not a calibration; `headclip calibrate --out FILE.json` writes them")
        try:
            found = cls.model_validate(dict(values))
            found.to_json(), found.describe()
            return found
        except (OverflowError, PydanticSerializationError) as error:
            raise CalibrationError(f"{name} is damaged: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise CalibrationError(f"{name} is damaged{f' at {where}' if where else ''}: {first['msg']}") from error

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration file.

        Raises:
            CalibrationError: it is missing, unreadable or not a calibration.
        """
        try:
            values = load_json(Path(path), MAX_BYTES)
        except OSError as error:
            raise CalibrationError(f"cannot read the calibration {path}: {error.strerror}; check the path") from error
        except ValueError as error:
            raise CalibrationError(
                f"{path} is not a calibration; `headclip calibrate --out FILE.json` writes them"
            ) from error
        return cls.from_values(values, str(path))


def model_facts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a calibration keeps of `Detector.describe()`: all but what another calibration would change."""
    kept = {key: value for key, value in settings.items() if key not in ("calibration", "evaluation")}
    for key in ("backbone", "checkpoint"):
        if isinstance(kept.get(key), str):
            kept[key] = _placeless(kept[key])
    if isinstance(kept.get("references"), list):
        kept["references"] = sorted(_placeless(str(item)) for item in kept["references"])
    return json.loads(json.dumps(kept))


def _placeless(name: str) -> str:
    """A file's name alone: calibrations travel, and folders differ."""
    return Path(name).name if Path(name).is_absolute() else name


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 20 else text[:12] + "..."


def _conformal(calibration: Calibration) -> str:
    terms, images = calibration.terms, calibration.image.images
    rate = share_text(terms.false_alarms or 0.0)
    sure = "on average" if terms.confidence is None else f"with {terms.confidence:.0%} confidence"
    impure = f", of which up to {share_text(terms.contaminated)} may not be" if terms.contaminated else ""
    band = (
        "" if calibration.image.high is not None else "; too few images for a verdict of defect: all alarms are review"
    )
    left_out = calibration.data.get("left_out")
    what, about = f"{images:,} normal images", "At most"
    if isinstance(left_out, int):  # reference images, whose scores are not quite those of images to come
        rest = left_out < images
        what = f"{what}, {left_out:,} of them references" if rest else f"{images:,} reference images"
        what, about = f"{what}, each judged beside the others", "About"
    return f"{about} {rate} of normal images raise an alarm, {sure}; calibrated on {what}{impure}{band}."


def _labelled(calibration: Calibration) -> str:
    goal = "F1" if calibration.terms.objective == "f1" else "expected cost"
    masks = "" if calibration.pixel is None else f", of pixels the best F1 on {calibration.pixel.images:,} with masks"
    pixels = masks if calibration.terms.pixel_objective else ""
    return f"Best {goal} on {calibration.image.images:,} labelled images{pixels}; no promise on others."


def _synthetic(calibration: Calibration) -> str:
    return (
        f"Default from {calibration.image.images:,} rendered normal images: a starting point that promises nothing on "
        "real ones. Calibrate on your own with `headclip calibrate`."
    )


_SENTENCES = {"conformal": _conformal, "labelled": _labelled, "synthetic": _synthetic}
