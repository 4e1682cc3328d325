"""Two methods on the same images: difference of every figure with its interval, paired over bootstrap draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headclip.errors import InputError
from headclip.evaluation.bootstrap import Comparison, compare
from headclip.evaluation.metrics import ALL_METRICS
from headclip.evaluation.scoring import DatasetResult


@dataclass(frozen=True)
class MethodComparison:
    """second minus first on one dataset, for each metric; reason: why the two cannot be paired."""

    dataset: str
    title: str
    first: str
    second: str
    metrics: dict[str, Comparison] = field(default_factory=dict)
    reason: str = ""

    def json(self) -> dict[str, Any]:
        """As plain values."""
        return {**vars(self), "metrics": {name: vars(value) for name, value in self.metrics.items()}}


def compare_results(results: Sequence[DatasetResult]) -> list[MethodComparison]:
    """Every later result against the first one on the same dataset, where bootstrap draws were made."""
    found = []
    for dataset in dict.fromkeys(result.name for result in results):
        group = [result for result in results if result.name == dataset and result.replicates]
        found += [_compare(group[0], other) for other in group[1:]]
    return found


def _compare(first: DatasetResult, second: DatasetResult) -> MethodComparison:
    names = (first.name, first.dataset.info.title, first.method, second.method)
    metrics: dict[str, Comparison] = {}
    try:
        for one, other in zip(first.replicates, second.replicates, strict=False):
            for metric in ALL_METRICS:
                found = compare(one, other, metric)
                if found is not None:
                    metrics[metric] = found
    except InputError as error:
        return MethodComparison(*names, reason=str(error))
    return MethodComparison(*names, metrics)


def comparison_table(comparisons: Sequence[MethodComparison]) -> str:
    """All comparisons as Markdown; "" where there is none."""
    parts = []
    for entry in comparisons:
        parts.append(f"\n## {entry.title}: {entry.second} minus {entry.first}\n")
        if entry.reason:
            parts.append(f"Not compared: {entry.reason}.\n")
            continue
        parts.append("| metric | difference | 95 % interval | p |\n| --- | ---: | ---: | ---: |")
        for name, value in entry.metrics.items():
            interval = f"{100 * value.low:+.1f} to {100 * value.high:+.1f}"
            label = name.replace("_", " ")
            parts.append(f"| {label} | {100 * value.difference:+.1f} | {interval} | {value.p_value:.3f} |")
        parts.append("")
    return "\n".join(parts)
