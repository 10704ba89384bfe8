"""The columns of a published table with what was measured beside them, as text; shared by the terminal and Markdown.

In: a `Laid` table and some of its lines. Out: `Drawn`: columns, and the items that each of them makes a text of. Most
tables have three columns for a figure (published, measured, ratio); one that is across has three rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from loadgen.published.join import ONLY, Found, Laid, Line, number
from loadgen.published.tables import Measured
from loadgen.reports.rows import how_often
from loadgen.shown import DASH

NOT_MEASURED = "not measured"
NO_RATIO: tuple[Measured, ...] = ("gpus", "in_tok", "out_tok")
"""Counts, which are not better or worse by a factor."""


class Column(NamedTuple):
    """A column: its heading, the text of an item, and how soon it gives way in a narrow window (0 never)."""

    head: str
    text: Callable[[Any], str]
    yields: int = 0


class Drawn(NamedTuple):
    """A table ready to be drawn. The first ``left`` columns stand to the left and never give way."""

    columns: Sequence[Column]
    left: int
    items: Sequence[Any]

    def without_first(self) -> Drawn:
        """The same without its first column."""
        return Drawn(self.columns[1:], self.left - 1, self.items)

    def rows(self, kept: Sequence[Column] | None = None) -> list[list[str]]:
        """A header and a row for each item, of all columns or of the first ``left`` and those that are kept."""
        shown = self.columns if kept is None else [*self.columns[: self.left], *kept]
        return [[column.head for column in shown], *([column.text(item) for column in shown] for item in self.items)]


class Letters:
    """Doubts of a table by letter, in the order in which they are met."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[list[str], list[str]]] = {}

    def of(self, *measured: Found) -> str:
        """The letters of the doubts of one measurement or several: ``a-c, f``."""
        for found in measured:
            for doubt in found.doubts:
                texts, where = self._found.setdefault(doubt.code, ([], []))
                if found.where not in where:
                    texts.append(doubt.text)
                    where.append(found.where)
        codes = list(self._found)
        numbers = sorted({codes.index(doubt.code) for found in measured for doubt in found.doubts})
        stretches = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
        return ", ".join(_stretch([number for _, number in stretch]) for _, stretch in stretches)

    def lines(self) -> list[str]:
        """What each letter stands for, with how often and where first."""
        return [
            f"{_letter(i)}: {texts[0]} ({how_often(where, 'cell', set(texts) != {texts[0]})})"
            for i, (texts, where) in enumerate(self._found.values())
        ]


def drawn(laid: Laid, lines: Sequence[Line], letters: Letters) -> Drawn:
    """Some lines of a table, as the table is laid out."""
    return _long(laid, lines, letters) if laid.table.across is None else stacked(laid, lines, letters)


def figure(value: float | None, digits: int) -> str:
    """A measured figure with the digits of the published ones; a dash for None."""
    return DASH if value is None else f"{value:.{digits}f}"


def ratio(published: str, measured: float | None) -> float | None:
    """Measured by published; None where one of them is no plain number."""
    base = number(published)
    return measured / base if base and measured is not None else None


def shown(found: Found | None, measure: Measured, digits: int) -> str:
    """A measured figure in a table: its mean, INVALID or FAILED in its place (of a count a dash), or a dash."""
    if found is None or (found.state != "ok" and measure in NO_RATIO):
        return DASH
    return figure(found.mean(measure), digits) if found.state == "ok" else found.state.upper()


def several(lines: Sequence[Line]) -> bool:
    """Whether some row was measured by several targets, whose names alone tell its lines apart."""
    rows = [tuple(line.row.items()) for line in lines]
    return len(set(rows)) < len(rows)


# One figure a column --------------------------------------------------------------------------------------------------


def _long(laid: Laid, lines: Sequence[Line], letters: Letters) -> Drawn:
    columns: list[Column] = []
    for name, described in laid.table.columns.items():
        columns.append(Column(name, _published(name)))
        if described.measure is not None:
            columns += _beside(name, described.measure, described.digits)
    left = next((i for i, one in enumerate(laid.table.columns.values()) if one.origin is None), len(columns))
    yields = 0 if several(lines) else 1
    tail = [Column("target", lambda line: line.target or DASH, yields), Column("state", _state(letters))]
    return Drawn([*columns, *tail], left, lines)


def _beside(name: str, measure: Measured, digits: int) -> Iterator[Column]:
    yield Column(f"{name} measured", lambda line: shown(line.found.get(ONLY), measure, digits), _yields(measure))
    if measure not in NO_RATIO:
        yield Column(f"{name} ratio", lambda line: _ratio(line.row.get(name, ""), line.found.get(ONLY), measure))


def _yields(measure: Measured) -> int:
    return 2 if measure in NO_RATIO else 0


def _published(name: str) -> Callable[[Line], str]:
    return lambda line: line.row.get(name, "") or DASH


def _ratio(published: str, found: Found | None, measure: Measured) -> str:
    return figure(ratio(published, found.mean(measure) if found else None), 2)


def _state(letters: Letters) -> Callable[[Line], str]:
    def text(line: Line) -> str:
        if not line.found:
            return NOT_MEASURED
        one = line.found[ONLY]
        said, doubts = "ok" if one.state == "ok" else one.state.upper(), letters.of(one)
        return f"{said} ({doubts})" if doubts else said

    return text


# A row for what was published, one for what was measured, one for the ratio -------------------------------------------


class _Figure(NamedTuple):
    """A column of figures: its name, where in a line its measurement stands, and what is measured."""

    name: str
    place: str
    measure: Measured | None
    digits: int


def stacked(laid: Laid, lines: Sequence[Line], letters: Letters, named: bool = True) -> Drawn:
    """Three rows for a line: narrower, and how tables that are across are always shown. What was measured is called by
    its target, or without ``named`` just so."""
    wanted = set(laid.table.across.columns) if laid.table.across is not None else {ONLY}
    columns = [Column(name, _first(name)) for name in laid.table.keys]
    columns.append(Column("", _named if named else lambda item: str(item[1])))
    left = len(columns)
    columns += [Column(one.name, _at(one), int(one.measure in NO_RATIO)) for one in _figures(laid)]
    columns.append(Column("state", _states(letters, wanted)))
    return Drawn(columns, left, [(line, which) for line in lines for which in _which(line)])


def _named(item: tuple[Line, str]) -> str:
    line, which = item
    return str(line.target) if which == "measured" else which


def _figures(laid: Laid) -> Iterator[_Figure]:
    for name, described in laid.table.columns.items():
        if described.origin is None:
            yield _Figure(name, ONLY, described.measure, described.digits)
    if laid.table.across is not None:
        for place in places(laid):
            yield _Figure(place, place, laid.table.across.measure, laid.table.across.digits)


def places(laid: Laid) -> list[str]:
    """The columns of a table that is across: its own, then values that it has none for."""
    assert laid.table.across is not None
    extra = (place for line in laid.lines for place in line.found)
    return list(dict.fromkeys([*laid.table.across.columns, *extra]))


def _which(line: Line) -> list[str]:
    both = line.published and bool(line.found)
    return [
        *(["published"] if line.published else []),
        *(["measured"] if line.found else []),
        *(["ratio"] if both else []),
    ]


def _first(name: str) -> Callable[[tuple[Line, str]], str]:
    """A key, once for all rows of a line."""
    return lambda item: item[0].row.get(name, "") if item[1] == _which(item[0])[0] else ""


def _at(one: _Figure) -> Callable[[tuple[Line, str]], str]:
    def text(item: tuple[Line, str]) -> str:
        line, which = item
        published, found = line.row.get(one.name, ""), line.found.get(one.place)
        if which == "published":
            return published or DASH
        if one.measure is None:
            return ""
        if which == "measured":
            return shown(found, one.measure, one.digits)
        return "" if one.measure in NO_RATIO else _ratio(published, found, one.measure)

    return text


def _states(letters: Letters, wanted: set[str]) -> Callable[[tuple[Line, str]], str]:
    """The state of a line's measurements, the worst first; below it how many of the ``wanted`` places have none."""

    def text(item: tuple[Line, str]) -> str:
        line, which = item
        if which == "ratio":
            missing = len(wanted - line.found.keys())
            return f"{missing} {NOT_MEASURED}" if missing else ""
        if which == "published":
            return "" if line.found else NOT_MEASURED
        states = {one.state for one in line.found.values()}
        said = next(state for state in ("failed", "invalid", "ok") if state in states)
        doubts = letters.of(*line.found.values())
        return (said if said == "ok" else said.upper()) + (f" ({doubts})" if doubts else "")

    return text


def _stretch(numbers: Sequence[int]) -> str:
    """Letters that follow one another: three or more as ``a-c``."""
    ends = [_letter(numbers[0]), _letter(numbers[-1])]
    return "-".join(ends) if len(numbers) > 2 else ", ".join(dict.fromkeys(ends))


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"z{number - 25}"
