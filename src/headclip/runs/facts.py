"""Facts as JSON files and pages can hold them: paths may have bytes that are no UTF-8."""

from __future__ import annotations

import json
from typing import Any

from headclip.data.discover import printable


def as_facts(values: dict[str, Any]) -> dict[str, Any]:
    """JSON-able values as run.json gives them back; bytes of paths that are no UTF-8 become escapes."""
    facts: dict[str, Any] = _printable(json.loads(json.dumps(values)))
    return facts


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return printable(value) if isinstance(value, str) else value
