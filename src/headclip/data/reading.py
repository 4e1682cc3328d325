"""What reading a dataset folder gives: records, and everything that did not fit, each with its file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headclip.data.discover import printable
from headclip.data.records import ImageRecord, Outline
from headclip.errors import InputError

Severity = Literal["error", "problem", "note"]
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """Something about a dataset that its user should know.

    error: the dataset cannot be scored honestly, and opening it is refused. problem: it can, but is not what
    it should be. note: a fact, such as a folder that does not belong to the test images. kind groups findings
    of one sort; the message names the file.
    """

    severity: Severity
    kind: str
    message: str
    path: Path | None = None


@dataclass
class Reading:
    """Collects the records and findings of one dataset folder."""

    root: Path
    records: list[ImageRecord] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(
        self,
        path: Path,
        label: int | None,
        mask: Path | None,
        category: str,
        defect: str = "",
        outline: Outline | None = None,
    ) -> None:
        """One more image."""
        self.records.append(ImageRecord(path, label, mask, printable(category), printable(defect), outline))

    def error(self, kind: str, message: str, path: Path | None = None) -> None:
        """Note a finding for which opening the dataset is refused."""
        self.findings.append(Finding("error", kind, message, path))

    def problem(self, kind: str, message: str, path: Path | None = None) -> None:
        """Note a finding that the user should repair."""
        self.findings.append(Finding("problem", kind, message, path))

    def note(self, kind: str, message: str, path: Path | None = None) -> None:
        """Note a fact."""
        self.findings.append(Finding("note", kind, message, path))

    def shown(self, path: Path) -> str:
        """The path relative to the dataset, for messages."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def labels(self) -> dict[str, Counter[int | None]]:
        """Images by label, for each category."""
        found: dict[str, Counter[int | None]] = {}
        for record in self.records:
            found.setdefault(record.category, Counter())[record.label] += 1
        return found

    def raise_errors(self, title: str) -> None:
        """Raise InputError with the first errors, if there are any."""
        errors = [finding.message for finding in self.findings if finding.severity == "error"]
        if errors:
            raise InputError(
                f"{title} in {self.root} cannot be used: {some(errors, '; ')}. `headclip data check` lists everything"
            )


def some(items: Sequence[str], separator: str = ", ") -> str:
    """The first few items, and how many more there are.

    >>> some(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return separator.join(items[:_SHOWN]) + more
