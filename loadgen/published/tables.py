"""The published tables by name: from two files of this folder to a checked `Table`.

The CSV file holds the figures, column by column as they were published, as text. The YAML file says what a measured
cell puts beside each column: a column that is ``from`` something tells rows apart, one with a ``measure`` holds a
figure, one with neither is text that is only shown. A table may be ``across``: then several columns are figures of one
measure, and the column's name tells them apart (the batch sizes of `yi_batch_memory`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from loadgen.errors import UsageError

Origin = Literal["row", "input_tokens", "asked_output_tokens", "prompts", "batch", "gpus", "gpu_name", "size"]
"""Where a measured cell has the value of a key from: its target's ``row``, or what the cell itself says."""

Measured = Literal[
    "request_tok_s",
    "request_total_tok_s",
    "output_tok_s",
    "total_tok_s",
    "request_rps",
    "e2e_s",
    "in_tok",
    "out_tok",
    "torch_gib",
    "gpus",
    "gpu_gb",
]
"""What a measured cell puts beside a figure: a metric; torch's peak in GiB; how many GPUs; the GB of one."""

SAID: tuple[Origin, ...] = ("row", "size")
"""Keys that a target's ``row`` states; the others follow from the cell and are never stated."""


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"origin": "from"}):
    """One column: a key (``origin``), a figure (``measure``, shown with so many ``digits``), or text (neither)."""

    origin: Origin | None = None
    measure: Measured | None = None
    digits: int = 2


class Quotient(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A last row of a table that is ``across``: the row ``of`` something divided by another, under a name."""

    name: str
    of: str
    by: str


class Across(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"origin": "from"}):
    """Columns that are figures of one measure at different values of one key: name of the column to that value."""

    origin: Origin
    measure: Measured
    columns: dict[str, str]
    digits: int = 2
    quotient: Quotient | None = None


class Slip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published figure that cannot be: of the row with these keys, in this column, and why."""

    row: dict[str, str]
    column: str
    why: str


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published table. ``rows`` are its lines by column, as text; empty for a procedure whose figures are not kept.

    ``gpu`` names the hardware as `memory_plan.CARDS` does, None where it is not known; ``gpus`` is how many of them
    each row had, ``input_tokens`` and ``output_tokens`` how long prompts and replies were, where no column says it.
    """

    title: str
    source: str
    hardware: str
    software: str
    how: str
    columns: dict[str, Column]
    gpu: str | None = None
    gpus: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    preset: str | None = None
    across: Across | None = None
    slips: tuple[Slip, ...] = ()
    name: str = ""
    rows: tuple[dict[str, str], ...] = ()

    @property
    def keys(self) -> dict[str, Origin]:
        """The columns that tell rows apart, and where a measured cell has them from."""
        return {name: column.origin for name, column in self.columns.items() if column.origin is not None}

    @property
    def measures(self) -> tuple[Measured, ...]:
        """Everything that a measured cell puts beside a figure, in the order of the columns."""
        found = [column.measure for column in self.columns.values()]
        found += [self.across.measure] if self.across is not None else []
        return tuple(measure for measure in found if measure is not None)

    @property
    def said(self) -> tuple[str, ...]:
        """The words of a target's ``row``."""
        across = (self.across.origin,) if self.across and self.across.origin in SAID else ()
        return (*(name for name, origin in self.keys.items() if origin in SAID), *across)


def names() -> list[str]:
    """The tables that exist."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


@lru_cache(maxsize=16)  # a scenario is checked cell by cell, and the files of the package do not change
def table(name: str) -> Table:
    """The table of this name; nothing in it may be changed.

    Raises UsageError for one that does not exist, with those that do, the nearest first.
    """
    known = names()
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, n=len(known), cutoff=0.0)
        raise UsageError(
            f"there is no published table {name!r}; did you mean {near[0]!r}? There are: {', '.join(near)}."
        )
    described = {**_described(_folder() / f"{name}.yaml"), "name": name, "rows": tuple(_rows(name))}
    return msgspec.convert(described, Table)


def _described(path: Path) -> Mapping[str, Any]:
    from ruamel.yaml import YAML

    found: Mapping[str, Any] = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    return found


def _rows(name: str) -> Iterator[dict[str, str]]:
    path = _folder() / f"{name}.csv"
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _folder() -> Path:
    return Path(str(files("loadgen.published")))
