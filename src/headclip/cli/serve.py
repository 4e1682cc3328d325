"""`headclip serve`: runs in the browser, and images judged on request."""

from __future__ import annotations

import ipaddress
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from headclip.cli import judging_options, options, reference_options
from headclip.cli.common import EXIT_FAILED, Device, Precision, output

TOKEN_VARIABLE = "HEADCLIP_TOKEN"
_MEBIBYTE = 1024 * 1024
_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def serve(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Folders of headclip predict to show.")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Load a model: the REST API, and a page that judges dropped images.")
    ] = False,
    watch: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Judge images as they appear there, into --out.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="RUN", help="Where --watch writes.")] = None,
    on_alarm: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="With --watch: run this for each image that is not ok; {image}, {score} and {verdict} in it stand for "
            "what was found.",
        ),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep dropped images and their results there.")
    ] = None,
    calibration: judging_options.CalibrationFile = None,
    threshold: judging_options.Threshold = None,
    false_alarms: reference_options.FalseAlarms = None,
    pixel_threshold: judging_options.PixelThreshold = None,
    min_area: judging_options.MinArea = None,
    ignore_border: judging_options.IgnoreBorder = None,
    pixel_mm: judging_options.PixelMm = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="0 takes a free one.")] = 8700,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name under which the server may be addressed. Repeatable."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar=TOKEN_VARIABLE, metavar="TOKEN", help="What clients must send as bearer token."),
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, metavar="MIB", help="Refuse larger bodies of requests, in MiB.")] = 64,
    max_pixels: Annotated[int, typer.Option(min=64, metavar="N", help="Refuse larger images.")] = 50_000_000,
    max_images: Annotated[int, typer.Option(min=1, metavar="N", help="Refuse more images in one request.")] = 64,
    queue: Annotated[int, typer.Option(min=1, metavar="N", help="Images that may wait for the model.")] = 128,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="S", help="Seconds for a request.")] = 30.0,
    backbone: options.Backbone = "embedded",
    checkpoint: options.OneCheckpoint = None,
    method: options.OneMethod = None,
    category: options.Category = None,
    setting: options.Settings = None,
    reference: options.Reference = None,
    roi: options.RegionOfInterest = None,
    device: options.OnDevice = Device.auto,
    precision: options.InPrecision = Precision.auto,
    image_size: options.ImageSize = None,
    batch_size: options.BatchSize = None,
) -> None:
    """Open runs in the browser, and judge images on request.

    With RUN the pages of these runs; with --live also the REST API (POST /v1/predict, described at /api) and a page
    that takes dropped images; with --watch a folder that is judged as it fills. Ctrl-C finishes what is in flight.
    """
    _check_extra()
    _check_usage(runs or [], live, watch, out, on_alarm, keep, token)
    reference_options.check_false_alarms(false_alarms, reference, calibration, threshold, elsewhere=False)
    from headclip.judgement.choosing import choose
    from headclip.web.app import AppOptions, create_app
    from headclip.web.limits import Limits
    from headclip.web.live import LiveRun
    from headclip.web.server import allowed_hosts, open_socket, run_server
    from headclip.web.watch import Watch

    limits = Limits(max_body * _MEBIBYTE, max_pixels, max_images, timeout, queue)
    rule = judging_options.judging(calibration, threshold, pixel_threshold, min_area, ignore_border, pixel_mm)
    watched = None
    if watch is not None and out is not None:  # mistakes show before the model is loaded
        watched = Watch(watch, out, max_pixels=max_pixels, on_alarm=on_alarm)
    listening = open_socket(host, port)  # before the model is loaded, which takes longer
    detector = None
    if live or watch:
        from headclip.cli.models import load_detector

        arguments = options.model_arguments(
            backbone, checkpoint, method, category, setting, reference, device, precision, image_size, batch_size
        )
        detector = load_detector(arguments | {"roi": roi}, quiet=False)
        rule = reference_options.judging_beside(rule, detector, reference, false_alarms, max_pixels, quiet=False)
    app = create_app(
        AppOptions(
            detector=detector,
            runs=tuple(runs or ()),
            judging=rule,
            live=LiveRun(keep, max_pixels=max_pixels, patience=timeout) if live else None,
            watch=watched,
            limits=limits,
            token=token,
            hosts=allowed_hosts(host, allow_host or []),
        )
    )
    lines = _greeting(host, listening.getsockname()[1], token, detector is not None)
    if detector is not None:  # runs keep the thresholds that they were judged by, which may be others
        note = choose(rule, detector.describe()).note or "no verdicts, since no threshold is known."
        lines.append(f"New pictures are judged so: {note}")
    if watch is not None:
        lines.append(f"Watching {watch}, results in {out}")

    def say() -> None:
        for line in [*lines, "Ctrl-C stops it"]:
            output().print(line, soft_wrap=True)

    try:
        run_server(app, listening, grace=timeout, ready=say)
    finally:
        if app.state.left_open:  # the server's log says what could not be written
            raise typer.Exit(EXIT_FAILED)


def _check_extra() -> None:
    from headclip.errors import InputError

    missing = [name.replace("_", "-") for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"headclip serve needs {', '.join(missing)}; pip install 'headclip[serve]'")


def _check_usage(
    runs: list[Path],
    live: bool,
    watch: Path | None,
    out: Path | None,
    on_alarm: str | None,
    keep: Path | None,
    token: str | None,
) -> None:
    from headclip.errors import InputError

    if not (runs or live or watch):
        raise InputError("nothing to serve; name a RUN of headclip predict, or add --live or --watch FOLDER --out RUN")
    if (watch is None) != (out is None):
        raise InputError("--watch FOLDER and --out RUN belong together")
    if on_alarm is not None and watch is None:
        raise InputError("--on-alarm is about images that appear in a folder; add --watch FOLDER --out RUN")
    if keep is not None and not live:
        raise InputError("--keep is about images dropped on the page; add --live")
    if token is not None and not (
        len(token) >= 8 and all("!" <= sign <= "~" and sign not in ';,"\\' for sign in token)
    ):
        raise InputError("--token: at least 8 letters, digits or signs, without spaces, quotes, commas and semicolons")


def _greeting(host: str, port: int, token: str | None, model: bool) -> list[str]:
    from headclip.web.server import is_loopback

    address = _address(host, port)
    lines = [f"Open {address}/{f'login?token={token}' if token else ''}"]
    if model:
        lines.append(f"REST API: {address}/api")
    if not is_loopback(host) and token is None:
        lines.append(f"note: anybody in the network can use this server; set --token or {TOKEN_VARIABLE}")
    return lines


def _address(host: str, port: int) -> str:
    """What to type into a browser: a wildcard address is none."""
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if parsed.is_unspecified:
        return f"http://{socket.gethostname()}:{port}"
    return f"http://[{host}]:{port}" if parsed.version == 6 else f"http://{host}:{port}"
