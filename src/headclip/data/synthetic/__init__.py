"""The synthetic auxiliary set: inspection-like pictures with defects, exact masks and captions, made from a
seed."""

from headclip.data.synthetic.captions import (
    ABNORMAL_STATES,
    NORMAL_STATES,
    TEMPLATES,
    abnormal_caption,
    caption_pair,
    normal_caption,
)
from headclip.data.synthetic.pool import RenderPool, open_pool, write_pool
from headclip.data.synthetic.renderer import Sample, SyntheticDataset, render, render_batch

__all__ = [
    "ABNORMAL_STATES",
    "NORMAL_STATES",
    "TEMPLATES",
    "RenderPool",
    "Sample",
    "SyntheticDataset",
    "abnormal_caption",
    "caption_pair",
    "normal_caption",
    "open_pool",
    "render",
    "render_batch",
    "write_pool",
]
