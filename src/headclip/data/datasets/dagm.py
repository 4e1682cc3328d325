"""DAGM 2007 in its versions: ten rendered textures whose defects are marked by ellipses."""

from __future__ import annotations

from pathlib import Path

from headclip.data.datasets.base import DatasetInfo
from headclip.data.datasets.registry import dataset
from headclip.data.discover import find_images
from headclip.data.layouts import first_folder, read_mvtec, report_unused
from headclip.data.reading import Reading

_SOURCE = "Wieler and Hahn, DAGM 2007; Heidelberg Collaboratory for Image Processing"
_MVTEC = "ClassN/test/{good,DEFECT}/ and ClassN/ground_truth/DEFECT/, or meta.json"
_LABEL = "_label"


@dataset(
    "dagm",
    title="DAGM 2007",
    aliases=("dagm2007", "DAGM_KaggleUpload"),
    domain="industrial",
    level="both",
    layout="ClassN/Test/NNNN.PNG and ClassN/Test/Label/NNNN_label.PNG",
    counts={
        "Class1": (504, 71),
        "Class2": (491, 84),
        "Class3": (491, 84),
        "Class4": (507, 68),
        "Class5": (495, 80),
        "Class6": (508, 67),
        "Class7": (1000, 150),
        "Class8": (1000, 150),
        "Class9": (1000, 150),
        "Class10": (1000, 150),
    },
    known={"DAGM 2007, training part": (7004, 1046)},
    source=_SOURCE,
    paper="DAGM",
    remark="masks are rough ellipses; an image is anomalous if it has one",
)
def read(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """The test images of each class; those without a label file are normal."""
    base = first_folder(root, "DAGM_KaggleUpload") or root
    for category in info.categories:
        outer = first_folder(base, category)
        # one archive per class unpacks to Class1/Class1
        outer = (first_folder(outer, category) or outer) if outer else None
        test = first_folder(outer, "Test") if outer else None
        if test is not None:
            _read_class(reading, test, category)


def _read_class(reading: Reading, test: Path, category: str) -> None:
    folder = first_folder(test, "Label")
    if folder is None:
        where = f"{reading.shown(test)} has no Label/ folder, so normal and anomalous cannot be told apart"
        reading.error("missing folder", where, test)
        return
    labels = {path.stem.removesuffix(_LABEL): path for path in find_images(folder)}
    for path in find_images(test, skip_folder=lambda child: child == folder):
        label = labels.pop(path.stem, None)
        reading.add(path, 0 if label is None else 1, label, category)
    report_unused(reading, labels.values())


@dataset(
    "dagm-adaclip",
    title="DAGM of AdaCLIP",
    domain="industrial",
    level="both",
    layout=_MVTEC,
    family="dagm",
    source=_SOURCE,
    remark="training and test part together, as many normal as anomalous images",
)
@dataset(
    "dagm-bayes",
    title="DAGM of Bayes-PFL",
    domain="industrial",
    level="both",
    layout=_MVTEC,
    family="dagm",
    normal=1350,
    anomalous=1350,
    source=_SOURCE,
    remark="seven relabelled classes",
)
def read_converted(root: Path, reading: Reading, info: DatasetInfo) -> None:
    """MVTec folders, whatever their names."""
    read_mvtec(reading, root, info.categories)
