"""What people have recorded of real traffic: files of arrivals and lengths, one file here per format.

In: a file and how to read it (`How`). Out: `Row` after `Row` as they stand there; ``cut`` makes a `Trace` of them.
A scenario's ``workload.format`` is the name of a file here. A line that cannot be read is a UsageError that begins with
``file:line``: a trace with a hole would be another traffic, and nobody would see it.

Three files are shared by the formats and are none: ``cut`` (which part is replayed), ``lines`` (JSON, one object a
line) and ``table`` (CSV with a line of headings).
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol, cast

import msgspec

from loadgen.errors import UsageError

_SHARED = ("cut", "lines", "table")

MOST_TOKENS = 10_000_000
"""The longest prompt or reply that is believed."""

UNITS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}
"""Nanoseconds of each unit of time."""

TimeUnit = Literal["s", "ms", "us", "ns"]

WORDS = ("time", "input", "output", "hash_ids")
"""Our words for the columns of a trace."""


class Row(NamedTuple):
    """One request of a trace: when it came (whole nanoseconds since anything), its tokens, and the ids of the blocks
    that its prompt begins with (equal ids are equal tokens), the line that it stands in."""

    at_ns: int
    in_tok: int
    out_tok: int
    hash_ids: tuple[int, ...]
    line: int


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is to be read, where a format leaves it open; None and empty for the format's own.

    ``columns`` maps our words (`WORDS`) to the file's names, ``where`` the file's names to the only value that is taken
    (as text). ``block_tokens`` is the size of the blocks that ``hash_ids`` stand for.
    """

    columns: Mapping[str, str] = {}
    time_unit: TimeUnit | None = None
    block_tokens: int | None = None
    where: Mapping[str, str] = {}


class Format(Protocol):
    """What the module of a format offers."""

    BLOCK_TOKENS: int
    """The size of its blocks of tokens unless the scenario says another; 0 where it has none."""

    def rows(self, path: Path, how: How) -> Iterator[Row]:
        """The requests of a file. Raises UsageError for the first line that cannot be read."""


def names() -> list[str]:
    """The formats that exist, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)


def load(name: str) -> Format:
    """The format of this name. Raises UsageError with the list of those that exist, the nearest first."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.0)[0]
        raise UsageError(
            f"workload.format: {name!r} is not known; did you mean {near!r}? There are: {', '.join(names())}. A table "
            "of your own is format: csv with its columns."
        )
    return cast(Format, importlib.import_module(f"loadgen.traces.{name}"))


def opened(path: Path) -> IO[bytes]:
    """The bytes of a trace; a ``.gz`` file is read as what it holds. Raises UsageError."""
    try:
        if path.suffix == ".gz":
            import gzip

            return cast(IO[bytes], gzip.open(path, "rb"))
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"workload.path: {path} cannot be read: {error.strerror or error}.") from error


def labels(own: Mapping[str, str], how: How) -> dict[str, str]:
    """The file's names of our words: the format's own, or the scenario's in their place. Raises UsageError."""
    for word in how.columns:
        if word not in WORDS:
            raise UsageError(f"workload.columns.{word}: a trace has no {word!r}; it has {', '.join(WORDS)}.")
    return {**own, **how.columns}


def tokens(value: Any, label: str, where: str) -> int:
    """A number of tokens, 0 included; ``where`` is file:line. Raises UsageError."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"{where}: {label} is {_shown(value)}, not a whole number of tokens.")
    if not 0 <= value <= MOST_TOKENS:
        raise UsageError(f"{where}: {label} is {value}; a number of tokens is from 0 to {MOST_TOKENS:,}.")
    return value


def nanoseconds(value: Any, unit: TimeUnit, label: str, where: str) -> int:
    """A number of ``unit`` as whole nanoseconds; ``where`` is file:line. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise UsageError(f"{where}: {label} is {_shown(value)}, not a time in {unit}.")
    return value * UNITS[unit] if isinstance(value, int) else round(value * UNITS[unit])


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
