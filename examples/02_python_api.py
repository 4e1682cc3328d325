"""Scores and maps in your own code: paths, Pillow images and arrays in, one `Prediction` each out.

python examples/02_python_api.py
python examples/02_python_api.py part.png --save part-overlay.png
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from headclip import Detector, HeadclipError, overlay
from headclip.data.synthetic import render


def main() -> None:
    parser = argparse.ArgumentParser(description="Judge images from Python.")
    parser.add_argument("image", type=Path, nargs="?", help="an image file; without it one is rendered")
    parser.add_argument("--save", type=Path, help="write the first image with its map and regions over it")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--checkpoint", type=Path)
    arguments = parser.parse_args()

    array = render(3, 224).image.permute(1, 2, 0).numpy()  # (H, W, 3) uint8, as cameras and OpenCV (RGB) give it
    picture = Image.fromarray(array).resize((320, 200))
    # These thresholds come with the embedded model and promise nothing on your images: see `headclip calibrate`.
    known = "default" if arguments.backbone == "embedded" and arguments.checkpoint is None else None
    detector = Detector(arguments.backbone, arguments.checkpoint, calibration=known)

    # One call may mix kinds and sizes; the answers come in the same order.
    predictions = detector.predict([arguments.image or picture, picture, array])
    for prediction in predictions:
        flagged = np.mean(prediction.anomaly_map > 0.5)
        said = f"{prediction.verdict or 'no verdict'}, {len(prediction.regions)} region(s)"
        print(
            f"score {prediction.score:.3f} (whole image {prediction.global_score:.3f}, map's top "
            f"{prediction.local_score:.3f}); map {prediction.width} x {prediction.height}, "
            f"{flagged:.1%} of it above 0.5; {said}"
        )

    if arguments.save:
        # Colours have one fixed scale: never stretch each map on its own, or good parts glow.
        overlay(predictions[0], arguments.image or picture).save(arguments.save)
        print(f"overlay saved as {arguments.save}")

    # For folders of any size, and for cameras: one prediction after another, never all at once.
    for prediction in detector.stream(array for _ in range(2)):
        print(f"streamed: {prediction.score:.3f}")

    try:
        detector.predict("no-such-file.png")
    except HeadclipError as error:  # every error that headclip raises on purpose says what to do
        print(f"as expected: {error}")


if __name__ == "__main__":
    main()
