"""What `headclip predict` says at its end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headclip.cli import on_ray, volume_options
from headclip.cli.common import counted, output, print_ok_with_regions

if TYPE_CHECKING:
    from rich.table import Table

    from headclip.inference.predict import RunSummary
    from headclip.runs.run import Row
    from headclip.runs.shards import Shard

_SHOWN_FAILURES = 10


def print_summary(summary: RunSummary, top: int, part: Shard | None, out: Path) -> None:
    """The `top` images, how many were judged, verdicts, failures, and where the results are. part: of a sharded run."""
    console = output()
    best = summary.top(top) if part is None else []
    if best:
        console.print(_table_of(best))
        console.print()
    earlier = summary.skipped + summary.gone
    kept = f", {earlier:,} of them earlier" if earlier else ""
    console.print(f"{counted(len(summary.ok), 'image')} judged{kept}, {len(summary.failed):,} failed", soft_wrap=True)
    if summary.gone:
        console.print(
            f"Of these on record, not among the inputs any more: {summary.gone:,}; --overwrite in place of --resume "
            "judges all anew, without them",
            soft_wrap=True,
        )
    url = on_ray.place_of(out)
    if part is None and url is None:
        volume_options.print_volumes(summary.folder, top)
        _print_verdicts(summary)
    for row in summary.failed[:_SHOWN_FAILURES]:
        console.print(f"  {row.path}: {row.reason}", soft_wrap=True)
    if len(summary.failed) > _SHOWN_FAILURES:
        console.print(f"  and {len(summary.failed) - _SHOWN_FAILURES:,} more, see results.csv")
    if url is not None:
        console.print(f"Results: {url}", soft_wrap=True)
    elif part is None:
        console.print(f"Report: {summary.report}", soft_wrap=True)
    else:
        again = f"headclip merge {shlex.quote(str(out))}"
        console.print(f"Shard {part} is in {summary.folder}. When all are done: {again}", soft_wrap=True)


def _table_of(best: Sequence[Row]) -> Table:
    """The images with the highest scores, with verdicts and numbers of regions where there are any."""
    from rich.table import Table

    table = Table(title="Most anomalous images", title_justify="left", title_style="bold", box=None)
    judged, with_regions = (any(getattr(row, name) is not None for row in best) for name in ("verdict", "regions"))
    for name in ("#", "score", *(["verdict"] if judged else []), *(["regions"] if with_regions else []), "size"):
        table.add_column(name, justify="left" if name == "verdict" else "right")
    table.add_column("image", overflow="fold")
    for rank, row in enumerate(best, start=1):
        cells = [str(rank), f"{row.score:.4f}"]
        cells += [row.verdict or ""] if judged else []
        cells += ["" if row.regions is None else str(row.regions)] if with_regions else []
        table.add_row(*cells, f"{row.width} x {row.height}", row.path)
    return table


def _print_verdicts(summary: RunSummary) -> None:
    from headclip.judgement.choosing import why_no_default
    from headclip.runs.run import read_facts

    facts = read_facts(summary.folder) or {}
    judgement = facts.get("judgement")
    if judgement is None:
        why = why_no_default(facts.get("settings") or {}) or "No threshold is known; headclip calibrate finds one."
        output().print(f"No verdicts. {why}", soft_wrap=True)
        return
    counts = judgement["verdicts"]
    text = f"{counts['defect']:,} defect, {counts['review']:,} to review, {counts['ok']:,} ok"
    output().print(f"{text}. {judgement['note']}", soft_wrap=True)
    print_ok_with_regions(judgement)
