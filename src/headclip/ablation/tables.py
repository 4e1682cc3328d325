"""The tables of an ablation: Markdown in the layout of the paper, CSV with every figure."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field

from headclip.ablation.cells import LEVELS, MEAN_OF, Cell, Difference, differences
from headclip.ablation.definitions import Variant
from headclip.ablation.plan import Plan
from headclip.ablation.printed import printed, printed_title
from headclip.csv_text import CsvText
from headclip.evaluation.published import Figure, sources
from headclip.evaluation.tables import LEGEND, LETTERS
from headclip.metrics import ALL_METRICS


@dataclass(frozen=True)
class Report:
    """All that the outputs are written from. head: lines above the tables; notes: below them."""

    plan: Plan
    cells: Sequence[Cell]
    families: dict[str, str]
    head: dict[str, str]
    notes: Sequence[str] = ()
    ratio_cells: Sequence[Cell] = field(default_factory=list)

    @property
    def datasets(self) -> list[str]:
        """Those that have figures, in order."""
        return list(dict.fromkeys(cell.dataset for cell in self.cells if cell.dataset != MEAN_OF))

    @property
    def domains(self) -> list[str]:
        """Domains of the datasets; "all" where there are several."""
        return list(dict.fromkeys(cell.domain for cell in self.cells if cell.dataset == MEAN_OF))

    def cell(self, variant: Variant, dataset: str, domain: str | None = None) -> Cell | None:
        """The cell of a row; the average's by domain."""
        for cell in self.cells:
            if cell.variant is variant and cell.dataset == dataset and domain in (None, cell.domain):
                return cell
        return None

    @property
    def whole(self) -> str:
        """The domain of the widest average."""
        return "all" if "all" in self.domains else self.domains[0] if self.domains else ""

    def printed_rows(self, variant: Variant, dataset: str, domain: str | None = None) -> list[Figure]:
        """What the papers print for a row."""
        if dataset == MEAN_OF:
            return [] if domain in (None, "all", "any") else printed(self.plan, variant, domain=domain)
        return printed(self.plan, variant, dataset=self.families.get(dataset, dataset))


def markdown(report: Report) -> str:
    """table.md: the table in the paper's layout, then every dataset for itself."""
    ablation = report.plan.ablation
    lines = [f"# {ablation.title}", "", f"`headclip ablate {ablation.name}`: {ablation.table}.", ""]
    lines += [f"- {name}: {text}" for name, text in report.head.items()]
    lines += ["", f"{LEGEND}. Mean, and standard deviation over the seeds; rows in italics are published figures."]
    lines += ["", ablation.remark, ""] if ablation.remark else [""]
    if not report.cells:
        lines += ["No row has figures; the notes say why.", ""]
    elif ablation.layout == "datasets":
        lines += _by_dataset(report)
    elif ablation.layout == "domains":
        domains = [domain for domain in report.domains if domain != "all"]
        lines += [*_averaged(report, domains), *_by_domain(report), *_each_dataset(report)]
    else:
        lines += [*_averaged(report, [report.whole]), *_by_variant(report, MEAN_OF, report.whole)]
        lines += _each_dataset(report)
    lines += _difference_table(report)
    if report.ratio_cells:
        lines += ["## Image mAD over the joint score ratio", "", *_ratio_table(report)]
    if report.notes:
        lines += ["## Notes", "", *[f"- {note}" for note in report.notes], ""]
    return "\n".join(lines).rstrip() + "\n"


def _metrics(report: Report, cells: Sequence[Cell]) -> list[str]:
    """Columns that at least one cell has, of the levels that the ablation is about."""
    wanted = [metric for level in report.plan.ablation.levels for metric in LEVELS[level]]
    return [metric for metric in wanted if any(cell.values(metric) for cell in cells)]


def _head(first: Sequence[str], metrics: Sequence[str]) -> list[str]:
    titles = [f"{metric.split('_')[0]} {LETTERS[metric]}" for metric in metrics]
    return [
        f"| {' | '.join([*first, *titles])} |",
        f"|{'|'.join([' --- '] * len(first) + [' ---: '] * len(titles))}|",
    ]


def show(cell: Cell | None, metric: str) -> str:
    """`60.5 ± 0.3`, without the spread where there is one seed, `-` where the metric is not defined."""
    mean = None if cell is None else cell.mean(metric)
    if cell is None or mean is None:
        return "-"
    spread = cell.spread(metric)
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _published_lines(
    report: Report, variant: Variant, place: tuple[str, str | None], metrics: Sequence[str], first: Sequence[str]
) -> list[str]:
    lines = []
    for figure in report.printed_rows(variant, *place):
        values = [f"*{figure.values[metric]:.1f}*" if metric in figure.values else "-" for metric in metrics]
        if any(value != "-" for value in values):
            lines.append(_line([*first, f"*{variant.label}: {citation(figure)}*", *values]))
    return lines


def _printed_title(cell: Cell) -> str:
    """What published figures beside a cell are of."""
    return printed_title(cell.domain) if cell.dataset == MEAN_OF else cell.title


def citation(figure: Figure) -> str:
    """Where a published figure stands."""
    return f"{sources()[figure.source].title}, Table {figure.table}"


def _by_dataset(report: Report) -> list[str]:
    """Rows are datasets times variants, as in Tables 1 to 6."""
    metrics, variants = _metrics(report, report.cells), report.plan.ablation.variants
    lines = _head(["dataset", ""], metrics)
    places: list[tuple[str, str | None]] = [(key, None) for key in report.datasets]
    places += [(MEAN_OF, domain) for domain in report.domains] if len(report.datasets) > 1 else []
    for place in places:
        cells = [report.cell(variant, *place) for variant in variants]  # None where training failed
        first = next(cell for cell in cells if cell is not None)
        for variant, cell in zip(variants, cells, strict=True):
            lines.append(_line([first.title, variant.label, *[show(cell, metric) for metric in metrics]]))
        for variant in variants:
            lines += _published_lines(report, variant, place, metrics, [_printed_title(first)])
    return [*lines, ""]


def _averaged(report: Report, domains: Sequence[str]) -> list[str]:
    """What the figures of a table without a column for it are averages of."""
    titles = {cell.domain: cell.title for cell in report.cells if cell.dataset == MEAN_OF}
    if len(report.datasets) < 2:
        return []  # the average is this dataset
    return [f"Each figure of ours is an {'; or an '.join(titles[domain] for domain in domains)}.", ""]


def _by_domain(report: Report) -> list[str]:
    """Rows are variants, columns mAD by level and domain, as in Tables 7 to 9; then the paper's columns."""
    levels, variants = report.plan.ablation.levels, report.plan.ablation.variants
    ours = [
        (f"{level}_mad", domain)
        for level in levels
        for domain in report.domains
        if domain != "all" and any(c.values(f"{level}_mad") for c in report.cells if c.domain == domain)
    ]
    paper = [(f"{level}_mad", domain) for level in levels for domain in ("industrial", "medical")]
    titles = [f"{metric.split('_')[0]} mAD, {_domain(domain)}" for metric, domain in ours]
    titles += [f"*{_short(domain)} {metric.split('_')[0]}, paper*" for metric, domain in paper]
    lines = [_line(["", *titles]), f"| --- |{'|'.join([' ---: '] * len(titles))}|"]
    for variant in variants:
        found = {domain: report.printed_rows(variant, MEAN_OF, domain) for domain in ("industrial", "medical")}
        cells = [show(report.cell(variant, MEAN_OF, domain), metric) for metric, domain in ours]
        for metric, domain in paper:
            values = [figure.values[metric] for figure in found[domain] if metric in figure.values]
            cells.append(f"*{values[0]:.1f}*" if values else "")
        lines.append(_line([variant.label, *cells]))
    return [*lines, ""]


def _domain(domain: str) -> str:
    return {"any": "own data", "all": "all datasets"}.get(domain, domain)


def _short(domain: str) -> str:
    return {"industrial": "ind.", "medical": "med."}[domain]


def _by_variant(report: Report, dataset: str, domain: str | None) -> list[str]:
    """Rows are variants, one table for each axis."""
    metrics = _metrics(report, [c for c in report.cells if c.dataset == dataset and domain in (None, c.domain)])
    lines: list[str] = []
    for axis in report.plan.ablation.axes:
        lines += _head([axis], metrics)
        for variant in report.plan.ablation.variants:
            if variant.axis != axis:
                continue
            cell = report.cell(variant, dataset, domain)
            lines.append(_line([variant.label, *[show(cell, metric) for metric in metrics]]))
            lines += _published_lines(report, variant, (dataset, domain), metrics, [])
        lines.append("")
    return lines


def _each_dataset(report: Report) -> list[str]:
    if len(report.datasets) < 2 and report.plan.ablation.layout == "variants":
        return []  # the average is this dataset
    lines: list[str] = []
    for key in report.datasets:
        title = next(cell.title for cell in report.cells if cell.dataset == key)
        lines += [f"## {title}", "", *_by_variant(report, key, None)]
    return lines


def _difference_table(report: Report) -> list[str]:
    """Each row minus its reference, seed by seed, on the widest average."""
    cells = [cell for cell in report.cells if cell.dataset == MEAN_OF and cell.domain == report.whole]
    metrics = [f"{level}_mad" for level in report.plan.ablation.levels]
    found = {metric: {id(d.cell): d for d in differences(cells, metric)} for metric in metrics}
    if not any(len(d.by_seed) > 1 for each in found.values() for d in each.values()):
        return []
    lines = [
        "## Differences seed by seed",
        "",
        "Two rows of one seed share its first values and the order of its "
        "images, so their difference spreads less than either.",
        "",
    ]
    lines += [_line(["", "against", *[f"{metric.split('_')[0]} mAD" for metric in metrics]])]
    lines += [f"| --- | --- |{' ---: |' * len(metrics)}"]
    for cell in cells:
        own = [found[metric].get(id(cell)) for metric in metrics]
        first = next((d for d in own if d is not None), None)
        if first is not None:
            lines.append(_line([cell.variant.label, first.reference.variant.label, *map(_signed, own)]))
    return [*lines, ""]


def _signed(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    spread = difference.spread
    return f"{difference.mean:+.1f}" if spread is None else f"{difference.mean:+.1f} ± {spread:.1f}"


def _ratio_table(report: Report) -> list[str]:
    """Rows are methods, columns ratios."""
    averages = [c for c in report.ratio_cells if c.dataset == MEAN_OF]
    ratios = list(dict.fromkeys(cell.variant.at for cell in averages))
    lines: list[str] = []
    domains = list(dict.fromkeys(cell.domain for cell in averages))
    for domain in domains:
        heading = "method" if domains == ["any"] else f"method, {_domain(domain)}"
        lines += [_line([heading, *[f"{ratio:g}" for ratio in ratios]]), f"| --- |{' ---: |' * len(ratios)}"]
        for series in dict.fromkeys(cell.variant.series for cell in averages):
            own = [c for c in averages if c.domain == domain and c.variant.series == series]
            if any(cell.values("image_mad") for cell in own):
                lines.append(_line([series, *[show(cell, "image_mad") for cell in own]]))
        lines.append("")
    return lines


COLUMNS = ("kind", "ablation", "axis", "label", "method", "series", "value", "dataset", "title", "domain", "seeds")


def csv_table(report: Report) -> str:
    """table.csv: a line for each row and dataset, the averages, and the published figures; empty: not defined."""
    buffer = CsvText()
    names = [f"{metric}{end}" for metric in ALL_METRICS for end in ("", "_std")]
    writer = csv.DictWriter(buffer, [*COLUMNS, *names, "source"])
    writer.writeheader()
    for cell in [*report.cells, *report.ratio_cells]:
        line = _facts(report, "average" if cell.dataset == MEAN_OF else "dataset", cell)
        for metric in ALL_METRICS:
            mean, spread = cell.mean(metric), cell.spread(metric)
            line[metric] = "" if mean is None else f"{mean:.4f}"
            line[f"{metric}_std"] = "" if spread is None else f"{spread:.4f}"
        writer.writerow(line)
    for cell in report.cells:
        for figure in report.printed_rows(cell.variant, cell.dataset, cell.domain):
            about = {"title": _printed_title(cell), "source": citation(figure), "seeds": ""}
            line = _facts(report, "published", cell) | about
            writer.writerow(line | {metric: value for metric, value in figure.values.items() if metric in ALL_METRICS})
    return buffer.getvalue()


def _facts(report: Report, kind: str, cell: Cell) -> dict[str, str]:
    variant = cell.variant
    facts = {
        "kind": kind,
        "ablation": report.plan.ablation.name,
        "axis": variant.axis,
        "label": variant.label,
        "method": variant.method,
        "series": variant.series,
        "value": variant.at,
        "dataset": cell.dataset,
        "title": cell.title,
        "domain": cell.domain,
        "seeds": len(cell.by_seed),
    }
    return {name: str(value) for name, value in facts.items()}
