"""Two methods on the same images: difference of every figure with its interval, paired over bootstrap draws."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headclip.csv_text import CsvText
from headclip.errors import InputError
from headclip.evaluation.averages import average_title
from headclip.evaluation.bootstrap import Comparison, Replicates, compare
from headclip.evaluation.scoring import DatasetResult, mean_replicates
from headclip.metrics import ALL_METRICS, Figures, macro_average


@dataclass(frozen=True)
class MethodComparison:
    """second minus first, for each metric, on one dataset or (dataset "") on average over several.

    reason: why the two cannot be paired.
    """

    dataset: str
    title: str
    first: str
    second: str
    metrics: dict[str, Comparison] = field(default_factory=dict)
    reason: str = ""

    def json(self) -> dict[str, Any]:
        """As plain values."""
        return {**vars(self), "metrics": {name: vars(value) for name, value in self.metrics.items()}}


def compare_results(results: Sequence[DatasetResult], protocol: str) -> list[MethodComparison]:
    """Every later method against the first one: on each dataset, then on average over the datasets of a domain.

    Only where bootstrap draws were made. Differences are those of the protocol's figures: the draws rest on coarser
    bins, and what that makes is taken off the ends of the intervals too.
    """
    drawn = [result for result in results if result.replicates]
    found = []
    for dataset in dict.fromkeys(result.name for result in drawn):
        first, *others = [result for result in drawn if result.name == dataset]
        found += [_compare(first, other, protocol) for other in others]
    return found + _compare_averages(drawn, protocol)


def _compare(first: DatasetResult, second: DatasetResult, protocol: str) -> MethodComparison:
    about = (first.name, first.dataset.info.title, first.method, second.method)
    reason = _difference_of_images(first, second)
    if reason:
        return MethodComparison(*about, reason=reason)
    return _paired(about, first.replicates, second.replicates, first.mean[protocol], second.mean[protocol])


def _compare_averages(results: Sequence[DatasetResult], protocol: str) -> list[MethodComparison]:
    """Over the datasets that both methods have been scored on, with the same images."""
    found = []
    for domain in dict.fromkeys(result.dataset.info.domain for result in results):
        methods: dict[str, dict[str, DatasetResult]] = {}
        for result in results:
            if result.dataset.info.domain == domain:
                methods.setdefault(result.method, {})[result.name] = result
        (name, first), *others = methods.items()
        for other, second in others:
            pairs = [(first[key], second[key]) for key in first if key in second]
            pairs = [pair for pair in pairs if not _difference_of_images(*pair)]
            if len(pairs) > 1:
                title = average_title(domain, [pair[0] for pair in pairs])
                one, two = (mean_replicates([pair[side].replicates for pair in pairs]) for side in (0, 1))
                figures = [macro_average([pair[side].mean[protocol] for pair in pairs]) for side in (0, 1)]
                found.append(_paired(("", title, name, other), one, two, *figures))
    return found


def _paired(
    about: tuple[str, str, str, str],
    first: Sequence[Replicates],
    second: Sequence[Replicates],
    figures: Figures,
    others: Figures,
) -> MethodComparison:
    metrics: dict[str, Comparison] = {}
    try:
        for one, other in zip(first, second, strict=False):
            for metric in ALL_METRICS:
                found = compare(one, other, metric)
                if found is not None:
                    shift = others[metric] - figures[metric] - found.difference
                    low, high = found.low + shift, found.high + shift
                    metrics[metric] = replace(found, difference=found.difference + shift, low=low, high=high)
    except InputError as error:
        return MethodComparison(*about, reason=str(error))
    return MethodComparison(*about, metrics)


def _difference_of_images(first: DatasetResult, second: DatasetResult) -> str:
    """Which images only one of two results has figures of; "" where both rest on the same ones."""
    for what, are_scored in (("", _scored), (" per pixel", _scored_per_pixel)):
        one, other = are_scored(first), are_scored(second)
        for names, result in ((one - other, second), (other - one, first)):
            if names:
                return f"{result.method} has no result{what} of {len(names)} image(s), e.g. {min(names)}"
    return ""


def _scored(result: DatasetResult) -> set[str]:
    return {image.name for image in result.images if image.ok}


def _scored_per_pixel(result: DatasetResult) -> set[str]:
    return {image.name for image in result.images if image.load is not None}


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


def comparison_csv(comparisons: Sequence[MethodComparison]) -> str:
    """All comparisons as CSV, in percent; those that could not be made have a reason and no metric."""
    buffer = CsvText()
    writer = csv.writer(buffer)
    writer.writerow(["dataset", "title", "first", "second", "metric", "difference", "low", "high", "p", "reason"])
    for entry in comparisons:
        about = (entry.dataset, entry.title, entry.first, entry.second)
        if entry.reason:
            writer.writerow([*about, *[""] * 5, entry.reason])
        for name, value in entry.metrics.items():
            figures = (100 * value.difference, 100 * value.low, 100 * value.high, value.p_value)
            writer.writerow([*about, name, *(f"{figure:.4f}" for figure in figures), ""])
    return buffer.getvalue()
