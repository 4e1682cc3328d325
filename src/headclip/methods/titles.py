"""How the papers write the names of the methods, for tables and figures."""

from __future__ import annotations

TITLES = {
    "headclip": "HeadCLIP",
    "anomalyclip": "AnomalyCLIP",
    "adaclip": "AdaCLIP",
    "anovl": "AnoVL",
    "winclip": "WinCLIP",
    "clip": "CLIP",
    "clip_ac": "CLIP-AC",
    "coop": "CoOp",
    "linear_heads": "linear heads",
}
"""In the order of the papers' tables; methods that are not here follow under their own name."""

HEADINGS = {name: title[0].upper() + title[1:] for name, title in TITLES.items()}
"""The same as they stand alone, at the head of a figure's column."""
