"""Simulated textiles of the Python package conformal-clip-data."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import read_by_label
from headclip.data.reading import Reading

CATEGORY = "textile"
_INNER = "data/textile_images/simulated"


@dataset(
    "conformal",
    title="Simulated textiles, local defects",
    aliases=("conformal_clip_data", "conformal-clip-data"),
    domain="industrial",
    level="image",
    layout=f"{_INNER}/{{nominal,local,global}}/, as in the installed package conformal_clip_data",
    counts={CATEGORY: (1000, 500)},
    licence="MIT",
    source="Megahed et al., 2025 (arXiv 2501.12596); pip install conformal-clip-data",
    remark="nominal against local; the folder global holds changes of the whole picture and is not read",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """One folder for each kind."""
    places = (root, root / _INNER, root / "conformal_clip_data" / _INNER)
    base = next((place for place in places if (place / "nominal").is_dir()), None)
    if base is not None:
        read_by_label(reading, base, CATEGORY, {"nominal"}, {"local"})
