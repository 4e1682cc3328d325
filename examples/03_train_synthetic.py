"""Adapt a backbone on rendered images, without any data set, and use the checkpoint.

The settings are small so that this ends within a minute; `headclip train --data synthetic` has the real ones.

    python examples/03_train_synthetic.py
    python examples/03_train_synthetic.py --backbone ViT-B-16 --images 400 --epochs 5
"""

import argparse
from pathlib import Path

from headclip import Detector, load_backbone
from headclip.data.synthetic import SyntheticDataset
from headclip.methods import create_method
from headclip.training.sets import SyntheticTrainingSet
from headclip.training.trainer import TrainConfig, Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description="Train prompts and head weights on rendered images.")
    parser.add_argument("--out", type=Path, default=Path("runs/example-03/headclip.safetensors"))
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=128)
    arguments = parser.parse_args()

    backbone = load_backbone(arguments.backbone)
    method = create_method("headclip", backbone)
    print(f"{sum(value.numel() for value in method.trainable().values()):,} numbers to learn:")
    for name, value in method.trainable().items():
        print(f"  {name} {tuple(value.shape)}")

    data = SyntheticTrainingSet(seed=1, count=arguments.images, size=arguments.image_size)
    trainer = Trainer(method, data, TrainConfig(epochs=arguments.epochs, batch_size=4))
    trainer.run(
        arguments.out,
        progress=lambda at: print(f"epoch {at.epoch} step {at.batch}/{at.batches}: {at.losses.total:.3f}"),
    )

    # The checkpoint knows its backbone; on another one, loading it is an error that says so.
    detector = Detector(backbone, arguments.out, image_size=arguments.image_size)
    unseen = SyntheticDataset(seed=2, count=6, size=arguments.image_size)
    for sample in (unseen[i] for i in range(len(unseen))):
        prediction = detector.predict(sample.image.permute(1, 2, 0).numpy())[0]
        print(f"score {prediction.score:.3f}  {sample.noun}: {sample.defect or 'no defect'}")
    print(f"checkpoint: {arguments.out}")


if __name__ == "__main__":
    main()
