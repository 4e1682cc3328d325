"""CSV that is read back as it was written, whatever the cells hold."""

from __future__ import annotations

import io


class CsvText(io.StringIO):
    r"""What `csv.writer` and `csv.DictWriter` write to, with their usual line ends; the text has "\n" in their place.

    File names may hold a carriage return, which ends a row for every reader. Until Python 3.13 the writer puts a cell
    in quotes for it only where it is part of the line end that the writer was given.

    >>> import csv
    >>> buffer = CsvText()
    >>> csv.writer(buffer).writerows([["a\rb", 1], ["c", 2]])
    >>> buffer.getvalue()
    '"a\rb",1\nc,2\n'
    """

    def __init__(self) -> None:
        super().__init__(newline="")

    def write(self, text: str) -> int:
        """Take a whole row, as the writers give it."""
        return super().write(text.removesuffix("\r\n") + "\n")
