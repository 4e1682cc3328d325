"""MVTec AD 2: the public test set. The two private ones have no ground truth."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_mvtec
from headclip.data.reading import Reading


@dataset(
    "mvtec-ad2",
    title="MVTec AD 2",
    aliases=("mvtec_ad_2", "mvtecad2"),
    domain="industrial",
    level="both",
    layout="CATEGORY/test_public/{good,bad}/ and CATEGORY/test_public/ground_truth/bad/NAME_mask.png",
    categories=("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"),
    licence="CC BY-NC-SA 4.0",
    source="Heckler-Kram et al., 2025; mvtec.com, MVTec AD 2",
    remark="public test set only; the private sets are scored on the publisher's server",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """As MVTec AD, but the masks lie inside the test folder."""
    base = first_folder(root, "mvtec_ad_2") or root
    read_mvtec(reading, base, info.categories, test="test_public", truth="test_public/ground_truth")
