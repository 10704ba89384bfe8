"""Traces as tables: CSV with a line of headings, a request a line. What Azure's, BurstGPT's and your own share.

A time is a number of the format's unit, or a date and time of day; fractions of any length are kept (Azure's have seven
digits, of which a float of seconds since 1970 would lose the last). Without a time zone it is taken for UTC; only
differences count.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from loadgen.errors import UsageError
from loadgen.traces import How, Row, TimeUnit, labels, nanoseconds, opened, tokens

_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d+))?\s*(Z|[+-]\d\d(?::?\d\d)?)?")


def rows(path: Path, how: How, own: Mapping[str, str], unit: TimeUnit) -> Iterator[Row]:
    """The requests of a table, whose columns are ``own`` unless the scenario names others; blank lines are passed over.

    Raises UsageError, ``file:line: reason``.
    """
    named = labels(own, how)
    with opened(path) as data, io.TextIOWrapper(data, encoding="utf-8-sig", newline="") as text:
        reader = csv.reader(text, strict=True)
        try:
            heads = [head.strip() for head in next(reader, [])]
            places = _places(path, heads, [*(named[word] for word in ("time", "input", "output")), *how.where])
            for fields in reader:
                if fields:
                    where = f"{path}:{reader.line_num}"
                    if len(fields) != len(heads):
                        count = f"{len(fields)} fields, and {len(heads)} columns have a heading"
                        raise UsageError(f"{where}: the line has {count}; is it cut off?")
                    if all(fields[places[name]].strip() == value for name, value in how.where.items()):
                        yield _row(
                            fields, [places[named[word]] for word in ("time", "input", "output")], heads, unit, where
                        )
        except (csv.Error, UnicodeDecodeError, OSError, EOFError) as error:
            raise UsageError(f"{path}:{reader.line_num + 1}: no CSV: {error}.") from None


def _places(path: Path, heads: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    for name in names:
        if name not in heads:
            raise UsageError(
                f"{path}:1: there is no column {name!r}; there are: {', '.join(heads[:12]) or 'none'}. "
                "workload.columns names others."
            )
    return {name: heads.index(name) for name in names}


def _row(fields: Sequence[str], places: Sequence[int], heads: Sequence[str], unit: TimeUnit, where: str) -> Row:
    time, *counts = (fields[place].strip() for place in places)
    in_tok, out_tok = (
        tokens(_number(text), heads[place], where) for text, place in zip(counts, places[1:], strict=True)
    )
    return Row(_time(time, unit, heads[places[0]], where), in_tok, out_tok, (), int(where.rpartition(":")[2]))


def _number(text: str) -> int | float | str:
    """The number that a text is; the text itself where it is none."""
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def _time(text: str, unit: TimeUnit, label: str, where: str) -> int:
    found = _MOMENT.fullmatch(text)
    if found is None:
        return nanoseconds(_number(text), unit, label, where)
    day, time, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{zone or '+00:00'}").astimezone(UTC)
    except ValueError as error:
        raise UsageError(f"{where}: {label} is {text!r}, which is no moment: {error}.") from None
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 10**9 + int((fraction or "")[:9].ljust(9, "0"))
