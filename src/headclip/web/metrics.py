"""What the server counts, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from headclip.web.batching import BatchReport
from headclip.web.watch import Watch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one server; two servers in one process do not share them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "headclip_requests", "Answers by route and status.", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "headclip_request_seconds", "Time to answer.", ["route"], buckets=_SECONDS, registry=self.registry
        )
        self.images = Counter("headclip_images", "Images by outcome.", ["outcome"], registry=self.registry)
        self.batches = Histogram(
            "headclip_batch_images", "Images a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=self.registry
        )
        self.model_seconds = Histogram(
            "headclip_model_seconds", "Time in the model a batch.", buckets=_SECONDS, registry=self.registry
        )
        self.wait_seconds = Histogram(
            "headclip_queue_seconds", "Time an image waits for the model.", buckets=_SECONDS, registry=self.registry
        )
        self.waiting = Gauge("headclip_queue_images", "Images that wait for the model.", registry=self.registry)
        self.uploading = Gauge("headclip_upload_bytes", "Bytes of bodies on their way.", registry=self.registry)
        self.ready = Gauge("headclip_ready", "1 while images are taken.", registry=self.registry)

    def batch(self, report: BatchReport) -> None:
        """Count one batch of the model."""
        self.batches.observe(report.images)
        self.model_seconds.observe(report.seconds)
        for seconds in report.waited:
            self.wait_seconds.observe(seconds)
        self.images.labels("judged").inc(report.images - report.failed)
        self.images.labels("failed").inc(report.failed)

    def watch(self, watch: Watch) -> None:
        """Tell how a watched folder is doing."""
        images = Gauge(
            "headclip_watch_images", "Images of the watched folder on record.", ["outcome"], registry=self.registry
        )
        images.labels("judged").set_function(lambda: watch.state.judged)
        images.labels("failed").set_function(lambda: watch.state.failed)
        error = Gauge("headclip_watch_error", "1 while the watched folder cannot be judged.", registry=self.registry)
        error.set_function(lambda: float(watch.state.error is not None))
        idle = Gauge(
            "headclip_watch_idle_seconds",
            "Time since the last look without an error.",
            registry=self.registry,
        )
        idle.set_function(lambda: watch.idle_seconds)

    def render(self) -> bytes:
        """The text that a scraper reads."""
        return generate_latest(self.registry)
