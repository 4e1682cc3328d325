"""One graph for other engines: 8-bit images in, anomaly maps and scores out, checked against the eager model."""

from headclip.export.exporting import export_model
from headclip.export.graph import exportable_methods
from headclip.export.parity import Parity, measure_parity

__all__ = ["Parity", "export_model", "exportable_methods", "measure_parity"]
