"""Options for comparing the images of a run with each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli.progress import plain_bars

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from headclip.data.discover import ImageSet
    from headclip.inference.detector import Detector

WEIGHT = 1.0
Peers = Annotated[
    int | None,
    typer.Option(
        "--peers",
        min=2,
        metavar="N",
        help="The images show one kind of thing: compare each with N others too, e.g. 32, chosen at random.",
    ),
]
PeerWeight = Annotated[
    float, typer.Option("--peer-weight", min=0.0, metavar="X", help="How much that comparison counts.")
]


def check_peers(
    peers: int | None, weight: float, *, elsewhere: bool, reference: Path | None, tile: bool = False
) -> None:
    """Raise InputError for what does not go together."""
    from headclip.errors import InputError

    if peers is None and weight != WEIGHT:
        raise InputError("--peer-weight says how much --peers counts; add --peers, e.g. --peers 32")
    if peers is not None and reference is not None:
        raise InputError(
            "--reference compares with normal images, and --peers with unlabelled ones; leave one of them out"
        )
    if peers is not None and tile:
        raise InputError("--peers compares whole images, and --tile judges their parts; leave one of them out")
    if peers is not None and elsewhere:
        raise InputError("--peers: images are compared on one machine; leave --engine ray out, or use --shard")


def compare_with_peers(
    detector: Detector,
    images: ImageSet,
    peers: int,
    weight: float,
    earlier: Mapping[str, Any] | None,
    max_pixels: int,
    quiet: bool,
) -> dict[str, Any]:
    """Let the detector compare images with that many of them; what run.json shall keep of it among the arguments.

    earlier: run.json of a run that goes on, with the ones that it began with.

    Raises:
        InputError: fewer than two can be read, those of an earlier call have gone, or the method cannot compare.
    """
    from headclip.errors import InputError
    from headclip.inference.detector import Detector
    from headclip.inference.peers import pick_peers

    if not isinstance(detector, Detector):
        raise InputError("--peers: what an exported model compares with is fixed in it; leave it out")
    before = (earlier or {}).get("arguments") or {}
    known = before.get("peer_names") or [] if before.get("peers") == peers else []
    names: list[str] = []

    def chosen() -> Iterator[NDArray[np.uint8]]:
        for name, pixels in pick_peers(images.files, peers, known, max_pixels=max_pixels):
            names.append(name)
            show("reading images to compare with", len(names), len(known) or min(peers, len(images)))
            yield pixels

    with plain_bars(quiet) as show:
        detector.set_peers(chosen(), weight)
    return {"peers": peers, "peer_names": names}
