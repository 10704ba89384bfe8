"""Measured cells laid beside the rows of a published table. Pure functions: in go a `Table` and what was measured, each
with the keys of its row; out come the table's lines in their order, then what is in no row of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from loadgen.published.tables import Measured, Table
from loadgen.summary import Doubt

ONLY = ""
"""The place of a figure in a table that is not across: a line has one measurement."""

_RANK = ("ok", "invalid", "failed")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One target in one cell of one run, as a row of a table would have it.

    ``keys`` are by column (and by what the table is across); ``figures`` hold a value for each repeat, None for one
    that has none or is not to be trusted. ``state`` is the cell's: ok, invalid or failed; ``states`` are those of the
    repeats, or missing. ``where`` says which cell.
    """

    keys: dict[str, str]
    figures: dict[Measured, tuple[float | None, ...]]
    state: str
    target: str
    run: str
    where: str
    doubts: tuple[Doubt, ...] = ()
    states: tuple[str, ...] = ()

    def mean(self, measure: Measured) -> float | None:
        """Mean over the repeats that have a value; None for a cell that is not ok, which is never averaged."""
        known = [value for value in self.figures.get(measure, ()) if value is not None]
        return sum(known) / len(known) if known and self.state == "ok" else None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line: the published ``row`` (for a measurement that has none, its keys), and who measured what of it.

    ``found`` is by place: `ONLY`, or the names of the columns that the table is across. ``target`` is None where nobody
    has measured the row.
    """

    row: dict[str, str]
    published: bool
    target: str | None = None
    found: dict[str, Found] = {}


class Laid(msgspec.Struct, frozen=True, kw_only=True):
    """A table with its lines. ``aside`` are measurements in whose place a better or a newer one stands."""

    table: Table
    lines: tuple[Line, ...]
    aside: tuple[Found, ...] = ()


def lay(table: Table, measured: Iterable[Found], quotients: bool = True) -> Laid:
    """The table's rows in their order, each as often as targets have measured it, then measurements without a row.

    Of two measurements of one target in one row the better stands (ok before invalid before failed), and of equals the
    later in ``measured``. ``quotients`` adds the row that divides two others, where the table has one.
    """
    placed: dict[tuple[tuple[str, ...], str], dict[str, Found]] = {}
    aside: list[Found] = []
    names = list(table.keys)
    for one in measured:
        place = _place(table, one)
        mine = placed.setdefault((tuple(one.keys.get(name, "") for name in names), one.target), {})
        kept = mine.get(place)
        better = kept is None or _RANK.index(one.state) <= _RANK.index(kept.state)
        if kept is not None:
            aside.append(kept if better else one)
        if better:
            mine[place] = one
    lines: list[Line] = []
    for row in table.rows:
        key = tuple(row.get(name, "") for name in names)
        lines += _lines(row, True, {target: found for (other, target), found in placed.items() if other == key})
    known = {tuple(row.get(name, "") for name in names) for row in table.rows}
    for (key, target), found in placed.items():
        if key not in known:
            lines += _lines(dict(zip(names, key, strict=True)), False, {target: found})
    last = _quotients(table, lines) if quotients else ()
    return Laid(table=table, lines=(*lines, *last), aside=tuple(aside))


def number(text: str) -> float | None:
    """A published figure as a number; None for limits (``<5G``), gaps and other conditions (``39G (8k)``)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)G?", text)
    return float(found[1]) if found else None


def _place(table: Table, one: Found) -> str:
    """Where in its line a measurement stands. At a value that the table has no column for, it is a place of its own."""
    if table.across is None:
        return ONLY
    value = one.keys.get(table.across.origin, "")
    return next((name for name, own in table.across.columns.items() if own == value), value)


def _lines(row: Mapping[str, str], published: bool, by_target: Mapping[str, Mapping[str, Found]]) -> Iterator[Line]:
    if not by_target:
        yield Line(row=dict(row), published=published)
    for target, found in by_target.items():
        yield Line(row=dict(row), published=published, target=target, found=dict(found))


def _quotients(table: Table, lines: Sequence[Line]) -> Iterator[Line]:
    """The last line of a table that divides two of its rows: what was published by what was, and measured by measured
    where both are good."""
    across = table.across
    if across is None or across.quotient is None:
        return
    asked, (key, *_) = across.quotient, table.keys
    above = [line for line in lines if line.row[key] == asked.of]
    below = [line for line in lines if line.row[key] == asked.by]
    row, found = {key: asked.name}, {}
    for name in across.columns:
        a, b = (number(side[0].row.get(name, "")) if side else None for side in (above, below))
        row[name] = f"{a / b:.{across.digits}f}" if a and b else ""
        over, under = _good(above, name, across.measure), _good(below, name, across.measure)
        if over is not None and under is not None:
            found[name] = _ratio(over, under, across.measure)
    target = next(iter({one.target for one in found.values()}), None)
    yield Line(row=row, published=True, target=target, found=found)


def _good(lines: Sequence[Line], name: str, measure: Measured) -> Found | None:
    found = (line.found.get(name) for line in lines)
    return next((one for one in found if one is not None and one.mean(measure)), None)


def _ratio(over: Found, under: Found, measure: Measured) -> Found:
    a, b = over.mean(measure), under.mean(measure)
    return Found(
        keys={},
        figures={measure: (a / b if a and b else None,)},
        state="ok",
        target=f"{over.target} / {under.target}",
        run=over.run if over.run == under.run else f"{over.run}, {under.run}",
        where=f"{over.where} / {under.where}",
        doubts=tuple({doubt.code: doubt for doubt in (*under.doubts, *over.doubts)}.values()),
    )
