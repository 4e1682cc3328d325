"""The JSON of the REST API."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

Verdict = Literal["ok", "review", "defect"]


class MapData(BaseModel):
    """An anomaly map."""

    encoding: Literal["png", "npy"] = Field(
        description="png: 16-bit grey, 0 to 65535 for 0 to 1; npy: NumPy file, float32"
    )
    height: int
    width: int
    data: str = Field(description="The file, in base64.")


class RegionData(BaseModel):
    """A connected part of an image whose map lies above the pixel threshold. Pixels of the image, y down."""

    number: int = Field(description="From 1, the highest peak first.")
    area: int = Field(description="Pixels.")
    box: tuple[int, int, int, int] = Field(description="Left, top, width, height.")
    peak: float = Field(description="Highest value of the map in it.")
    peak_at: tuple[float, float] = Field(description="Where that is, x and y.")
    mean: float = Field(description="Mean value of the map in it.")
    polygon: list[tuple[float, float]] = Field(description="Outline, x and y of each corner.")
    holes: list[list[tuple[float, float]]] = Field(description="Outlines of what it leaves out.")
    area_mm2: float | None = Field(default=None, description="Where the pixel pitch is known.")
    box_mm: tuple[float, float] | None = Field(
        default=None, description="Width and height, where the pixel pitch is known."
    )


class ImageResult(BaseModel):
    """One image: its judgement, or the reason why there is none."""

    name: str = Field(description="The name the client gave, without folders.")
    status: Literal["ok", "failed"]
    reason: str | None = Field(default=None, description="Why the image could not be judged.")
    score: float | None = Field(default=None, description="Anomaly score in [0, 1].")
    global_score: float | None = Field(default=None, description="What the image as a whole contributes, in [0, 1].")
    local_score: float | None = Field(
        default=None, description="What the highest part of the map contributes, in [0, 1]."
    )
    height: int | None = None
    width: int | None = None
    verdict: Verdict | None = Field(default=None, description="Absent without a threshold or a calibration.")
    regions: list[RegionData] | None = Field(default=None, description="Absent without a pixel threshold.")
    map: MapData | None = Field(default=None, description="On request.")


class PredictAnswer(BaseModel):
    """The answer to POST /v1/predict, in the order of the request."""

    results: list[ImageResult]
    threshold: float | None = Field(default=None, description="Scores above it raise an alarm.")
    pixel_threshold: float | None = Field(default=None, description="Map values above it belong to regions.")
    alarm_pixel_threshold: float | None = Field(
        default=None, description="The same in images that are not ok, where it is lower; absent: as in any image."
    )
    seconds: float = Field(description="From the complete request to the answer.")


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"
    version: str


class WatchData(BaseModel):
    """How far the watched folder is."""

    judged: int
    failed: int = Field(description="Files that are no readable image.")
    error: str | None = Field(default=None, description="Why nothing can be done at the moment.")


class Ready(BaseModel):
    """Whether images are taken."""

    ready: bool
    reason: str | None = None
    waiting: int = Field(default=0, description="Images in the queue.")
    model: dict[str, Any] | None = Field(default=None, description="Method, backbone and hashes.")
    watch: WatchData | None = Field(default=None, description="With --watch.")


class ErrorAnswer(BaseModel):
    """What is wrong and what to do about it."""

    detail: str
