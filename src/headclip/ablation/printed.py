"""What papers print for the rows of an ablation, on a dataset and on average over those of the paper."""

from __future__ import annotations

from headclip.ablation.cells import MEAN_OF
from headclip.ablation.definitions import Variant
from headclip.ablation.plan import Plan
from headclip.errors import InputError
from headclip.evaluation.averages import counted_title
from headclip.evaluation.beside import MAIN_TABLES, PAPER
from headclip.evaluation.published import AVERAGE, Figure, published


def printed(plan: Plan, variant: Variant, *, dataset: str | None = None, domain: str | None = None) -> list[Figure]:
    """What the papers print for a row: on a dataset (by family) or on the average of a domain.

    Several tables of one source are joined, as image and pixel figures of one row may stand apart.
    """
    if variant.published is None:
        return []
    method, name = variant.published
    joined: dict[str, Figure] = {}
    for source, table in plan.ablation.sources:
        try:
            found = published(dataset=dataset or MEAN_OF, method=method, source=source, table=table, domain=domain)
        except InputError:  # a dataset of the user's own
            return []
        for figure in found:
            if figure.variant == name:
                known = joined.get(source)
                values = {**(known.values if known else {}), **figure.values}
                joined[source] = Figure(
                    source,
                    figure.domain,
                    figure.dataset,
                    figure.method,
                    values,
                    ", ".join(dict.fromkeys([*([known.table] if known else []), figure.table])),
                    variant=name,
                )
    return list(joined.values())


def printed_title(domain: str) -> str:
    """What the paper's averages of a domain are over: all datasets of its main tables, whatever others are given.

    >>> printed_title("medical")
    "average of the paper's 10 medical datasets (image 4, pixel 6)"
    """
    metrics: dict[str, set[str]] = {}
    for table in MAIN_TABLES:
        for figure in published(source=PAPER, table=table, domain=domain):
            if figure.dataset != AVERAGE:
                metrics.setdefault(figure.dataset, set()).update(figure.values)
    return counted_title(domain, list(metrics.values()), "the paper's ")
