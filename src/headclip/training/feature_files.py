"""Rows of one size that are found by a key: in memory, or in a memory-mapped file that several runs share.

A row file is two files. NAME.rows holds the rows one after the other. NAME.index has one line of JSON for each row
that is complete: its key, its number, and a hash over key and content; later lines supersede earlier ones. A line is
appended after its row has been written, under a lock, so that a killed run leaves at most a row that no line names,
and the next writer takes its place. What a crash of the machine or a failing disk leaves behind does not match its
hash, and reads as if it had never been kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from headclip.files import parse_json
from headclip.locks import try_lock
from headclip.training.feature_codec import Row

PATIENCE = 600.0  # seconds to wait for another run that is writing; one batch takes seconds at most


class Rows(Protocol):
    """What keeps rows by key."""

    @property
    def in_use(self) -> int:
        """Bytes of the rows that are complete."""
        ...

    def has(self, key: str) -> bool:
        """Whether a sound row is kept under this key."""
        ...

    def read(self, key: str) -> Row:
        """The row of a key that `has` affirmed."""
        ...

    def write(self, rows: Mapping[str, Row]) -> None:
        """Keep rows whose keys are new, or whose rows were damaged.

        Raises:
            OSError: there is no room for them.
        """
        ...


class MemoryRows:
    """Rows in memory, gone at the end of the process."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self.in_use = 0

    def has(self, key: str) -> bool:
        return key in self._rows

    def read(self, key: str) -> Row:
        return self._rows[key]

    def write(self, rows: Mapping[str, Row]) -> None:
        self.in_use += sum(row.nbytes for key, row in rows.items() if key not in self._rows)
        self._rows.update(rows)


class FileRows:
    """Rows of `row_bytes` bytes each in `stem`.rows and `stem`.index.

    Every row is checked against its hash when this process first asks for it. `damaged` lists the keys of rows that
    failed; they count as missing until they are written again, in another place.
    """

    def __init__(self, stem: Path, row_bytes: int) -> None:
        self.rows, self.index = (stem.with_name(stem.name + ending) for ending in (".rows", ".index"))
        self.row_bytes = row_bytes
        self.damaged: set[str] = set()
        self._entries: dict[str, tuple[int, str]] = {}  # key -> row number and hash
        self._sound: set[str] = set()
        self._seen = 0  # bytes of the index that were read
        self._next = 0  # first row number that no entry names
        self._map: np.memmap[Any, np.dtype[np.uint8]] | None = None
        self._refresh()

    @property
    def in_use(self) -> int:
        return len(self._entries) * self.row_bytes

    def has(self, key: str) -> bool:
        if key in self._sound:
            return True
        if key not in self._entries or key in self.damaged:
            self._refresh()  # another run may have written it since
        if key not in self._entries or key in self.damaged:
            return False
        number, wanted = self._entries[key]
        row = self._row(number)
        if row is None or row_hash(key, row) != wanted:
            self.damaged.add(key)
            return False
        self._sound.add(key)
        return True

    def read(self, key: str) -> Row:
        row = self._row(self._entries[key][0])
        if row is None:
            raise OSError(f"{self.rows} was cut short while it was being read")
        return row

    def write(self, rows: Mapping[str, Row]) -> None:
        with self._locked() as index:
            self._refresh()
            size = self.rows.stat().st_size if self.rows.exists() else 0
            entries, following = {}, min(self._next, -(-size // self.row_bytes))  # a damaged index may name any row
            with self.rows.open("r+b" if self.rows.exists() else "w+b") as handle:
                for key, row in rows.items():
                    if key in self._entries and key not in self.damaged:
                        continue  # another run was faster
                    handle.seek(following * self.row_bytes)
                    handle.write(row.data)
                    entries[key] = (following, row_hash(key, row))
                    following += 1
            lines = ({"key": key, "row": number, "hash": digest} for key, (number, digest) in entries.items())
            index.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            index.flush()
            self._seen, self._next = os.fstat(index.fileno()).st_size, following
        self._entries |= entries
        self.damaged -= set(entries)
        self._sound |= set(entries)

    def _row(self, number: int) -> Row | None:
        """One row as it is in the file now; None beyond its end."""
        if self._map is None or len(self._map) <= number:
            size = self.rows.stat().st_size // self.row_bytes if self.rows.exists() else 0
            if size <= number:
                return None
            # copy on write: torch wants arrays that may be written to, and the file must never change through one
            self._map = np.memmap(self.rows, np.uint8, "c", shape=(size, self.row_bytes))
        row: Row = np.asarray(self._map[number])
        return row

    def _refresh(self) -> None:
        """Take in what the index has gained; a line without its end is not there yet."""
        if not self.index.exists() or self.index.stat().st_size <= self._seen:
            return
        with self.index.open("rb") as handle:
            handle.seek(self._seen)
            whole = handle.read().rpartition(b"\n")
        self._seen += len(whole[0]) + len(whole[1])
        for line in whole[0].splitlines():
            entry = read_entry(line)
            if entry is not None:
                key, number, digest = entry
                self._entries[key] = (number, digest)
                self._next = max(self._next, number + 1)
                self.damaged.discard(key)
                self._sound.discard(key)

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes]]:
        """The index, opened for appending whole lines, held against other writers."""
        self.index.parent.mkdir(parents=True, exist_ok=True)
        with self.index.open("a+b") as handle:
            until = time.monotonic() + PATIENCE
            while not try_lock(handle):
                if time.monotonic() > until:
                    raise TimeoutError(f"another process has held {self.index} for {PATIENCE:.0f} s")
                time.sleep(0.02)
            size = handle.seek(0, os.SEEK_END)
            if size:
                handle.seek(size - 1)
                if handle.read(1) != b"\n":  # a run was killed in the middle of a line
                    handle.write(b"\n")
                    handle.flush()
            yield handle


def row_hash(key: str, row: Row) -> str:
    """SHA-256 (hex, 128 bits of it) over a key and its row."""
    digest = hashlib.sha256(key.encode())
    digest.update(np.ascontiguousarray(row).data)
    return digest.hexdigest()[:32]


def read_entry(line: bytes) -> tuple[str, int, str] | None:
    """Key, row number and hash of a line of an index; None where it is torn."""
    try:
        entry = parse_json(line)
        key, number, digest = entry["key"], entry["row"], entry["hash"]
    except (ValueError, KeyError, TypeError):
        return None
    sound = isinstance(key, str) and isinstance(number, int) and isinstance(digest, str) and number >= 0
    return (key, number, digest) if sound else None
