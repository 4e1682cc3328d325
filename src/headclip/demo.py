"""`make demo`: real solar cells, judged by the model that ships with the package, held against their labels.

The images are a sample of the ELPV dataset (electroluminescence images of photovoltaic cells), which the PyPI
package elpv-dataset carries together with labels. Only the folders' names and the AUROC come from the labels.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli.common import Device, output, readable_errors

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from headclip.runs.run import Row

FOLDERS = ("good", "defective")
KINDS = ("mono", "poly")
PEERS = 32
NORMALS = 16
NOTICE = "LICENSE.txt"
NOTICE_TEXT = """\
The images in this folder are unchanged copies from the ELPV dataset, as published in the Python package
elpv-dataset; only their names are new. Their licence is not that of headclip:
Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0),
https://creativecommons.org/licenses/by-nc-sa/4.0/

C. Buerhop-Lutz, S. Deitsch, A. Maier, F. Gallwitz, S. Berger, B. Doll, J. Hauch, C. Camus, C. J. Brabec:
A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery. EU PVSEC, 2018.
S. Deitsch, V. Christlein, S. Berger, C. Buerhop-Lutz, A. Maier, F. Gallwitz, C. Riess:
Automatic classification of defective photovoltaic module cells in electroluminescence images.
Solar Energy 185, 2019.
"""
_OURS = re.compile(rf"({'|'.join(KINDS)})-cell\d+\.png")


@dataclass(frozen=True)
class Cell:
    """One labelled image. file: its path below the dataset's data folder; label: 0 sound, 1 defective."""

    file: str
    label: int
    kind: str

    @property
    def name(self) -> str:
        """Where the demo keeps it: the folder says the label, the name says the kind of cell."""
        return f"{FOLDERS[self.label]}/{self.kind}-{Path(self.file).name}"


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="For the images and the run.")] = Path("runs/demo"),
    each: Annotated[int, typer.Option(min=2, help="Cells without and with a defect, of each.")] = 60,
    seed: Annotated[int, typer.Option(help="Chooses the sample.")] = 0,
    backbone: Annotated[str, typer.Option(help="As in headclip predict.")] = "embedded",
    checkpoint: Annotated[Path | None, typer.Option(help="As in headclip predict.")] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
) -> None:
    """Judge a labelled sample of real solar cells and say how well the scores tell the defective ones."""
    from headclip.cli.predict import predict
    from headclip.runs.run import Run

    console = output()
    data = dataset_folder()
    labels = data.joinpath("labels.csv").read_text(encoding="utf-8")
    cells = sample_cells(labels.splitlines(), each, seed)
    images, known = out / "images", out / "known-good"
    write_images(cells, data, images)
    normals = other_sound_cells(labels.splitlines(), cells, NORMALS, seed)
    console.print(
        f"{len(cells)} solar cells of the ELPV dataset, {each} sound and {each} defective, in {images}\n"
        "Their licence is CC BY-NC-SA 4.0 (no commercial use); the authors are named in "
        f"{images / NOTICE}\n",
        soft_wrap=True,
    )
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("Each by itself", "results", {}),
        (f"Compared with {PEERS} others (--peers {PEERS})", "compared", {"peers": PEERS}),
    ]
    if len(normals) > 1:
        write_images(normals, data, known)
        how = f"Compared with {len(normals)} other cells known to be sound (--reference {known})"
        ways.append((how, "beside-known-good", {"reference": known}))
    said = []
    for how, place, more in ways:
        console.print(f"{how}:\n", soft_wrap=True)
        results = out / place
        predict(
            [str(images)],
            results,
            backbone=backbone,
            checkpoint=checkpoint,
            device=device,
            overwrite=True,
            **more,
        )
        run = Run.open(results)
        said.append(f"\n{how}: {verdict(run.ok)}\nOpen {run.report} in a browser to see them.")
        console.print()
    console.print("\n".join(said), soft_wrap=True)


def dataset_folder() -> Traversable:
    """The folder of the installed dataset that holds labels.csv and images/.

    Raises:
        InputError: elpv-dataset is not installed, or not laid out as version 1.0.0.post1.
    """
    from importlib import resources

    from headclip.errors import InputError

    try:
        folder = resources.files("elpv_dataset").joinpath("data")
    except ModuleNotFoundError:
        raise InputError(
            "the demo's images come with the package elpv-dataset, which is not installed; "
            "pip install 'headclip[demo]', or run `make demo` in a clone"
        ) from None
    if not folder.joinpath("labels.csv").is_file():
        raise InputError("this elpv-dataset has no data/labels.csv; pip install elpv-dataset==1.0.0.post1")
    return folder


def sample_cells(lines: Iterable[str], each: int, seed: int) -> list[Cell]:
    """`each` sound and `each` defective cells, half of them monocrystalline, half polycrystalline.

    Cells of which the annotators were unsure (probability 1/3 or 2/3) are left out; the seed fixes the sample.

    Args:
        lines: of labels.csv: file, probability of a defect, kind.

    Raises:
        InputError: the dataset has fewer cells of a kind than asked for.
    """
    from headclip.errors import InputError

    chooser = random.Random(seed)
    chosen: list[Cell] = []
    for (label, kind), cells in _by_label(lines).items():
        wanted = each // 2 if kind == KINDS[0] else each - each // 2
        if wanted > len(cells):
            raise InputError(f"the dataset has {len(cells)} {FOLDERS[label]} {kind} cells; ask for fewer than {each}")
        chosen += sorted(chooser.sample(cells, wanted), key=lambda cell: cell.file)
    return chosen


def other_sound_cells(lines: Iterable[str], cells: Iterable[Cell], count: int, seed: int) -> list[Cell]:
    """Up to `count` sound cells that are not among `cells`, half of them of each kind; lines as of `sample_cells`."""
    chooser, taken = random.Random(seed), set(cells)
    groups = _by_label(lines)
    left = [[cell for cell in groups[0, kind] if cell not in taken] for kind in KINDS]
    return [cell for group in left for cell in chooser.sample(group, min(count // 2, len(group)))]


def _by_label(lines: Iterable[str]) -> dict[tuple[int, str], list[Cell]]:
    """Label and kind -> the cells of which the annotators were sure."""
    groups: dict[tuple[int, str], list[Cell]] = {(label, kind): [] for label in (0, 1) for kind in KINDS}
    for line in lines:
        file, probability, kind = line.split()
        if float(probability) in (0.0, 1.0):
            groups[int(float(probability)), kind].append(Cell(file, int(float(probability)), kind))
    return groups


def write_images(cells: Iterable[Cell], data: Traversable, folder: Path) -> None:
    """Copy the sample into `folder`, with its licence; cells of an earlier, other sample are removed."""
    from headclip.files import write_atomically

    wanted = {folder / cell.name: data.joinpath(cell.file) for cell in cells}
    for label in FOLDERS:
        for old in (folder / label).glob("*.png"):
            if _OURS.fullmatch(old.name) and old not in wanted:
                old.unlink()
    write_atomically(folder / NOTICE, NOTICE_TEXT)
    for path, source in wanted.items():
        write_atomically(path, source.read_bytes())


def verdict(rows: Iterable[Row]) -> str:
    """One sentence with the image AUROC and its interval, from the scores and the folders' names."""
    scores: tuple[list[float], list[float]] = ([], [])
    for row in rows:
        if row.score is not None:
            scores[FOLDERS.index(Path(row.path).parts[0])].append(row.score)
    if not all(scores):
        return "No image AUROC: it needs judged images of both kinds."
    value, low, high = auroc_with_interval(*scores)
    return (
        f"Image AUROC {value:.3f} (95 % bootstrap interval {low:.3f} to {high:.3f}) for "
        f"{len(scores[1])} defective against {len(scores[0])} sound cells; guessing gives 0.5."
    )


def auroc_with_interval(
    normal: list[float], anomalous: list[float], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Exact image AUROC (ties count half) with its 95 % percentile bootstrap interval, both groups resampled.

    >>> auroc_with_interval([0.1, 0.2], [0.2, 0.9])[0]
    0.875
    """
    import numpy as np

    from headclip.metrics import image_metrics

    value = image_metrics(normal + anomalous, [0] * len(normal) + [1] * len(anomalous))["image_auroc"]
    low, high = np.asarray(normal), np.asarray(anomalous)
    wins = (high[:, None] > low) + 0.5 * (high[:, None] == low)  # (anomalous, normal): 1 won, 0.5 tied
    generator = np.random.default_rng(seed)
    rows = generator.multinomial(len(high), np.full(len(high), 1 / len(high)), size=resamples)
    columns = generator.multinomial(len(low), np.full(len(low), 1 / len(low)), size=resamples)
    again = ((rows @ wins) * columns).sum(axis=1) / wins.size  # how often each image was drawn, as weights
    return value, *np.quantile(again, [0.025, 0.975]).tolist()


def main() -> None:
    """Run the demo with the arguments of the process."""
    with readable_errors():
        typer.run(demo)


if __name__ == "__main__":
    main()
