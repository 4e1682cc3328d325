"""From records to figures with their spread: one cell for each row and dataset, and averages of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headclip.ablation.definitions import Variant
from headclip.ablation.plan import Plan, Row
from headclip.evaluation.averages import counted_title
from headclip.evaluation.tables import IMAGE_COLUMNS, PIXEL_COLUMNS
from headclip.methods.base import TrainableMethod, method_class
from headclip.metrics import ALL_METRICS, category_image_metrics, macro_average
from headclip.metrics import Figures as Found

LEVELS = {"image": IMAGE_COLUMNS, "pixel": PIXEL_COLUMNS}
MEAN_OF = "average"
"""The dataset of a cell that averages over several."""
RATIO_AXIS = "joint score ratio"


@dataclass(frozen=True)
class Cell:
    """Figures of one row on one dataset, or their average. dataset: "average" for those; by_seed: percent."""

    variant: Variant
    dataset: str
    title: str
    domain: str
    by_seed: Mapping[int, Mapping[str, float]]

    def values(self, metric: str) -> list[float]:
        """One for each seed that has the metric."""
        return [found[metric] for found in self.by_seed.values() if metric in found]

    def mean(self, metric: str) -> float | None:
        """Over seeds."""
        values = self.values(metric)
        return statistics.fmean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """Standard deviation over seeds (n - 1); None with fewer than two."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else None


Read = Callable[[Row, int, str], Mapping[str, Any] | None]
"""Row, seed and dataset -> its record."""


def make_cells(plan: Plan, seeds: Sequence[int], datasets: Sequence[str], read: Read, protocol: str) -> list[Cell]:
    """A cell for each row and dataset that has records, then the averages, row by row."""
    cells = []
    for row in plan.rows:
        own = [cell for key in datasets if (cell := _cell(row, seeds, key, read, protocol))]
        cells += own + averages(own)
    return cells


def _cell(row: Row, seeds: Sequence[int], key: str, read: Read, protocol: str) -> Cell | None:
    found: dict[int, Mapping[str, float]] = {}
    about: Mapping[str, Any] = {}
    for seed in row.judge.seeds(seeds):
        record = read(row, seed, key)
        if record is not None:
            about = record
            found[seed] = figures(record, row.alpha, protocol)
    if not found:
        return None
    return Cell(row.variant, key, about["title"], about["domain"], found)


def figures(record: Mapping[str, Any], alpha: float | None, protocol: str) -> dict[str, float]:
    """Figures of a record in percent, its image score taken at the ratio `alpha` (None: as the detector gave it)."""
    recorded = alpha is None or alpha == record["alpha"]
    rows = []
    for name, by_protocol in record["figures"].items():
        values = dict(by_protocol[protocol])
        if not recorded and record["level"] != "pixel":
            assert alpha is not None
            images = [image for image in record["images"] if image[0] == name]
            scores = [(1.0 - alpha) * image[3] + alpha * image[4] for image in images]
            again = category_image_metrics(scores, [image[1] for image in images], protocol)
            values.update(again)
        rows.append(Found(values))
    mean = macro_average(rows)
    return {metric: 100.0 * mean[metric] for metric in ALL_METRICS if metric in mean}


def averages(cells: Sequence[Cell]) -> list[Cell]:
    """The mean over the datasets of each domain, and over all where there are several domains."""
    domains = list(dict.fromkeys(cell.domain for cell in cells))
    groups = [(domain, [cell for cell in cells if cell.domain == domain]) for domain in domains]
    if len(domains) > 1:
        groups.append(("all", list(cells)))
    return [_average(domain, group) for domain, group in groups if group]


def _average(domain: str, cells: Sequence[Cell]) -> Cell:
    seeds = list(dict.fromkeys(seed for cell in cells for seed in cell.by_seed))
    by_seed = {}
    for seed in seeds:
        found = [cell.by_seed[seed] for cell in cells if seed in cell.by_seed]
        if len(found) < len(cells):
            continue  # a seed that has not been through all of them would average over others
        by_seed[seed] = dict(macro_average(found))
    title = counted_title(domain, [{name for found in cell.by_seed.values() for name in found} for cell in cells])
    return Cell(cells[0].variant, MEAN_OF, title, domain, by_seed)


@dataclass(frozen=True)
class Difference:
    """One row minus the row it is set against, seed by seed: what both owe to a seed cancels. by_seed: percent."""

    cell: Cell
    reference: Cell
    metric: str
    by_seed: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.by_seed)

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (n - 1); None with fewer than two."""
        return statistics.stdev(self.by_seed) if len(self.by_seed) > 1 else None


def differences(cells: Sequence[Cell], metric: str) -> list[Difference]:
    """Cells of one dataset against their reference: the first series at the same place where an axis has several,
    else the first row of the axis. Seeds that only one of the two has are left out."""
    found = []
    for cell in cells:
        same = [other for other in cells if other.variant.axis == cell.variant.axis]
        first = same[0]
        if len({other.variant.series for other in same}) > 1:
            first = next(other for other in same if other.variant.at == cell.variant.at)
        one, other = _by_seed(cell, first), _by_seed(first, cell)
        pairs = [
            one[seed][metric] - other[seed][metric]
            for seed in one
            if seed in other and metric in one[seed] and metric in other[seed]
        ]
        if first is not cell and pairs:
            found.append(Difference(cell, first, metric, tuple(pairs)))
    return found


def _by_seed(cell: Cell, other: Cell) -> Mapping[int, Mapping[str, float]]:
    """The figures of a cell; those of a method that learns nothing are the same for every seed of the other one."""
    if issubclass(method_class(cell.variant.method), TrainableMethod) or not cell.by_seed:
        return cell.by_seed
    (only, *_) = cell.by_seed.values()
    return dict.fromkeys({**cell.by_seed, **other.by_seed}, only)


def ratio_plan(plan: Plan, ratios: Sequence[float]) -> Plan:
    """The same detectors, each at every joint score ratio: one series for each row."""
    rows = [
        Row(
            replace(
                row.variant,
                label=f"{row.variant.label}, alpha {ratio:g}",
                axis=RATIO_AXIS,
                series=row.variant.label,
                value=ratio,
                published=None,
            ),
            row.judge,
            ratio,
        )
        for row in plan.rows
        for ratio in ratios
    ]
    return replace(plan, rows=tuple(rows), ablation=replace(plan.ablation, levels=("image",)))
