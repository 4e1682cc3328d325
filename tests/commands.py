"""The command as a user runs it, in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from headclip.cli.app import main


def run(*arguments: str | Path) -> int:
    """The exit status of `headclip ARGUMENTS`."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return int(caught.value.code or 0)
