"""Batches of workers on other machines become files of the run, each batch once.

In: `Batch` after `Batch`, some of them perhaps twice. Out: the worker's request lines in a file of the attempt, and the
latencies of all workers over time, merged. A batch that is in the file is acknowledged by asking for the next one, so a
machine that goes away takes nothing along that was acknowledged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from loadgen.errors import LoadgenError, StoreError
from loadgen.fleet.node import Batch, Counted
from loadgen.histogram import Histogram, Interval


class Received:
    """The file of one worker's lines. ``wanted`` is the number of the batch that is to come next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wanted = 1
        self._size = 0
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def take(self, batch: Batch) -> bool:
        """Writes the lines of a batch. False, and nothing is done, for one that was taken before.

        Raises StoreError where they cannot be written, LoadgenError for lines that do not follow on those before.
        """
        if batch.number < self.wanted:
            return False
        if (batch.number, batch.at) != (self.wanted, self._size):
            raise LoadgenError(
                f"batch {batch.number} of worker {batch.worker} begins at byte {batch.at}, and {self.path} has "
                f"{self.wanted - 1} batches with {self._size} bytes. This is a bug, please report it."
            )
        self._write(batch.lines)
        self._size += len(batch.lines)
        self.wanted += 1
        return True

    def close(self) -> None:
        """Puts the file on the disk: only then may the worker's own copy go."""
        os.fsync(self._fd)
        os.close(self._fd)

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path}: {error.strerror}. What was written before is whole."
            ) from error


class Latencies:
    """The workers' histograms, added up by tag and step of time. They are kept encoded: an hour of open ones would take
    two gigabytes."""

    def __init__(self) -> None:
        self._merged: dict[tuple[float, str], Counted] = {}

    def add(self, counted: Counted) -> None:
        """Adds one worker's share of a step."""
        key = (counted.start_s, counted.tag)
        if key in self._merged:
            both = Histogram.decode(self._merged[key].histogram)
            both.merge(Histogram.decode(counted.histogram))
            counted = msgspec.structs.replace(counted, histogram=both.encode())
        self._merged[key] = counted

    def intervals(self) -> Iterator[Interval]:
        """All of them, in the order of a log, each made when it is asked for."""
        for key in sorted(self._merged):
            one = self._merged[key]
            yield Interval(one.tag, one.start_s, one.length_s, Histogram.decode(one.histogram))
