"""Every repeat of a published table's figures, and their mean: what the terminal and Markdown show below the table.

In: a `Laid` table. Out: a `Drawn`, a row for each figure that was measured more than once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from loadgen.published.join import Found, Laid, Line
from loadgen.published.tables import Column as Described
from loadgen.published.tables import Measured
from loadgen.reports.table_columns import NO_RATIO, Column, Drawn, figure, shown
from loadgen.shown import DASH


def repeats(laid: Laid) -> Drawn | None:
    """Every repeat of what was measured more than once, and the mean: None where nothing was."""
    items = [
        (line, place, measure)
        for line in laid.lines
        for place, found in line.found.items()
        for measure, values in found.figures.items()
        if len(values) > 1 and measure not in NO_RATIO and found.states and any(value is not None for value in values)
    ]
    most = max((len(line.found[place].figures[measure]) for line, place, measure in items), default=0)
    if not items:
        return None
    keys = [Column(name, _row_text(name)) for name in laid.table.keys]
    across = [] if laid.table.across is None else [Column(laid.table.across.origin, lambda item: str(item[1]))]
    said = [Column("target", lambda item: str(item[0].target)), Column("figure", lambda item: named_in(laid, item[2]))]
    each = [Column(str(i + 1), _repeat(laid, i)) for i in range(most)]
    mean = Column("mean", lambda item: _mean(laid, item[0].found[item[1]], item[2]))
    return Drawn([*keys, *across, *said, *each, mean], len(keys) + len(across), items)


def named_in(laid: Laid, measure: Measured) -> str:
    """The table's own name of a measure; the measure's where several columns have it."""
    own: Mapping[str, Described] = laid.table.columns
    return next((name for name, one in own.items() if one.measure == measure), measure)


def _row_text(name: str) -> Callable[[tuple[Line, str, Measured]], str]:
    return lambda item: item[0].row.get(name, "") or DASH


def _repeat(laid: Laid, number: int) -> Callable[[tuple[Line, str, Measured]], str]:
    def text(item: tuple[Line, str, Measured]) -> str:
        line, place, measure = item
        found = line.found[place]
        if number >= len(found.states):
            return ""
        if found.states[number] in ("invalid", "failed"):
            return found.states[number].upper()
        return figure(found.figures[measure][number], _digits(laid, measure))

    return text


def _mean(laid: Laid, found: Found, measure: Measured) -> str:
    return shown(found, measure, _digits(laid, measure))


def _digits(laid: Laid, measure: Measured) -> int:
    if laid.table.across is not None:
        return laid.table.across.digits
    return next(one.digits for one in laid.table.columns.values() if one.measure == measure)
