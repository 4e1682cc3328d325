"""The mean over datasets, for each method and domain, with the interval that the draws of all of them give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headclip.evaluation.bootstrap import Interval, Replicates
from headclip.evaluation.metrics import Figures, macro_average
from headclip.evaluation.scoring import DatasetResult, centred_intervals, mean_replicates


def average_title(count: int, domain: str) -> str:
    """What tables call a mean over so many datasets of a domain.

    >>> average_title(2, "medical"), average_title(3, "any")
    ('average of 2 medical datasets', 'average of 3 datasets')
    """
    return f"average of {count} {'' if domain == 'any' else f'{domain} '}datasets"


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
        return average_title(len(self.results), self.domain)

    @property
    def leaking(self) -> bool:
        """Whether one of the datasets shares images with the training set."""
        return any(result.leakage for result in self.results)


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
