"""The mean over datasets, for each method and domain, with the interval that the draws of all of them give."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from headclip.evaluation.bootstrap import Interval, Replicates
from headclip.evaluation.scoring import DatasetResult, centred_intervals, mean_replicates
from headclip.metrics import Figures, macro_average

LEVELS = ("image", "pixel")


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
    """`counted_title` of the average of one method over these."""
    return counted_title(domain, [{name for figures in result.mean.values() for name in figures} for result in results])


def counted_title(domain: str, metrics: Sequence[Collection[str]], whose: str = "") -> str:
    """Of how many datasets, and how many of them have image and pixel figures, where these are not all of them.

    Args:
        domain: named in the title, other than "any" and "all".
        metrics: those that each of the datasets has figures of.
        whose: stands before the number.
    """
    count = len(metrics)
    what = f"{'' if domain in ('any', 'all') else f'{domain} '}{'dataset' if count == 1 else 'datasets'}"
    title = f"average of {whose}{count} {what}"
    having = {level: sum(any(name.startswith(level) for name in names) for names in metrics) for level in LEVELS}
    if not any(0 < number < count for number in having.values()):
        return title
    return f"{title} ({', '.join(f'{level} {number}' for level, number in having.items())})"


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
