"""What the methods of an evaluation compare each image with: nothing, unlabelled images, or a few normal ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from headclip.data.datasets import Dataset
from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.errors import InputError
from headclip.evaluation.peers import PeerOptions
from headclip.evaluation.shots import ShotOptions, Shots, take_shots
from headclip.inference.detector import Detector


@dataclass(frozen=True)
class Compared:
    """At most one of them.

    Raises:
        InputError: both.
    """

    peers: PeerOptions | None = None
    shots: ShotOptions | None = None

    def __post_init__(self) -> None:
        if self.peers is not None and self.shots is not None:
            raise InputError(
                "--shots compares with normal images, and --peers with unlabelled ones; leave one of them out"
            )

    def facts(self, label: str, detector: Detector) -> dict[str, Any]:
        """What a detector's settings say of it, beside its own; nothing where it does not compare."""
        if self.peers is not None and detector.method.takes_peers:
            return {"peers": {"images": self.peers.images, "weight": self.peers.weight}}
        if self.shots is not None and self.shots.of(label) and detector.method.takes_references:
            return {"shots": {"images": self.shots.of(label), "seed": self.shots.seed}, "references": []}
        return {}

    def all_facts(self, detectors: Mapping[str, Detector]) -> dict[str, dict[str, Any]]:
        """By label, what each detector says of itself, with what it compares with."""
        return {label: detector.describe() | self.facts(label, detector) for label, detector in detectors.items()}

    def split(
        self, datasets: Sequence[Dataset], max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> tuple[list[Dataset], list[Shots | None]]:
        """The datasets without the images that are taken as shots, and the shots of each.

        Raises:
            InputError: a dataset has too few normal images.
        """
        if self.shots is None:
            return list(datasets), [None] * len(datasets)
        pairs = [take_shots(dataset, self.shots, max_pixels) for dataset in datasets]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def check(self, detectors: Mapping[str, Detector]) -> None:
        """Raise InputError where no method takes shots, one needs more, or a detector has normal images of its own, or
        thresholds, which hold for what it compared with so far."""
        compares = self.peers is not None or self.shots is not None
        if compares and any(getattr(detector, "criteria", None) is not None for detector in detectors.values()):
            raise InputError("an evaluation with peers or shots judges by no thresholds; leave the calibration out")
        if self.shots is None:
            return
        if any(detector.references for detector in detectors.values()):
            raise InputError("--shots takes normal images from the data, and --reference brings some; leave one out")
        takers = {label: each.method for label, each in detectors.items() if each.method.takes_references}
        if not takers:
            raise InputError(f"--shots: {', '.join(detectors)} cannot use normal images; leave it out")
        for label, method in takers.items():
            if 0 < (count := self.shots.of(label)) < method.least_references:
                raise InputError(f"--shots {count}: {label} needs at least {method.least_references}")

    @contextmanager
    def left_alone(self, detectors: Mapping[str, Detector]) -> Iterator[None]:
        """Afterwards the detectors compare with no images of a dataset, whatever happens in between.

        Raises:
            InputError: see `check`.
        """
        self.check(detectors)
        try:
            yield
        finally:
            for detector in detectors.values():
                if self.peers is not None:
                    detector.set_peers(None)
                if self.shots is not None:
                    detector.set_references(None)
