"""Every dataset that headclip knows by name: what it holds, how it lies on disk, and how to open it.

One module per dataset (or per family of one layout); importing a module registers what it defines.

    >>> from headclip.data.datasets import datasets, find_dataset
    >>> find_dataset("MVTec AD").anomalous
    1258
    >>> len([info for info in datasets() if info.paper])
    17
"""

from headclip.data.datasets.base import Dataset, DatasetInfo
from headclip.data.datasets.opening import open_dataset, open_spec, parse_spec
from headclip.data.datasets.registry import dataset, datasets, find_dataset, same_dataset
from headclip.data.reading import Finding, Reading
from headclip.data.records import ImageRecord

__all__ = [
    "Dataset",
    "DatasetInfo",
    "Finding",
    "ImageRecord",
    "Reading",
    "dataset",
    "datasets",
    "find_dataset",
    "open_dataset",
    "open_spec",
    "parse_spec",
    "same_dataset",
]
