"""Rows that an earlier call was asked for and this one is not: they stay in the table where they are finished."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from headclip.ablation.plan import Judge, Plan, Row
from headclip.data.datasets import Dataset

ASKED = "asked"
"""The entry of results.json that says for which rows any call has been asked."""
Record = Callable[[Judge, int, Dataset], Any]
"""What is on record of a detector with a seed on a dataset, None where nothing is."""


def asked_rows(plan: Plan, before: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of a plan, and those for which earlier calls were asked. before: what results.json says of those."""
    earlier = before.get(ASKED) or [_name(row["axis"], row["label"]) for row in before.get("rows", [])]
    own = [_name(row.variant.axis, row.variant.label) for row in plan.rows]
    return [*earlier, *(name for name in own if name not in earlier)]


def with_finished(
    plan: Plan, asked: Sequence[Mapping[str, str]], record: Record, seeds: tuple[int, ...], datasets: Sequence[Dataset]
) -> tuple[Plan, list[str]]:
    """The plan with those rows left out that were asked for and have all records of these seeds and datasets.

    Also a note on those that were asked for and lack some.
    """

    def is_finished(row: Row) -> bool:
        places = [(seed, dataset) for dataset in datasets for seed in row.judge.seeds(seeds)]
        return all(record(row.judge, *place) is not None for place in places)

    earlier = [row for row in plan.left_out if _name(row.variant.axis, row.variant.label) in asked]
    finished = [row for row in earlier if is_finished(row)]
    rest = [row.variant.label for row in earlier if row not in finished]
    notes = [f"left out, since not finished for all of these seeds and datasets: {'; '.join(rest)}"] if rest else []
    order = plan.ablation.every_variant
    rows = sorted((*plan.rows, *finished), key=lambda row: order.index(row.variant))
    ablation = replace(plan.ablation, variants=tuple(row.variant for row in rows))
    return replace(plan, ablation=ablation, rows=tuple(rows)), notes


def _name(axis: str, label: str) -> dict[str, str]:
    return {"axis": axis, "label": label}
