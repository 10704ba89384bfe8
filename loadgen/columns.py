"""Columns of numbers that a repeat of hours leaves behind: on the disk, once there are many, and in memory one by one.

In: a value a request. Out: an array when it is asked for. A column of a million requests takes 8 MB; a dozen of them
for ten million would take a gigabyte all the time, where one after the other is looked at once, at the end.
"""

from __future__ import annotations

import tempfile
from array import array
from pathlib import Path
from typing import IO, Any

from loadgen.arrays import NDArray, np
from loadgen.errors import StoreError


class Column:
    """Numbers of one kind (``typecode`` of `array`). ``append`` takes one; `spill` puts what is in memory on the disk,
    into a file in ``folder`` that has no name and goes with the process. Without a folder all stays in memory."""

    def __init__(self, typecode: str, folder: Path | None = None) -> None:
        self._values: array[Any] = array(typecode)
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._stored = 0
        self.append = self._values.append

    def __len__(self) -> int:
        return self._stored + len(self._values)

    def extend(self, values: NDArray[Any]) -> None:
        """Take an array of the column's own kind."""
        self._values.frombytes(values.tobytes())

    def spill(self) -> None:
        """Puts what is in memory on the disk. Raises StoreError."""
        if self._folder is None:
            return
        try:
            self._file = self._file or tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - as long as the column
            self._values.tofile(self._file)
            self._file.flush()
        except OSError as error:
            why = error.strerror or str(error)
            raise StoreError(f"{self._folder}: cannot keep the figures of a long repeat: {why}.") from error
        self._stored += len(self._values)
        del self._values[:]

    def load(self) -> NDArray[Any]:
        """All of them, in the order in which they came. Nothing may be appended while the array is in use."""
        kind = np.dtype(self._values.typecode)
        if self._file is None:
            return np.frombuffer(self._values, kind) if self._values else np.empty(0, kind)
        self.spill()
        self._file.seek(0)
        return np.fromfile(self._file, kind)

    def close(self) -> None:
        """Gives the file back; the column is empty then."""
        if self._file is not None:
            self._file.close()
            self._file, self._stored = None, 0
