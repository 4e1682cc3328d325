"""What the pages of one server have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from headclip.web.limits import Limits
from headclip.web.live import LiveRun
from headclip.web.pictures import Cache
from headclip.web.runs import RunView


@dataclass
class Site:
    """runs: by the name in their address. live: the run of dropped images, where there is a model.
    watched: name of the folder that is watched."""

    runs: dict[str, RunView]
    limits: Limits
    live: LiveRun | None = None
    live_key: str | None = None
    watch_key: str | None = None
    watched: str | None = None
    cache: Cache = field(default_factory=Cache)
