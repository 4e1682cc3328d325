"""What `headclip calibrate` says of what it found."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headclip.cli.common import output

if TYPE_CHECKING:
    from headclip.data.discover import ImageFile
    from headclip.judgement.calibrate import Repeated
    from headclip.judgement.calibration import Calibration
    from headclip.judgement.conformal import Promise
    from headclip.judgement.scored import Scored
    from headclip.runs.run import Run


def print_calibration(
    found: Calibration, promise: Promise, scored: Scored, out: Path | None, checkpoint: Path | None
) -> None:
    """The thresholds, what they promise, and what more images would give; `out`, `checkpoint`: where they went."""
    console = output()
    image, pixel = found.image, found.pixel
    console.print(found.describe(), soft_wrap=True)
    console.print(f"Image threshold {image.threshold:.6f}: an alarm above it", soft_wrap=True)
    if image.high is None:
        console.print(f"Verdicts: ok up to {image.low:.6f}, above it review", soft_wrap=True)
    elif image.high > image.low:
        console.print(
            f"Verdicts: ok up to {image.low:.6f}, review up to {image.high:.6f}, above it defect", soft_wrap=True
        )
    else:
        console.print(f"Verdicts: ok up to {image.low:.6f}, above it defect", soft_wrap=True)
    if pixel is not None:
        console.print(f"Pixel threshold {pixel.threshold:.6f}: a region is where the map is above it", soft_wrap=True)
        lower = found.criteria().alarm_pixel
        if lower is not None and lower < pixel.threshold:
            console.print(f"  {lower:.6f} in images that are not ok, to show more of their defects", soft_wrap=True)
    _print_volumes(found, scored, promise)
    masked = found.data.get("pixels")
    if masked is not None:
        console.print(
            f"  best F1 of pixels {masked['value']:.3f} (precision {masked['precision']:.3f}, recall "
            f"{masked['recall']:.3f}); normal images may show regions, nothing is promised about them",
            soft_wrap=True,
        )
    for what, value in (("image", image.threshold), ("pixel", 0.0 if pixel is None else pixel.threshold)):
        if value >= 1.0:
            console.print(
                f"The {what} threshold is the highest value there is: it never raises an alarm", soft_wrap=True
            )
    if found.kind == "conformal":
        _print_tighter(found, promise, scored)
    for name, reason in list(scored.failed.items())[:10]:
        console.print(f"  not judged: {name}: {reason}", soft_wrap=True)
    for path in (out, checkpoint):
        if path is not None:
            console.print(f"Calibration: {path}", soft_wrap=True)


def _print_volumes(found: Calibration, scored: Scored, promise: Promise) -> None:
    """The threshold of volumes, or how many it would take."""
    from headclip.judgement.conformal import images_needed, share_text

    volume, count = found.volume, len(scored.volumes)
    if volume is not None:
        upper = "above it review" if volume.high is None else f"above {volume.high:.6f} defect"
        rate, asked = volume.expected or 0.0, found.terms.false_alarms or 0.0
        words = "the same promise about volumes" if rate <= asked else f"at most {share_text(rate)} of normal volumes"
        text = f"Volume threshold {volume.threshold:.6f}, {upper}: {words}, from {count:,} of them"
        output().print(text, soft_wrap=True)
    elif count and found.kind == "conformal":
        output().print(
            f"No threshold of volumes: {count:,} cannot keep the promise, {images_needed(promise):,} could",
            soft_wrap=True,
        )


def print_repeated(repeated: Repeated) -> None:
    """Images that are no independent looks at the line, and what was done about them."""
    console = output()

    def show(words: str, pairs: list[tuple[str, str]], sign: str = "=") -> None:
        if not pairs:
            return
        console.print(words.format(len(pairs)), soft_wrap=True)
        for first, second in pairs[:5]:
            console.print(f"  {first}{f' {sign} {second}' if second else ''}", soft_wrap=True)
        if len(pairs) > 5:
            console.print(f"  and {len(pairs) - 5:,} more", soft_wrap=True)

    show("Exact copies of other images, which count once with them: {:,}", list(repeated.copies.items()))
    show("Reference images of the method itself, left out: {:,}", [(name, "") for name in repeated.references])
    near = "Images that look and score like others: {:,}; if they show one part twice, the promise counts too many"
    show(near, list(repeated.near), "~")


def _print_tighter(found: Calibration, promise: Promise, scored: Scored) -> None:
    """What more images would give, and which of these to look at."""
    from dataclasses import replace

    from headclip.judgement.conformal import images_needed, share_text, suspects_of, tighter_promises

    console = output()
    kept = replace(promise, false_alarms=found.terms.false_alarms or promise.false_alarms)
    given = len(scored.scores)
    tighter = tighter_promises(kept)
    able = [rate for rate, images in tighter.items() if images <= given]
    if able:
        console.print(f"  these images could promise {share_text(min(able))} as well", soft_wrap=True)
    for rate, images in [item for item in tighter.items() if item[1] > given][:3]:
        console.print(f"  {share_text(rate)} would need {images:,} images", soft_wrap=True)
    closing = images_needed(replace(kept, confidence=kept.band_confidence))
    if found.image.high is None:
        console.print(f"  verdicts of defect would need {closing:,} images", soft_wrap=True)
    elif kept.confidence is None:
        console.print(f"  for the same with {kept.band_confidence:.0%} confidence, add --confidence", soft_wrap=True)
    suspects = suspects_of(len(scored.scores), promise.contaminated)
    if suspects:
        text = f"If {suspects} of them are not normal, it is probably these; without them the threshold drops:"
        console.print(text, soft_wrap=True)
        for name, score in scored.highest(min(suspects, 10)):
            console.print(f"  {score:.6f} {name}", soft_wrap=True)


def warn_of_training_images(files: Sequence[ImageFile], settings: Mapping[str, Any]) -> None:
    """Say so where the model was trained on some of the images: it is surer of them than of those to come."""
    from headclip.data.hashing import TrainingHashes
    from headclip.files import content_hash

    learnt = set(TrainingHashes.from_metadata(settings.get("checkpoint_data") or {}).files.values())
    seen = [file.name for file in files if content_hash(file.path) in learnt] if learnt else []
    if seen:
        logging.getLogger(__name__).warning(
            "the model was trained on %d of these %d images, e.g. %s: false alarms on others will be more than what is "
            "promised; calibrate with images that it has not seen",
            *(len(seen), len(files), seen[0]),
        )


def warn_of_slices(run: Run) -> None:
    """Say so where the images are slices of few volumes: those of one are alike, and promises are about others."""
    from headclip.runs.volumes import read_volumes

    slices, volumes = len(run.ok), len(read_volumes(run.folder).volumes)
    if volumes:
        logging.getLogger(__name__).warning(
            "%d slices of %d volume(s): slices of one volume are alike, so that the promise on images holds for slices "
            "of these volumes and not for other volumes or patients",
            *(slices, volumes),
        )
