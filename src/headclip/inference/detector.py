"""The detector: images in, predictions out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.packed import pack_tower, unpack_tower
from headclip.clip.preprocess import input_size, normalise, resize
from headclip.clip.weights import EMBEDDED, load_backbone
from headclip.data.hashing import pixel_hash
from headclip.errors import InputError
from headclip.files import expanded
from headclip.inference.base import BaseDetector
from headclip.inference.compiling import compile_tower
from headclip.inference.deciding import Thresholds, criteria_of
from headclip.inference.device import Precision, choose_device, set_precision
from headclip.inference.given import (
    ImageLike,
    batches_of_one_size,
    check_arrays,
    check_batch_size,
    given_images,
    read,
)
from headclip.inference.passes import choose_batch_size, choose_passes, divided_threads
from headclip.inference.roi import Roi, judged_within
from headclip.inference.sharing import remember_user, shared_precision
from headclip.memory import in_halves
from headclip.methods import Scores, TrainableMethod, create_method
from headclip.methods.base import Method, method_class
from headclip.methods.checkpoint import CheckpointInfo, learnt_hash, load_checkpoint
from headclip.methods.settings import MOST_SIZE
from headclip.prediction import Prediction

if TYPE_CHECKING:
    from headclip.data.volumes.model import VolumeOptions
    from headclip.inference.volumes_predict import VolumePrediction
    from headclip.judgement.verdicts import Criteria

DEFAULT_METHOD = "headclip"
EITHER = "images are compared with references, which are normal, or with peers, which are not labelled; leave one out"
EXPORT_SUFFIXES = (".onnx", ".xml", ".pt2")  # see headclip.inference.exported


class Detector(BaseDetector):
    """Scores images with one method on one backbone.

    Args:
        backbone: a name, hub id, folder or file as in `load_backbone`, or a loaded backbone.
        checkpoint: what training learnt, or a `.pth` that a method's authors published; None takes the one that
            ships with the embedded model, and leaves any other backbone unadapted (with a warning).
        device: "auto" takes a CUDA device where there is one.
        precision: "auto" takes bf16 where the device has it and the tower is large enough to gain from it; "int8"
            computes the vision tower's linear layers in 8 bits: faster, less exact (docs/speed.md), on CPUs that can.
        image_size: side in pixels at which images enter the tower; None takes the method's own.
        batch_size: images a pass; None chooses by tower, image size, device and free memory. Where memory does not
            suffice after all, it is halved, with a warning in the log, and no image is lost.
        method: one of `headclip.list_methods()`; None takes the checkpoint's, HeadCLIP without one.
        category: what the images show, such as "bottle", for methods that put it into words; None leaves it at what
            the method's settings say, mostly "object". Other methods ignore it.
        settings: fields of the method's configuration to change, such as {"alpha": 0.5}.
        references: a few normal images of what is to be judged, at least two (one for WinCLIP): what has no like in
            them counts as more anomalous. `set_references` changes them.
        peers: images of the same kind as those to judge, unlabelled, with or without faults, at least two and best
            some dozens: what has its like in few of them counts as more anomalous (`headclip.methods.peers`). Among
            them may be images that are judged; each is compared with the others. `set_peers` changes them. Not
            beside references.
        peer_weight: how much that counts, 0 or more.
        calibration: thresholds by which `predict` adds verdict, alarm and regions to its predictions: the file of
            `headclip calibrate` or what `headclip.judgement` makes of it, or "default" for those that ship with the
            checkpoint; None adds none.
        roi: the part of each image that is judged, LEFT,TOP,WIDTH,HEIGHT, each in pixels or in percent of the image
            ("10%,0,80%,100%"), for cameras that see more than what is to be inspected; of references and peers too.
            Maps keep the image's size and are 0 outside.
        compile: run the vision tower through `torch.compile`; for many images in fp32, since the first pass of each
            size takes a minute (docs/speed.md). Needs a C++ compiler on a CPU.

    Raises:
        BackboneError, CheckpointError, CalibrationError, InputError: each says what to do.

    Example:
        >>> import numpy as np
        >>> detector = Detector(device="cpu")
        >>> prediction = detector.predict([np.zeros((64, 96, 3), np.uint8)])[0]
        >>> prediction.anomaly_map.shape, 0 <= prediction.score <= 1
        ((64, 96), True)
    """

    def __init__(
        self,
        backbone: str | Path | Backbone = "embedded",
        checkpoint: str | Path | None = None,
        *,
        device: str = "auto",
        precision: Precision | Literal["auto"] = "auto",
        image_size: int | None = None,
        batch_size: int | None = None,
        method: str | None = None,
        category: str | None = None,
        settings: Mapping[str, Any] | None = None,
        references: Iterable[ImageLike] | ImageLike | None = None,
        peers: Iterable[ImageLike] | ImageLike | None = None,
        peer_weight: float = 1.0,
        calibration: Thresholds | None = None,
        roi: str | None = None,
        compile: bool = False,
    ) -> None:
        self.roi = None if roi is None else Roi.parse(roi)
        if checkpoint is not None and Path(checkpoint).suffix in EXPORT_SUFFIXES:
            raise InputError(f"{checkpoint} is an exported model; open it with headclip.ExportedDetector")
        self.device = choose_device(device)
        loaded = backbone if isinstance(backbone, Backbone) else load_backbone(str(backbone))
        precision = shared_precision(loaded, self.device, precision)
        self.backbone = loaded.to(self.device).freeze()
        self.checkpoint = expanded(checkpoint) if checkpoint else default_checkpoint(self.backbone, method)
        self.method, self.info = self._open_method(method, dict(settings or {}))
        self.checkpoint_hash = learnt_hash(self.checkpoint) if self.checkpoint else None  # the file may change
        self.category = category if self.method.uses_category else None
        self._texts: dict[str | None, Tensor] = {}
        self.text = self.text_of(self.category)
        self.precision = set_precision(self.backbone, precision, self.device)
        remember_user(self.backbone, self)
        self.compiled = compile
        if compile:
            compile_tower(unpack_tower(self.backbone.vision))
        else:
            pack_tower(self.backbone.vision)
        self.patch = self.backbone.config.vision.patch_size
        self.image_size = self._check_size(self.method.image_size if image_size is None else image_size)
        self.keep_aspect = self.backbone.config.keep_aspect or self.method.keep_aspect
        self.least_side = self.backbone.config.least_side
        patches = (self.image_size // self.patch) ** 2
        self.batch_size = check_batch_size(batch_size) or choose_batch_size(
            self.backbone.config.vision, patches, self.device, self.backbone.dtype
        )
        self._thresholds: Thresholds | None = None
        self.criteria: Criteria | None = None
        self.references: list[str] = []
        self.peers: dict[str, Any] = {}
        if references is not None:
            self.set_references(references)
        if peers is not None:
            self.set_peers(peers, peer_weight)
        self.set_calibration(calibration)

    def _open_method(self, name: str | None, settings: dict[str, Any]) -> tuple[Method, CheckpointInfo | None]:
        """The method with what its checkpoint holds, or with first values where there is none."""
        method: Method
        info: CheckpointInfo | None = None
        cls = method_class(name or DEFAULT_METHOD)
        if self.checkpoint is not None:
            method, info = load_checkpoint(self.checkpoint, self.backbone, settings)
            if name is not None and method.name != name:
                raise InputError(f"{self.checkpoint} is a checkpoint of {method.name}, not of {name}")
        else:
            method = create_method(cls.name, self.backbone, settings)
            if issubclass(cls, TrainableMethod):
                warnings.warn(
                    f"no checkpoint: {cls.name} runs on '{self.backbone.name}' without having learnt its "
                    f"{cls.learns or 'parameters'}. Train some with `headclip train --method {cls.name} "
                    "--data synthetic --backbone ... --out FILE`",
                    stacklevel=3,
                )
        return method.to(self.device).eval(), info

    def text_of(self, category: str | None = None) -> Tensor:
        """(2, E): the method's text vectors for a category, computed once; None stands for the detector's own."""
        wanted = self.category if category is None else category
        name = wanted if self.method.uses_category else None
        if name not in self._texts:
            with torch.no_grad():
                self._texts[name] = self.method.kept_text(None if name is None else [name])[0]
        return self._texts[name]

    def set_references(self, images: Iterable[ImageLike] | ImageLike | None) -> None:
        """The normal images that each image is compared with from now on; None compares with none. See `Detector`.

        Raises:
            InputError: none or too few, a method that takes none, or one that compares with peers already.
            ImageError: an image cannot be read.
        """
        if images is None and not self.references:
            return  # the method's memory may be of peers
        hashes: list[str] = []
        pixels: list[Tensor] | None = None
        if images is not None:
            if self.peers:
                raise InputError(EITHER)
            pixels = []
            for image in given_images(images):  # one by one: they may be large
                array = read(image)
                hashes.append(pixel_hash(array))
                pixels.append(self._entering(array))
            if not pixels:
                raise InputError("no reference images; give at least one image of a normal part")
        with torch.no_grad():
            self.method.set_references(pixels)
        self.references = hashes
        self.set_calibration(self._thresholds)

    def set_peers(self, images: Iterable[ImageLike] | ImageLike | None, weight: float = 1.0) -> None:
        """The images that each image is compared with from now on; None compares with none. See `Detector`.

        Raises:
            InputError: fewer than two images, a negative weight, or a method that cannot compare.
            ImageError: an image cannot be read.
        """
        if images is None and not self.peers:
            return  # the method's memory may be of references
        pixels: list[Tensor] | None = None
        if images is not None:
            if self.references and self.method.takes_peers:
                raise InputError(EITHER)
            pixels = [self._entering(read(image)) for image in given_images(images)]  # one by one: they may be large
        self.method.set_peers(pixels, weight)
        self.peers = {} if pixels is None else {"images": len(pixels), "weight": weight}
        self.set_calibration(self._thresholds)

    def set_calibration(self, calibration: Thresholds | None) -> None:
        """The thresholds that predictions are judged by from now on; None judges none. See `Detector`.

        Raises:
            CalibrationError, InputError: see `headclip.inference.deciding.criteria_of`.
        """
        self._thresholds, self.criteria = calibration, None  # an error leaves none
        if calibration is not None:
            self.criteria = criteria_of(calibration, self.describe())

    def _entering(self, array: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> what enters the tower of this image alone, (1, 3, h, w)."""
        array = array if self.roi is None else self.roi.crop(array)
        return self.pixels([array], self.input_size(array.shape[0], array.shape[1]))

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) at which an image of that size enters the tower."""
        return input_size(
            height,
            width,
            image_size=self.image_size,
            patch=self.patch,
            keep_aspect=self.keep_aspect,
            least_side=self.least_side,
        )

    def _check_size(self, image_size: int) -> int:
        if not self.patch <= image_size <= MOST_SIZE:
            raise InputError(f"image size {image_size}: choose {self.patch} (one patch) to {MOST_SIZE} px")
        return image_size

    def predict_volume(self, path: str | Path, options: VolumeOptions | None = None) -> VolumePrediction:
        """A many-page TIFF, a NIfTI file, a DICOM file or the folder of a series -> its score and anomaly volume.

        Raises:
            InputError, ImageError: see `headclip.inference.volumes_predict.predict_volume`.
        """
        from headclip.inference.volumes_predict import predict_volume

        return predict_volume(self, path, options)

    def predict_arrays(
        self, images: Sequence[np.ndarray], categories: Sequence[str] | None = None, *, resized: bool = False
    ) -> list[Prediction]:
        """Decoded images, (H, W, 3) uint8 -> one prediction each, in order; equal sizes share a batch.

        resized: they have the size at which they enter the tower, `input_size` of what they were.

        Raises:
            InputError: another kind of array, or not one category for each image.
            ImageError: an image does not hold the region of interest.
        """
        check_arrays(images, categories)
        return judged_within(self.roi, images, lambda parts: self.predict_whole(parts, categories, resized=resized))

    def predict_whole(
        self, images: Sequence[np.ndarray], categories: Sequence[str] | None = None, *, resized: bool = False
    ) -> list[Prediction]:
        """As `predict_arrays`, without a region of interest: whoever calls it has cut it out."""
        results: list[Prediction | None] = [None] * len(images)

        def judge(chosen: Sequence[int]) -> list[Prediction]:
            names = None if categories is None else [categories[i] for i in chosen]
            return self._batch([images[i] for i in chosen], images[chosen[0]].shape[:2], names, resized)

        for _, chosen in batches_of_one_size(images, self.batch_size):
            for index, prediction in zip(chosen, in_halves(judge, chosen, self.go_on_with), strict=True):
                results[index] = prediction
        return [result for result in results if result is not None]

    def go_on_with(self, images: int) -> None:
        """After running out of memory: at most that many images a pass from now on."""
        self.batch_size = max(1, min(self.batch_size, images))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def passes(self) -> int:
        """How many batches gain from being judged at once, each in a thread of its own within `side_by_side`.

        Methods that need more than a single pass may keep things of an image, so they have one.
        """
        if self.method.stream() is None or self.compiled:
            return 1
        return choose_passes(self.backbone.vision.size, self.device)

    def side_by_side(self) -> AbstractContextManager[None]:
        """Within it, each of `passes` new threads has its share of the processor; elsewhere it has all."""
        return divided_threads(self.passes)

    @torch.no_grad()  # not inference mode: methods that adapt to an image need gradients of their own
    def _batch(
        self, images: list[np.ndarray], output: tuple[int, int], categories: list[str] | None, resized: bool
    ) -> list[Prediction]:
        pixels = self.pixels(images, output if resized else self.input_size(*output))
        return self.as_predictions(self.method.score_pixels(pixels, self.batch_text(categories), output))

    def as_predictions(self, scores: Scores) -> list[Prediction]:
        """What the method says of a batch, brought to [0, 1] and to the CPU."""
        maps = (scores.anomaly_map / self.method.map_maximum).clamp_(0, 1).float().cpu().numpy()
        parts = torch.stack([scores.score, scores.global_score, scores.local_score]).clamp(0, 1).float().cpu().tolist()
        return [Prediction(j, g, loc, maps[i]) for i, (j, g, loc) in enumerate(zip(*parts, strict=True))]

    def batch_text(self, categories: Sequence[str] | None) -> Tensor:
        """(2, E) where all images of a batch share their category, else (B, 2, E). None: the detector's own."""
        if categories is None or not self.method.uses_category or len(set(categories)) == 1:
            return self.text_of(categories[0] if categories else None)
        return torch.stack([self.text_of(name) for name in categories])

    def pixels(self, images: Sequence[np.ndarray], size: tuple[int, int]) -> Tensor:
        """(H, W, 3) uint8 arrays -> what enters the tower, (B, 3, *size)."""
        config = self.backbone.config
        stacked = torch.stack([resize(image, size) for image in images]).to(self.device)
        return normalise(stacked, config.mean, config.std, self.backbone.dtype)

    def describe(self) -> dict[str, Any]:
        """Facts that tell one run from another, for `run.json`; least short side, peers and roi where there are any."""
        return {
            "method": self.method.name,
            "config": self.method.config_dict(),
            "category": self.category,
            "references": self.references,
            "backbone": self.backbone.name,
            "backbone_hash": self.backbone.hash,
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "checkpoint_hash": self.checkpoint_hash,
            "checkpoint_data": self.info.data if self.info else None,
            "calibration": self.info.calibration if self.info else None,
            "image_size": self.image_size,
            "keep_aspect": self.keep_aspect,
            "patch": self.patch,
            **({"least_side": self.least_side} if self.least_side else {}),
            **({"peers": self.peers} if self.peers else {}),
            **({"roi": str(self.roi)} if self.roi else {}),
            "precision": self.precision,
        }


def default_checkpoint(backbone: Backbone, method: str | None = None) -> Path | None:
    """The method's checkpoint that ships with the package, if this is the backbone that ships with it."""
    path = EMBEDDED / f"{method or DEFAULT_METHOD}.safetensors"
    return path if backbone.name == "embedded" and path.is_file() else None
