"""Parquet files by any path that the system has."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def read_table(path: Path, schema: pa.Schema | None = None) -> pa.Table:
    """A whole table; pyarrow itself takes no path that is no UTF-8.

    Raises:
        OSError, pa.ArrowException: it is missing or damaged.
    """
    with path.open("rb") as handle:
        return pq.read_table(handle, schema=schema)
