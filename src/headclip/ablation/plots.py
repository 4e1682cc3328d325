"""The figure of an ablation: mean over the seeds with its spread, each seed as a dot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headclip.ablation.cells import MEAN_OF, Cell
from headclip.ablation.tables import Report
from headclip.evaluation.curves import NEEDS_MATPLOTLIB
from headclip.plots import new_figure, write_plot

FILE = "figure"


@dataclass(frozen=True)
class Panel:
    """One picture of a figure: cells of one axis, one domain and one metric, in their order."""

    axis: str
    domain: str
    metric: str
    cells: tuple[Cell, ...]

    @property
    def numeric(self) -> bool:
        """Whether places on the axis are numbers."""
        return all(isinstance(cell.variant.at, int | float) for cell in self.cells)

    @property
    def series(self) -> list[str]:
        """Curves, in order."""
        return list(dict.fromkeys(cell.variant.series for cell in self.cells))

    @property
    def places(self) -> list[float | str]:
        """Places on the axis, in order."""
        return list(dict.fromkeys(cell.variant.at for cell in self.cells))

    @property
    def title(self) -> str:
        """Level and domain."""
        level = self.metric.split("_")[0]
        return f"{level} mAD" if self.domain in ("any", "all") else f"{level} mAD, {self.domain}"


def panels(cells: Sequence[Cell], levels: Sequence[str]) -> list[list[Panel]]:
    """One row for each axis; in it, one panel for each level and domain that has figures."""
    averages = [cell for cell in cells if cell.dataset == MEAN_OF]
    domains = [domain for domain in dict.fromkeys(cell.domain for cell in averages) if domain != "all"]
    rows = []
    for axis in dict.fromkeys(cell.variant.axis for cell in averages):
        row = []
        for metric in (f"{level}_mad" for level in levels):
            for domain in domains:
                own = tuple(
                    cell
                    for cell in averages
                    if (cell.variant.axis, cell.domain) == (axis, domain) and cell.values(metric)
                )
                if own:
                    row.append(Panel(axis, domain, metric, own))
        if row:
            rows.append(row)
    return rows


def draw(report: Report, folder: Path) -> list[str]:
    """Write figure.png and figure.svg, and ratio.png and ratio.svg where there are curves; hints if they cannot be."""
    try:
        import matplotlib
    except ImportError:
        return [NEEDS_MATPLOTLIB]
    ablation = report.plan.ablation
    with matplotlib.rc_context({"svg.hashsalt": "headclip", "font.size": 9, "axes.titlesize": 10}):
        _figure(panels(report.cells, ablation.levels), ablation.title, folder / FILE)
        if report.ratio_cells:
            title = f"{ablation.title}: joint score ratio"
            _figure(panels(report.ratio_cells, ("image",)), title, folder / "ratio")
    return []


def _figure(rows: list[list[Panel]], title: str, path: Path) -> None:
    if not rows:
        return
    columns = max(map(len, rows))
    heights = [2.8 if row[0].numeric else max(1.3, 0.55 + 0.34 * _slots(row[0])) for row in rows]
    figure = new_figure(1.2 + 4.4 * columns, 0.9 + sum(heights), "constrained")
    grid: Any = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, row in zip(grid, rows, strict=True):
        for number, axis in enumerate(axes):
            if number >= len(row):
                axis.set_axis_off()
            elif row[number].numeric:
                _curve(axis, row[number], number == len(row) - 1)
            else:
                _dots(axis, row[number], number == 0)
    figure.suptitle(f"{title}\n(percent; mean and standard deviation over seeds)", fontsize=10)
    write_plot(figure, path)


def _slots(panel: Panel) -> float:
    return len(panel.places) * (1.0 if len(panel.series) == 1 else 1.4)


def _curve(axis: Any, panel: Panel, last: bool) -> None:
    """Lines with a band over a numeric axis."""
    for number, series in enumerate(panel.series):
        own = [cell for cell in panel.cells if cell.variant.series == series]
        x = [float(cell.variant.at) for cell in own]
        mean = [cell.mean(panel.metric) or 0.0 for cell in own]
        spread = [cell.spread(panel.metric) or 0.0 for cell in own]
        colour, style = f"C{number % 10}", ("-", "--", ":")[number // 10 % 3]
        axis.plot(x, mean, style, marker="o", markersize=3.5, linewidth=1.4, color=colour, label=series)
        low = [m - s for m, s in zip(mean, spread, strict=True)]
        high = [m + s for m, s in zip(mean, spread, strict=True)]
        axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    values = sorted({float(place) for place in panel.places})
    if values[0] > 0 and values[-1] / values[0] >= 50:
        axis.set_xscale("log")
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.minorticks_off()
    axis.set(xlabel=panel.axis, title=panel.title)
    axis.grid(alpha=0.25, linewidth=0.6)
    if len(panel.series) > 1 and last:  # beside the curves, where they cannot be covered
        axis.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _dots(axis: Any, panel: Panel, first: bool) -> None:
    """One line for each place: mean with a bar, each seed as a small dot; series beside each other."""
    places, series = panel.places, panel.series
    for number, name in enumerate(series):
        shift = 0.0 if len(series) == 1 else 0.36 * (number / (len(series) - 1) - 0.5)
        own = [cell for cell in panel.cells if cell.variant.series == name]
        for cell in own:
            y, colour = places.index(cell.variant.at) + shift, f"C{number % 10}"
            values, mean = cell.values(panel.metric), cell.mean(panel.metric)
            axis.plot(
                values, [y + 0.13] * len(values), "o", markersize=3.5, color=colour, alpha=0.55, markeredgewidth=0
            )
            label = name if cell is own[0] else None
            axis.errorbar(
                mean,
                y,
                xerr=cell.spread(panel.metric),
                fmt="D",
                markersize=4.5,
                capsize=3,
                color=colour,
                linewidth=1.3,
                label=label,
            )
    axis.set_yticks(range(len(places)), [str(place) for place in places] if first else [""] * len(places))
    axis.set_ylim(len(places) - 0.5, -0.5)
    axis.set(title=panel.title, ylabel=panel.axis if first else "")
    axis.grid(alpha=0.25, linewidth=0.6, axis="x")
    if len(series) > 1 and first:
        axis.legend(frameon=False, fontsize=7)
