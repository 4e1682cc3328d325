"""Judge a folder of images and read the run folder: what `headclip predict` does, from Python.

python examples/01_predict_folder.py                      # eight rendered images, to have something to judge
python examples/01_predict_folder.py photos --out runs/photos
"""

import argparse
from pathlib import Path

from PIL import Image

from headclip import Detector
from headclip.data.synthetic import render
from headclip.inference.predict import predict_run
from headclip.runs.run import Run


def draw_images(folder: Path, count: int) -> Path:
    """Rendered images, so that the example needs no data: every second one or so has a defect."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        sample = render(seed, 256)
        name = f"{seed:03d}-{sample.defect or 'good'}.png"
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(folder / name)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge a folder of images.")
    parser.add_argument("folder", type=Path, nargs="?", help="images; without it some are rendered")
    parser.add_argument("--out", type=Path, default=Path("runs/example-01"))
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--count", type=int, default=8, help="images to render")
    arguments = parser.parse_args()

    folder = arguments.folder or draw_images(arguments.out / "images", arguments.count)
    detector = Detector(arguments.backbone, arguments.checkpoint)
    summary = predict_run(detector, [folder], arguments.out / "results", overwrite=True)

    # Everything is on disk now; a Run reads it back at any later time, without the model.
    run = Run.open(summary.folder)
    for row in sorted(run.ok, key=lambda row: -(row.score or 0.0)):
        anomaly_map = run.load_map(row)
        y, x = divmod(int(anomaly_map.argmax()), anomaly_map.shape[1])
        print(f"{row.score:.3f}  {row.path:40}  most anomalous at x={x}, y={y}")
    for row in run.failed:
        print(f"failed  {row.path}: {row.reason}")
    print(f"report: {run.report}")


if __name__ == "__main__":
    main()
