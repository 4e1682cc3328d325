"""What holds for the whole run of the tests."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Say how a test process of pytest-xdist ended that was lost: it may have had no chance to say anything itself."""
    process = getattr(node.gateway._io, "popen", None)
    if not error or process is None:
        return
    try:
        status = process.wait(10)
    except subprocess.TimeoutExpired:
        how = "it has not ended, but answers no more"
    else:
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    node.config.get_terminal_writer().line(f"\nlost {node.gateway.id}: {how}")
