"""The mean over datasets, for each method and domain, with the interval that the draws of all of them give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headclip.evaluation.bootstrap import Interval, Replicates
from headclip.evaluation.scoring import DatasetResult, centred_intervals, mean_replicates
from headclip.metrics import Figures, macro_average


@dataclass(frozen=True, eq=False)
class Average:
    """Of one method over all datasets of a domain. figures and intervals: under one protocol."""

    method: str
    domain: str
    results: tuple[DatasetResult, ...]
    figures: Figures
    intervals: dict[str, Interval]
    replicates: tuple[Replicates, ...]

    @property
    def title(self) -> str:
        """What tables call it."""
        return average_title(self.domain, self.results)

    @property
    def leaking(self) -> bool:
        """Whether one of the datasets shares images with the training set."""
        return any(result.leakage for result in self.results)


def average_title(domain: str, results: Sequence[DatasetResult]) -> str:
    """Of how many datasets, and how many of them have image and pixel figures, where these are not all of them."""
    title = f"average of {len(results)} {'datasets' if domain == 'any' else domain + ' datasets'}"
    counts = {level: sum(_has(result, level) for result in results) for level in ("image", "pixel")}
    if not any(0 < count < len(results) for count in counts.values()):
        return title
    return f"{title} ({', '.join(f'{level} {count}' for level, count in counts.items())})"


def _has(result: DatasetResult, level: str) -> bool:
    return any(metric.startswith(level) for figures in result.mean.values() for metric in figures)


def averages(results: Sequence[DatasetResult], protocol: str) -> list[Average]:
    """One for each method and domain with more than one dataset.

    Every metric is averaged over the datasets that have it, and so are the draws: images are drawn within each
    category of each dataset. Where a dataset has figures but no draws, the average has no interval.
    """
    found = []
    for method, domain in dict.fromkeys((result.method, result.dataset.info.domain) for result in results):
        group = tuple(r for r in results if (r.method, r.dataset.info.domain) == (method, domain))
        if len(group) > 1:
            figures = macro_average([result.mean[protocol] for result in group])
            replicates = mean_replicates([result.replicates for result in group])
            intervals = {
                metric: interval
                for metric, interval in centred_intervals(replicates, figures).items()
                if all(metric in result.intervals for result in group if metric in result.mean[protocol])
            }
            found.append(Average(method, domain, group, figures, intervals, replicates))
    return found
