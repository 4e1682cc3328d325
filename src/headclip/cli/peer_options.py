"""Options for comparing the images of a run with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli.progress import plain_bars

if TYPE_CHECKING:
    from headclip.data.discover import ImageSet
    from headclip.inference.detector import Detector

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


def check_peers(peers: int | None, *, elsewhere: bool, tile: bool = False) -> None:
    """Raise InputError for what images cannot be compared in."""
    from headclip.errors import InputError

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
    """Let the detector compare images with that many of them; what run.json shall keep of it.

    earlier: run.json of a run that goes on.

    Raises:
        InputError: fewer than two can be read, those of an earlier call have gone, or the method cannot compare.
    """
    from headclip.errors import InputError
    from headclip.inference.detector import Detector
    from headclip.inference.peers import pick_peers

    if not isinstance(detector, Detector):
        raise InputError("--peers: an exported model judges each image by itself; leave it out")
    with plain_bars(quiet) as show:
        chosen = pick_peers(
            images.files,
            peers,
            earlier,
            max_pixels=max_pixels,
            progress=lambda done, total: show("reading images to compare with", done, total),
        )
        detector.set_peers(list(chosen.values()), weight)
    return {"peers": peers, "peer_names": list(chosen)}
