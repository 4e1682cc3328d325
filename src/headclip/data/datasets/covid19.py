"""COVID-19: chest radiographs, in two releases of the COVID-19 Radiography Database."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.layouts import first_folder, read_by_label
from headclip.data.reading import Reading

CATEGORY = "chest"
_SOURCE = "Chowdhury et al., IEEE Access 2020; Kaggle, tawsifurrahman/covid19-radiography-database"


@dataset(
    "covid-19-2021",
    title="COVID-19 Radiography Database, later release",
    domain="medical",
    level="image",
    layout="Normal/images/ and COVID/images/",
    counts={CATEGORY: (10_192, 3616)},
    family="covid-19",
    source=_SOURCE,
    remark="its masks mark the lungs, not the disease",
)
@dataset(
    "covid-19",
    title="COVID-19 (Radiography Database, first release)",
    aliases=("covid", "COVID-19_Radiography_Dataset"),
    domain="medical",
    level="image",
    layout="NORMAL/ and COVID-19/",
    counts={CATEGORY: (1341, 219)},
    source=_SOURCE,
    paper="COVID-19",
    remark="viral pneumonia and lung opacity are neither normal nor COVID-19 and are not read",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """Folders by label; other diseases are noted and left out."""
    names = ("COVID-19_Radiography_Dataset", "COVID-19 Radiography Database")
    base = first_folder(root, *names) or root
    read_by_label(reading, base, CATEGORY, {"normal"}, {"covid", "covid-19"}, inner="images")
