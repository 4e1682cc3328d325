"""The figures of an inspection as files and as one page that opens from disk with no network."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from headclip.data.levels import quantise
from headclip.figures.canvas import data_uri, draw
from headclip.figures.heads import contrast_figure, heads_figure
from headclip.figures.layers import layers_figure, taps_figure
from headclip.figures.split import split_figure
from headclip.figures.words import word_text, words_figure
from headclip.files import write_atomically
from headclip.inspection import ImageInspection, ModelInspection, plain
from headclip.runs.overlay import LevelHistogram, Scale, resize_map, tint
from headclip.templates import page_template
from headclip.version import __version__

FORMAT = "headclip-inspection-1"
JSON_FILE, PAGE_FILE = "inspect.json", "inspect.html"
_SIDE = 720  # pixels of the longest side of pictures in the page
_DPI = 220
_PIXELS = frozenset({"image", "anomaly_map"})


@dataclass
class Pictured:
    """One image in the page. figures: title -> PNG; picture, normalised: the image and its map, reduced."""

    seen: ImageInspection
    picture: Image.Image
    small_map: NDArray[np.float32]
    figures: dict[str, bytes] = field(default_factory=dict)
    overlay: str = ""


class InspectionWriter:
    """Draws as inspections come, so that few images are in memory, and writes the page at the end.

    Args:
        folder: where the files go; existing ones of the same names are replaced.
    """

    def __init__(self, folder: Path, model: ModelInspection) -> None:
        self.folder, self.model = folder, model
        self.histogram = LevelHistogram()
        self.images: list[Pictured] = []
        self.facts: list[dict[str, Any]] = []
        self.files: list[str] = []
        self.model_figures: dict[str, bytes] = {}
        if model.heads is not None:
            heads = model.heads
            self.model_figures["heads"] = self._draw("head_weights.png", lambda: heads_figure(heads))
        if model.prompts is not None:
            prompts = model.prompts
            self.model_figures["words"] = self._draw("prompt_words.png", lambda: words_figure(prompts))

    def add(self, seen: ImageInspection) -> None:
        """Draw what is known of one image."""
        name = f"{len(self.images) + 1:02d}-{_plain_name(seen.name)}"
        picture = Image.fromarray(seen.image)
        picture.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
        shown = Pictured(seen, picture, resize_map(seen.anomaly_map, picture.size))
        layers = seen.layers
        shown.figures["split"] = self._draw(f"score-{name}.png", lambda: split_figure(seen.split))
        if layers is not None:
            shown.figures["layers"] = self._draw(f"layers-{name}.png", lambda: layers_figure(seen))
            figure = f"heads-{name}.png"
            shown.figures["contrast"] = self._draw(figure, lambda: contrast_figure(layers.head_contrast, layers.layers))
            if len(layers.taps) > 1:
                shown.figures["taps"] = self._draw(f"taps-{name}.png", lambda: taps_figure(layers, seen.image))
        self.histogram.update(quantise(seen.anomaly_map))
        facts = plain(seen, _PIXELS)
        facts["height"], facts["width"] = seen.image.shape[:2]
        self.facts.append(facts)
        shown.seen = _without_pixels(seen)
        self.images.append(shown)

    def finish(self, left_out: Mapping[str, str], command: str = "") -> Path:
        """Write overlays, numbers and the page; returns the page."""
        scale = self.histogram.scale()
        for number, shown in enumerate(self.images, start=1):
            tinted = tint(shown.picture, scale.normalise(shown.small_map))
            name = f"map-{number:02d}-{_plain_name(shown.seen.name)}.png"
            write_atomically(self.folder / name, _encoded(tinted, "PNG"))
            self.files.append(name)
            shown.overlay = _jpeg_uri(tinted)
        content = {
            "format": FORMAT,
            "headclip": __version__,
            "command": command,
            "model": plain(self.model),
            "scale": plain(scale),
            "images": self.facts,
            "left_out": [{"name": name, "reason": reason} for name, reason in left_out.items()],
            "files": [*self.files, PAGE_FILE],
        }
        text = json.dumps(content, default=str) + "\n"  # indented, each number would take a line
        write_atomically(self.folder / JSON_FILE, text)
        write_atomically(self.folder / PAGE_FILE, self._page(scale, left_out))
        return self.folder / PAGE_FILE

    def _draw(self, name: str, make: Any) -> bytes:
        self.files.append(name)
        return draw(make, self.folder / name, _DPI)

    def _page(self, scale: Scale, left_out: Mapping[str, str]) -> str:
        model = self.model
        entries = [
            {
                "name": shown.seen.name,
                "picture": _jpeg_uri(shown.picture),
                "overlay": shown.overlay,
                "split": shown.seen.split,
                "absent": shown.seen.absent,
                "input_size": shown.seen.input_size,
                "layers": shown.seen.layers,
                **{f"figure_{title}": data_uri(png) for title, png in shown.figures.items()},
            }
            for shown in self.images
        ]
        rows = [
            {
                "name": shown.seen.name,
                "g": shown.seen.split.global_score,
                "shares": shown.seen.split.shares,
                "local": shown.seen.split.local_by_share,
                "alpha": shown.seen.split.alpha,
                "share": shown.seen.split.top_share,
            }
            for shown in self.images
        ]
        return page_template("headclip.figures", "inspect.html").render(
            version=__version__,
            model=model,
            figures={title: data_uri(png) for title, png in self.model_figures.items()},
            images=entries,
            data=_script_json(plain(rows)),
            scale=scale,
            left_out=dict(left_out),
            facts=list(_flat(model.facts)),
            word_text=word_text,
        )


def _without_pixels(seen: ImageInspection) -> ImageInspection:
    """Without what is drawn by then, and large."""
    return replace(seen, image=np.empty((0, 0, 3), np.uint8), anomaly_map=np.empty((0, 0), np.float32))


def _plain_name(name: str) -> str:
    """A file name without what some systems do not allow, and not too long."""
    return re.sub(r"[^\w.-]+", "_", Path(name).stem)[-60:]


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _jpeg_uri(picture: Image.Image) -> str:
    content = _encoded(picture.convert("RGB"), "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(content).decode()


def _script_json(data: Any) -> Markup:
    """JSON that no file name can break out of a script element with."""
    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, str]]:
    """Nested facts as lines, empty ones left out."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        label = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            lines += _flat(value, label + " / ")
        elif value is not None and value != []:
            lines.append((label, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)))
    return lines
