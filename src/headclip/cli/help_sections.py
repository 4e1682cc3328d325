"""The options of a command's --help under headings, so that a page of them can be read in parts."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

SECTIONS: dict[str, tuple[str, ...]] = {
    "Model": ("backbone", "checkpoint", "method", "setting", "category", "image_size", "roi", "tile", "tile_overlap"),
    "Comparing with other images": ("reference", "peers", "peer_weight", "shots"),
    "Decisions": (
        *("calibration", "threshold", "false_alarms", "confidence", "contaminated", "tightest", "pixel_threshold"),
        *("min_area", "ignore_border", "pixel_mm", "labelled", "cost_miss", "cost_false_alarm", "prevalence"),
    ),
    "Volumes": ("window", "plane", "volume_share", "max_voxels", "keep_names", "key"),
    "Figures and tables": (
        *("protocol", "resolution", "bootstrap", "keep_maps", "figures", "worst", "as_json", "scale", "limits"),
        *("style", "outline", "titles", "names", "width", "dpi"),
    ),
    "Learning": (
        *("epochs", "rate", "local_weight", "pixel_loss", "schedule", "only", "start_from", "teacher", "recipe"),
        *("architecture", "images", "photographs", "minutes", "keep_features", "features_in", "features_dtype"),
    ),
    "Server": (*("host", "port", "allow_host", "token", "max_body", "max_images", "queue", "timeout"),),
    "Computing": ("device", "precision", "batch_size", "compile", "max_pixels", "workers"),
    "Several machines": ("shard", "engine", "actors", "cpus_per_actor", "gpus_per_actor"),
}
"""Heading -> names of parameters; all others come first, under Options."""

FEW = 12  # options, which need no headings


class SectionedCommand(TyperCommand):
    """A command whose --help has a heading for each kind of option."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        shown = [
            (param, record) for param in self.get_params(ctx) if (record := param.get_help_record(ctx)) is not None
        ]
        options = [(param.name, record) for param, record in shown if param.param_type_name == "option"]
        parts = {"Arguments": [record for param, record in shown if param.param_type_name == "argument"]}
        known = {} if len(options) <= FEW else SECTIONS
        placed = {name for names in known.values() for name in names}
        parts["Options"] = [record for name, record in options if name not in placed]
        for heading, names in known.items():
            parts[heading] = [record for name, record in options if name in names]
        for heading, records in parts.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
